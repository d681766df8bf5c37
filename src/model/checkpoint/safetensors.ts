// model.safetensors: eight bytes of length, a JSON header, then the data. Reads the header only, and holds it to the
// format's rules: every byte of data belongs to exactly one tensor.

import { CheckpointError } from '../../errors.js'
import { show } from '../../options/check.js'
import type { ByteReader, FileIdentity } from './byte-reader.js'
import { elements, STORED_BYTES, type StoredType, type TensorSource } from './tensor-source.js'

const TYPES: Readonly<Record<string, StoredType>> = { F64: 'f64', F32: 'f32', F16: 'f16', BF16: 'bf16' }
/** As in the reference implementation. */
const MOST_HEADER_BYTES = 100_000_000

/** Tensors of one safetensors file; U8 ones only if `packed`. Throws CheckpointError. */
export async function readSafetensors(reader: ByteReader, path: string, packed = false): Promise<TensorSource[]> {
  const { size } = reader.identity
  const prefix = Buffer.alloc(8)
  if ((await reader.read(prefix, 0)) < 8) throw invalid(path, 'it is shorter than a header', 'eight bytes of header length')
  const length = prefix.readBigUInt64LE()
  const most = Math.min(MOST_HEADER_BYTES, size - 8)
  if (length > BigInt(most)) throw invalid(path, `its header claims ${length} bytes`, `at most ${most}`)
  const header = Buffer.alloc(Number(length))
  if ((await reader.read(header, 8)) !== header.length) throw invalid(path, 'its header is cut short', `${header.length} bytes`)
  return parseHeader(header, reader.identity, path, packed ? { ...TYPES, U8: 'u8' } : TYPES)
}

function parseHeader(header: Buffer, file: FileIdentity, path: string, types: typeof TYPES): TensorSource[] {
  let parsed: unknown
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(header))
  } catch (cause) {
    throw invalid(path, 'its header is not JSON', 'a JSON object', cause)
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw invalid(path, 'its header is no object', 'a JSON object')
  const dataStart = 8 + header.length
  const tensors = Object.entries(parsed).flatMap(([name, value]) =>
    name === '__metadata__' ? [] : [parseTensor(name, value, dataStart, file, path, types)],
  )
  const inOrder = tensors.toSorted((a, b) => a.offset - b.offset || sizeOf(a) - sizeOf(b))
  let end = dataStart
  for (const tensor of inOrder) {
    const what = tensor.offset < end ? 'overlaps the tensor before it' : 'leaves a hole before it'
    if (tensor.offset !== end) throw invalid(path, `${tensor.name} ${what}`, `data from byte ${end - dataStart} on`)
    end += sizeOf(tensor)
  }
  if (end !== file.size)
    throw invalid(
      path,
      `its tensors end ${Math.abs(file.size - end)} bytes ${end > file.size ? 'past' : 'before'} the end of the file`,
      'data up to its end',
    )
  return tensors
}

function sizeOf(tensor: TensorSource): number {
  return elements(tensor.shape) * STORED_BYTES[tensor.dtype]
}

function parseTensor(name: string, value: unknown, dataStart: number, file: FileIdentity, path: string, types: typeof TYPES): TensorSource {
  const v = (typeof value === 'object' && value !== null ? value : {}) as { dtype?: unknown; shape?: unknown; data_offsets?: unknown }
  const dtype = typeof v.dtype === 'string' && Object.hasOwn(types, v.dtype) ? types[v.dtype] : undefined
  if (!dtype) {
    throw new CheckpointError('TENSOR_DTYPE', {
      what: `${path}: ${name.slice(0, 80)} has the type ${show(v.dtype)}`,
      expected: Object.keys(types).join(', '),
      remedy: 'Convert the checkpoint to float32, float16 or bfloat16.',
    })
  }
  if (!isSizes(v.shape) || v.shape.length > 8 || !isSizes(v.data_offsets) || v.data_offsets.length !== 2) {
    throw invalid(path, `its entry ${name.slice(0, 80)} is malformed`, 'dtype, shape and two data_offsets')
  }
  const [begin, end] = v.data_offsets as [number, number]
  const bytes = elements(v.shape) * STORED_BYTES[dtype]
  if (end - begin !== bytes || dataStart + end > file.size) {
    throw invalid(path, `${name.slice(0, 80)} claims bytes ${begin} to ${end}`, `${bytes} bytes inside the file`)
  }
  return { name, path, file, dtype, shape: v.shape, offset: dataStart + begin }
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((d) => Number.isSafeInteger(d) && d >= 0)
}

function invalid(path: string, what: string, expected: string, cause?: unknown): CheckpointError {
  return new CheckpointError('CHECKPOINT_INVALID', { what: `${path}: ${what}`, expected, remedy: 'Fetch the file again.', cause })
}
