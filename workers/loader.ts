// The worker of the loader pool: reads a block of rows by offset, converts it, and packs it straight into the memories.
// Nothing is held but one block per thread.
import { closeSync, openSync, readSync } from 'node:fs'
import { f32BitsFromF16 } from '../kernels/float-formats.js'
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

export default function load(task: LoadTask): LoadResult {
  const count = task.rows * task.cols
  const bytes = buffers.bytes(count * (task.dtype === 'f32' ? 4 : 2))
  const read = readBlock(task.path, bytes, task.offset)
  if (read < bytes.length) return { problem: 'truncated', message: `${task.tensor} ends after ${read} of ${bytes.length} bytes` }
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

function readBlock(path: string, target: Uint8Array, offset: number): number {
  const file = openSync(path, 'r')
  try {
    let done = 0
    while (done < target.length) {
      const n = readSync(file, target, done, target.length - done, offset + done)
      if (n === 0) break
      done += n
    }
    return done
  } finally {
    closeSync(file)
  }
}

/** Stored elements as float32 bits. */
function widen(dtype: LoadTask['dtype'], bytes: Uint8Array, bits: Uint32Array): Uint32Array {
  if (dtype === 'f32') {
    bits.set(new Uint32Array(bytes.buffer, bytes.byteOffset, bits.length))
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
  const target = piece.format === 'bf16' ? new Uint16Array(buffer, piece.ptr) : new Uint32Array(buffer, piece.ptr)
  const skipped = first - piece.row
  packRectangle(
    target,
    piece.packedCols,
    bits,
    task.cols,
    { row: first - task.firstRow, rows, col: piece.col, cols: piece.cols },
    piece.packedRow + (piece.transposed ? 0 : skipped),
    piece.packedCol + (piece.transposed ? skipped : 0),
    piece.transposed,
  )
}
