// Packed matrices, as all backends read them. Knows no tensor names.
import { TILE_ROWS } from './float-weights.js'
import type { WeightFormat } from './weight-format.js'
import { WEIGHT_FORMATS } from './weight-formats.js'

export { TILE_ROWS }

/** A matrix (or `batch` of the same shape, as heads are) in a memory. Plain data: it crosses threads. */
export interface PackedMatrix {
  /** Byte offset of the first tile. */
  readonly ptr: number
  readonly rows: number
  readonly cols: number
  readonly format: WeightFormat
  readonly batch: number
  /** Bytes from one matrix of the batch to the next. */
  readonly batchBytes: number
  /** Scalars from one batch's inputs to the next, and the same of its outputs. */
  readonly inStride: number
  readonly outStride: number
  /** Bytes of the whole batch, padding included. */
  readonly bytes: number
}

/** One matrix of a batch. */
export function inBatch(matrix: PackedMatrix, index: number): PackedMatrix {
  return { ...matrix, ptr: matrix.ptr + index * matrix.batchBytes, batch: 1, bytes: matrix.batchBytes }
}

/** Bytes of one packed [rows, cols] matrix, padding included. */
export function packedBytes(rows: number, cols: number, format: WeightFormat): number {
  const { tileRows, blockColumns, blockBytes } = WEIGHT_FORMATS[format]
  return Math.ceil(rows / tileRows) * Math.ceil(cols / blockColumns) * blockBytes
}

/** Scalars of an output row, padding included: what matmul writes. */
export function paddedRows(rows: number): number {
  return Math.ceil(rows / TILE_ROWS) * TILE_ROWS
}
