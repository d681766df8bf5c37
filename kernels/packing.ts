// The packed weight layout that all backends read: tiles of 32 rows, column by column (design rule 1).
// Owns where an element lies; knows no tensor names. The kernels' side is wasm/assembly/matmul.ts.
import { bf16FromF32Bits } from './float-formats.js'
import { int8Bytes } from './int8-packing.js'

/** Rows of a tile; a matrix is padded with zero rows to a multiple of it. */
export const TILE_ROWS = 32

/** Formats whose elements stand alone; int8 has scales (int8-packing.ts). */
export type FloatFormat = 'f32' | 'bf16'
export type WeightFormat = FloatFormat | 'int8'

export const WEIGHT_BYTES: Readonly<Record<FloatFormat, number>> = { f32: 4, bf16: 2 }

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
  if (format === 'int8') return int8Bytes(rows, cols)
  return Math.ceil(rows / TILE_ROWS) * TILE_ROWS * cols * WEIGHT_BYTES[format]
}

/** Scalars of an output row, padding included: what matmul writes. */
export function paddedRows(rows: number): number {
  return Math.ceil(rows / TILE_ROWS) * TILE_ROWS
}

/** Position of row r (0..31) within a bf16 column: low and high halves of a 32-bit lane hold rows 4 apart. */
const BF16_ROW_POSITION = Uint8Array.from({ length: TILE_ROWS }, (_, r) => ((r >> 3) << 3) + ((r & 3) << 1) + ((r >> 2) & 1))
const F32_ROW_POSITION = Uint8Array.from({ length: TILE_ROWS }, (_, r) => r)

export function rowPositions(format: FloatFormat): Uint8Array {
  return format === 'bf16' ? BF16_ROW_POSITION : F32_ROW_POSITION
}

/** Index (in elements of the format, from the matrix's first) of element (row, col). */
export function packedIndex(row: number, col: number, cols: number, format: FloatFormat): number {
  const position = rowPositions(format)[row & 31] as number
  return (row >> 5) * cols * TILE_ROWS + col * TILE_ROWS + position
}

/** The rectangle of a source block that a piece takes: source rows and columns counted within the block. */
export interface Rectangle {
  readonly row: number
  readonly rows: number
  readonly col: number
  readonly cols: number
}

/**
 * Packs a rectangle of `source` (float32 bits, [*, sourceCols]) into the matrix at `target`, its first element landing at
 * (packedRow, packedCol). When `transposed`, source columns become packed rows.
 * target: the matrix's elements, Uint32Array for f32 and Uint16Array for bf16.
 */
export function packRectangle(
  target: Uint32Array | Uint16Array,
  packedCols: number,
  source: Uint32Array,
  sourceCols: number,
  rectangle: Rectangle,
  packedRow: number,
  packedCol: number,
  transposed: boolean,
): void {
  const bf16 = target instanceof Uint16Array
  const position = rowPositions(bf16 ? 'bf16' : 'f32')
  const tileStride = packedCols * TILE_ROWS
  if (transposed) {
    for (let r = 0; r < rectangle.rows; r++) {
      const from = (rectangle.row + r) * sourceCols + rectangle.col
      const column = (packedCol + r) * TILE_ROWS
      for (let c = 0; c < rectangle.cols; c++) {
        const row = packedRow + c
        const bits = source[from + c] as number
        target[(row >> 5) * tileStride + column + (position[row & 31] as number)] = bf16 ? bf16FromF32Bits(bits) : bits
      }
    }
    return
  }
  for (let r = 0; r < rectangle.rows; r++) {
    const row = packedRow + r
    const from = (rectangle.row + r) * sourceCols + rectangle.col
    let to = (row >> 5) * tileStride + packedCol * TILE_ROWS + (position[row & 31] as number)
    for (let c = 0; c < rectangle.cols; c++, to += TILE_ROWS) {
      const bits = source[from + c] as number
      target[to] = bf16 ? bf16FromF32Bits(bits) : bits
    }
  }
}
