// Reads the tensors of an adapter and packs them as float32, scaled, into the adapters' memory.
import { setImmediate } from 'node:timers/promises'
import { f32BitsFromF16 } from '../../../kernels/float-formats.js'
import { f32Index } from '../../../kernels/float-weights.js'
import { AdapterError, CheckpointError } from '../../errors.js'
import { type ByteReader, withFile } from '../checkpoint/byte-reader.js'
import { elements, STORED_BYTES, type TensorSource } from '../checkpoint/tensor-source.js'
import type { Fill, TensorFills } from './adapter-plan.js'

/**
 * Fills zeroed matrices. Yields to the event loop after each tensor. Throws CheckpointError TENSOR_NON_FINITE or CHECKPOINT_CHANGED, AdapterError
 * ADAPTER_NOT_FOUND.
 */
export async function packAdapter(fills: readonly TensorFills[], memory: SharedArrayBuffer, path: string): Promise<void> {
  await withFile(path, async (reader) => {
    for (const { tensor, ofA, ofB } of fills) {
      const a = await read(reader, tensor.a)
      for (const fill of ofA) pack(memory, fill, a, tensor.a.shape[1] as number, 1)
      const b = await read(reader, tensor.b)
      for (const fill of ofB) pack(memory, fill, b, tensor.b.shape[1] as number, tensor.scale)
      await setImmediate()
    }
  }).catch((cause: unknown) => {
    if (cause instanceof CheckpointError) throw cause
    throw new AdapterError('ADAPTER_NOT_FOUND', {
      what: `cannot read ${path}`,
      actual: cause instanceof Error ? cause.message : String(cause),
      remedy: 'Check that the file is still there and readable.',
      cause,
    })
  })
}

function pack(
  memory: SharedArrayBuffer,
  { matrix, row, rows, col, cols, step, toRow, toCol, turned }: Fill,
  source: Float32Array,
  width: number,
  scale: number,
): void {
  const target = new Float32Array(memory, matrix.ptr)
  for (let i = 0; i < rows; i++) {
    const from = (row + i) * width + col
    for (let j = 0; j < cols; j++) {
      const at = turned ? f32Index(toRow + j, toCol + i, matrix.cols) : f32Index(toRow + i, toCol + j, matrix.cols)
      target[at] = (source[from + j * step] as number) * scale
    }
  }
}

async function read(reader: ByteReader, source: TensorSource): Promise<Float32Array> {
  const { name, path, file, dtype, shape, offset } = source
  const { size, mtimeMs, ino } = reader.identity
  const bytes = new Uint8Array(elements(shape) * STORED_BYTES[dtype])
  if (size !== file.size || mtimeMs !== file.mtimeMs || ino !== file.ino || (await reader.read(bytes, offset)) < bytes.length) {
    throw new CheckpointError('CHECKPOINT_CHANGED', {
      what: `${path}: the file was replaced or rewritten while ${name} was loaded`,
      expected: 'files that stay as they are while they are loaded',
      remedy: 'Load again when the files are complete.',
    })
  }
  const values = widened(bytes.buffer, dtype)
  const bad = values.findIndex((value) => !Number.isFinite(value))
  if (bad < 0) return values
  throw new CheckpointError('TENSOR_NON_FINITE', {
    what: `${path}: ${name} at element ${bad} is not finite`,
    expected: 'finite weights',
    actual: 'NaN or infinity',
    remedy: 'The training or the conversion went wrong: use another adapter.',
  })
}

function widened(buffer: ArrayBuffer, dtype: TensorSource['dtype']): Float32Array {
  if (dtype === 'f32') return new Float32Array(buffer)
  if (dtype === 'f64') return Float32Array.from(new Float64Array(buffer))
  const half = new Uint16Array(buffer)
  const bits = Uint32Array.from(half, dtype === 'bf16' ? (h) => h << 16 : f32BitsFromF16)
  return new Float32Array(bits.buffer)
}
