// The worker of the loader pool: reads a block of rows by offset, converts it, and packs it straight into the memories.
// Nothing is held but one block per thread.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { f32BitsFromF16 } from '../kernels/float-formats.js'
import { packInt8 } from '../kernels/int8-packing.js'
import { packRectangle } from '../kernels/packing.js'
import type { LoadResult, LoadTask, MatrixPiece } from './protocol.js'

/** Buffers that live as long as the thread, so that a long load leaves no garbage. They grow to the largest block. */
class BlockBuffers {
  #bytes = new Uint8Array(0)
  #bits = new Uint32Array(0)

  bytes(n: number): Uint8Array {
    if (this.#bytes.length < n) this.#bytes = new Uint8Array(n)
    return this.#bytes.subarray(0, n)
  }

  bits(n: number): Uint32Array {
    if (this.#bits.length < n) this.#bits = new Uint32Array(n)
    return this.#bits.subarray(0, n)
  }
}

const buffers = new BlockBuffers()

const ELEMENT_BYTES = { f64: 8, f32: 4, f16: 2, bf16: 2 } as const

export default function load(task: LoadTask): LoadResult {
  const count = task.rows * task.cols
  const bytes = buffers.bytes(count * ELEMENT_BYTES[task.dtype])
  const file = openSync(task.path, 'r')
  try {
    const { size, mtimeMs, ino } = fstatSync(file)
    if (size !== task.file.size || mtimeMs !== task.file.mtimeMs || ino !== task.file.ino) {
      return { problem: 'changed', message: `it was replaced or rewritten while ${task.tensor} was being loaded` }
    }
    const read = task.strided
      ? readStrided(file, bytes, task, task.strided)
      : readFully(file, bytes, task.offset + task.firstRow * task.cols * ELEMENT_BYTES[task.dtype])
    if (read < bytes.length) return { problem: 'truncated', message: `${task.tensor} ends after ${read} of ${bytes.length} bytes` }
  } finally {
    closeSync(file)
  }
  const bits = widen(task.dtype, bytes, buffers.bits(count))
  const bad = bits.findIndex((b) => (b & 0x7f800000) === 0x7f800000)
  if (bad >= 0) return { problem: 'non-finite', message: `${task.tensor} at element ${task.firstRow * task.cols + bad}` }
  for (const piece of task.pieces) pack(piece, piece.buffer, bits, task)
  for (const { buffer, ptr, factor } of task.vectors) {
    const source = new Float32Array(bits.buffer, bits.byteOffset, count)
    const target = new Float32Array(buffer, ptr, count)
    for (let i = 0; i < count; i++) target[i] = Math.fround(source[i] as number) * factor
  }
  return { bytes: bytes.length }
}

/** Bytes read: target.length, or fewer at the end of the file. */
function readFully(file: number, target: Uint8Array, position: number): number {
  let done = 0
  while (done < target.length) {
    const n = readSync(file, target, done, target.length - done, position + done)
    if (n === 0) break
    done += n
  }
  return done
}

/** Gathers rows whose elements are apart: one read a row, of the span that the row's elements lie in. */
function readStrided(file: number, target: Uint8Array, task: LoadTask, { shape, strides }: NonNullable<LoadTask['strided']>): number {
  const size = ELEMENT_BYTES[task.dtype]
  const step = strides.at(-1) as number
  const span = new Uint8Array(((task.cols - 1) * step + 1) * size)
  for (let r = 0; r < task.rows; r++) {
    let rest = task.firstRow + r
    let at = 0
    for (let d = shape.length - 2; d >= 0; d--) {
      const extent = shape[d] as number
      at += (rest % extent) * (strides[d] as number)
      rest = Math.floor(rest / extent)
    }
    const done = r * task.cols * size
    if (readFully(file, span, task.offset + at * size) < span.length) return done
    for (let c = 0; c < task.cols; c++) target.set(span.subarray(c * step * size, (c * step + 1) * size), done + c * size)
  }
  return target.length
}

/** Stored elements as float32 bits. */
function widen(dtype: LoadTask['dtype'], bytes: Uint8Array, bits: Uint32Array): Uint32Array {
  if (dtype === 'f32') {
    bits.set(new Uint32Array(bytes.buffer, bytes.byteOffset, bits.length))
    return bits
  }
  if (dtype === 'f64') {
    // Rounds to float32; what overflows becomes infinite and is refused with the other non-finite values.
    new Float32Array(bits.buffer, bits.byteOffset, bits.length).set(new Float64Array(bytes.buffer, bytes.byteOffset, bits.length))
    return bits
  }
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bits.length)
  if (dtype === 'bf16') for (let i = 0; i < bits.length; i++) bits[i] = (halves[i] as number) << 16
  else for (let i = 0; i < bits.length; i++) bits[i] = f32BitsFromF16(halves[i] as number)
  return bits
}

/** Packs what the block holds of a piece. */
function pack(piece: MatrixPiece, buffer: SharedArrayBuffer, bits: Uint32Array, task: LoadTask): void {
  const first = Math.max(piece.row, task.firstRow)
  const rows = Math.min(piece.row + piece.rows, task.firstRow + task.rows) - first
  if (rows <= 0) return
  const skipped = first - piece.row
  const rectangle = { row: first - task.firstRow, rows, col: piece.col, cols: piece.cols }
  const row = piece.packedRow + (piece.transposed ? 0 : skipped)
  const col = piece.packedCol + (piece.transposed ? skipped : 0)
  if (piece.format === 'int8') {
    packInt8(new Uint8Array(buffer, piece.ptr), piece.packedCols, bits, task.cols, rectangle, row, col, piece.transposed)
    return
  }
  const target = piece.format === 'bf16' ? new Uint16Array(buffer, piece.ptr) : new Uint32Array(buffer, piece.ptr)
  packRectangle(target, piece.packedCols, bits, task.cols, rectangle, row, col, piece.transposed)
}
