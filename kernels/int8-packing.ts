// The packed layout of int8 weights: tiles of 16 rows x blocks of 32 columns, each with scales and sums (design rule 8).
// The kernels' side is wasm/assembly/int8.ts, which draws the block.
import type { Rectangle } from './packing.js'

export const INT8_TILE_ROWS = 16
export const INT8_BLOCK_COLUMNS = 32
export const INT8_BLOCK_BYTES = 608
const SCALES = 512
const SUMS = 576

export function int8Bytes(rows: number, cols: number): number {
  return Math.ceil(rows / INT8_TILE_ROWS) * Math.ceil(cols / INT8_BLOCK_COLUMNS) * INT8_BLOCK_BYTES
}

/** Byte offset of the block that holds element (row, col). */
function blockOf(row: number, col: number, cols: number): number {
  return (Math.floor(row / INT8_TILE_ROWS) * Math.ceil(cols / INT8_BLOCK_COLUMNS) + Math.floor(col / INT8_BLOCK_COLUMNS)) * INT8_BLOCK_BYTES
}

/** Byte offset of a weight within its block. */
function positionOf(row: number, col: number): number {
  return ((col & 31) >> 2) * 64 + ((row & 15) >> 2) * 16 + (row & 3) * 4 + (col & 3)
}

/** To nearest, ties to even. */
export function roundHalfEven(v: number): number {
  const r = Math.round(v)
  return r - v === 0.5 && r % 2 !== 0 ? r - 1 : r
}

const values = new Float32Array(INT8_BLOCK_COLUMNS)

/**
 * Quantizes and packs a rectangle of `source` (float32 bits, [*, sourceCols]) as packed rows from packedRow on. Packed columns
 * begin at packedCol, a multiple of 32, and only whole blocks (or the matrix's last columns) may be given at once, since a
 * block has one scale a row: max |w| / 127. When `transposed`, source columns become packed rows.
 * target: the matrix's bytes.
 */
export function packInt8(
  target: Uint8Array,
  packedCols: number,
  source: Uint32Array,
  sourceCols: number,
  rectangle: Rectangle,
  packedRow: number,
  packedCol: number,
  transposed: boolean,
): void {
  const floats = new Float32Array(source.buffer, source.byteOffset, source.length)
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength)
  const rows = transposed ? rectangle.cols : rectangle.rows
  const cols = transposed ? rectangle.rows : rectangle.cols
  const first = rectangle.row * sourceCols + rectangle.col
  const [rowStep, colStep] = transposed ? [1, sourceCols] : [sourceCols, 1]
  for (let r = 0; r < rows; r++) {
    const row = packedRow + r
    for (let c = 0; c < cols; c += INT8_BLOCK_COLUMNS) {
      const n = Math.min(INT8_BLOCK_COLUMNS, cols - c)
      let most = 0
      for (let i = 0, at = first + r * rowStep + c * colStep; i < n; i++, at += colStep) {
        const v = floats[at] as number
        values[i] = v
        most = Math.max(most, Math.abs(v))
      }
      const block = blockOf(row, packedCol + c, packedCols)
      const inverse = most > 0 ? 127 / most : 0
      let sum = 0
      for (let i = 0; i < n; i++) {
        const q = roundHalfEven((values[i] as number) * inverse)
        target[block + positionOf(row, i)] = q & 255
        sum += q
      }
      view.setFloat32(block + SCALES + (row & 15) * 4, most / 127, true)
      view.setInt16(block + SUMS + (row & 15) * 2, sum, true)
    }
  }
}

/** The weight as the kernels see it: integer times scale. bytes: the memory; ptr: the matrix's first byte. */
export function int8Weight(bytes: DataView, ptr: number, row: number, col: number, cols: number): number {
  const block = ptr + blockOf(row, col, cols)
  return bytes.getInt8(block + positionOf(row, col)) * bytes.getFloat32(block + SCALES + (row & 15) * 4, true)
}
