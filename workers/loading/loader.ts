// The worker of the loader pool: reads a block of rows at its offset and packs it directly into the memories. A thread holds one block
// at a time.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { workerData } from 'piscina'
import type { WasmModule } from '../../kernels/wasm/webassembly.js'
import { type LoadResult, type LoadTask, STORED_BYTES } from '../protocol.js'
import { BlockPacker } from './block-packer.js'

// Its memory is kept for the lifetime of the thread and grows to the largest block, so a long load creates no garbage.
const packer = new BlockPacker((workerData as { readonly kernels: WasmModule }).kernels)

export default function load(task: LoadTask): LoadResult {
  const file = openSync(task.path, 'r')
  try {
    const { size, mtimeMs, ino } = fstatSync(file)
    if (size !== task.file.size || mtimeMs !== task.file.mtimeMs || ino !== task.file.ino) {
      return { problem: 'changed', message: `the file was replaced or rewritten while ${task.tensor} was loaded` }
    }
    return loadBlock(file, task)
  } finally {
    closeSync(file)
  }
}

function loadBlock(file: number, task: LoadTask): LoadResult {
  const bytes = packer.begin(task)
  const read = task.strided
    ? readStrided(file, bytes, task, task.strided)
    : readFully(file, bytes, task.offset + task.firstRow * task.cols * STORED_BYTES[task.dtype])
  if (read < bytes.length) return { problem: 'truncated', message: `${task.tensor} ends after ${read} of ${bytes.length} bytes` }
  const bad = packer.check()
  if (bad >= 0) return { problem: 'non-finite', message: `${task.tensor} at element ${task.firstRow * task.cols + bad}` }
  if (task.direct) packer.place(task.direct.buffer, task.direct.ptr)
  for (const piece of task.pieces) {
    const tooLarge = packer.pack(piece, piece.buffer)
    if (tooLarge >= 0) return { problem: 'too-large', message: `${task.tensor} at element ${task.firstRow * task.cols + tooLarge}` }
  }
  for (const vector of task.vectors) packer.vector(vector, vector.buffer)
  return { bytes: bytes.length }
}

/** Returns the bytes read: target.length, or fewer at the end of the file. */
function readFully(file: number, target: Uint8Array, position: number): number {
  let done = 0
  while (done < target.length) {
    const n = readSync(file, target, done, target.length - done, position + done)
    if (n === 0) break
    done += n
  }
  return done
}

/** Bytes that are read at once at most to gather rows out of them. */
const SPAN_BYTES = 16 << 20

/** Gathers rows whose elements are not adjacent: out of one span if rows lie close together, else one read for each row's own. */
function readStrided(file: number, target: Uint8Array, task: LoadTask, strided: NonNullable<LoadTask['strided']>): number {
  const size = STORED_BYTES[task.dtype]
  const step = strided.strides.at(-1) as number
  const rowBytes = task.cols * size
  const spanBytes = ((task.cols - 1) * step + 1) * size
  const starts = Array.from({ length: task.rows }, (_, r) => task.offset + startOf(task.firstRow + r, strided) * size)
  const first = starts.reduce((least, at) => Math.min(least, at), Number.POSITIVE_INFINITY)
  const end = starts.reduce((most, at) => Math.max(most, at), 0) + (step === 1 ? rowBytes : spanBytes)
  const together = end - first <= Math.min(SPAN_BYTES, 2 * target.length) ? new Uint8Array(end - first) : undefined
  if (together && readFully(file, together, first) < together.length) return 0
  const span = new Uint8Array(step === 1 || together ? 0 : spanBytes)
  for (const [r, at] of starts.entries()) {
    const done = r * rowBytes
    if (step === 1) {
      if (together) target.set(together.subarray(at - first, at - first + rowBytes), done)
      else {
        const read = readFully(file, target.subarray(done, done + rowBytes), at)
        if (read < rowBytes) return done + read
      }
      continue
    }
    if (!together && readFully(file, span, at) < span.length) return done
    const row = together ? together.subarray(at - first) : span
    for (let c = 0; c < task.cols; c++) target.set(row.subarray(c * step * size, (c * step + 1) * size), done + c * size)
  }
  return target.length
}

/** Index of a row's first element, from the tensor's. */
function startOf(row: number, { shape, strides }: NonNullable<LoadTask['strided']>): number {
  let rest = row
  let at = 0
  for (let d = shape.length - 2; d >= 0; d--) {
    const extent = shape[d] as number
    at += (rest % extent) * (strides[d] as number)
    rest = Math.floor(rest / extent)
  }
  return at
}
