// model.safetensors: eight bytes of length, a JSON header, then the data. Reads the header only.
import { open } from 'node:fs/promises'
import { CheckpointError } from '../errors.js'
import { elements, STORED_BYTES, type StoredType, type TensorSource } from './tensor-source.js'

const TYPES: Readonly<Record<string, StoredType>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' }
/** As in the reference implementation. */
const MOST_HEADER_BYTES = 100_000_000

/** Tensors of one safetensors file. Throws CheckpointError. */
export async function readSafetensors(path: string): Promise<TensorSource[]> {
  const file = await open(path, 'r')
  try {
    const { size } = await file.stat()
    const prefix = Buffer.alloc(8)
    const { bytesRead } = await file.read(prefix, 0, 8, 0)
    if (bytesRead < 8) throw invalid(path, 'it is shorter than a header', 'eight bytes of header length')
    const length = prefix.readBigUInt64LE()
    if (length > BigInt(Math.min(MOST_HEADER_BYTES, size - 8)))
      throw invalid(path, `its header claims ${length} bytes`, `at most ${Math.min(MOST_HEADER_BYTES, size - 8)}`)
    const header = Buffer.alloc(Number(length))
    const read = await file.read(header, 0, header.length, 8)
    if (read.bytesRead !== header.length) throw invalid(path, 'its header is cut short', `${header.length} bytes`)
    return parseHeader(header, 8 + header.length, size, path)
  } finally {
    await file.close()
  }
}

function parseHeader(header: Buffer, dataStart: number, size: number, path: string): TensorSource[] {
  let parsed: unknown
  try {
    parsed = JSON.parse(header.toString('utf8'))
  } catch (cause) {
    throw invalid(path, 'its header is not JSON', 'a JSON object', cause)
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw invalid(path, 'its header is no object', 'a JSON object')
  return Object.entries(parsed).flatMap(([name, value]) => (name === '__metadata__' ? [] : [parseTensor(name, value, dataStart, size, path)]))
}

function parseTensor(name: string, value: unknown, dataStart: number, size: number, path: string): TensorSource {
  const v = (typeof value === 'object' && value !== null ? value : {}) as { dtype?: unknown; shape?: unknown; data_offsets?: unknown }
  const dtype = typeof v.dtype === 'string' && Object.hasOwn(TYPES, v.dtype) ? TYPES[v.dtype] : undefined
  if (!dtype) {
    throw new CheckpointError('TENSOR_DTYPE', {
      what: `${path}: ${name} has the type ${String(v.dtype).slice(0, 20)}`,
      expected: Object.keys(TYPES).join(', '),
      remedy: 'Convert the checkpoint to float32, float16 or bfloat16.',
    })
  }
  if (!isSizes(v.shape) || v.shape.length > 8 || !isSizes(v.data_offsets) || v.data_offsets.length !== 2) {
    throw invalid(path, `its entry ${name.slice(0, 60)} is malformed`, 'dtype, shape and two data_offsets')
  }
  const [begin, end] = v.data_offsets as [number, number]
  const bytes = elements(v.shape) * STORED_BYTES[dtype]
  if (end - begin !== bytes || dataStart + end > size)
    throw invalid(path, `${name} claims bytes ${begin} to ${end}`, `${bytes} bytes inside the file`)
  return { name, path, dtype, shape: v.shape, offset: dataStart + begin }
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((d) => Number.isSafeInteger(d) && d >= 0)
}

function invalid(path: string, what: string, expected: string, cause?: unknown): CheckpointError {
  return new CheckpointError('CHECKPOINT_INVALID', { what: `${path}: ${what}`, expected, remedy: 'Fetch the file again.', cause })
}
