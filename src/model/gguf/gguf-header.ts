// The header of a GGUF file: metadata, and where each tensor lies. npm @huggingface/gguf parses it, from as many bytes as the file has
// and this file allows: the library reads past the end as zeros and believes counts up to ten million.
import { GGMLQuantizationType, gguf } from '@huggingface/gguf'
import { CheckpointError } from '../../errors.js'
import { show } from '../../options/check.js'
import type { ByteReader, FileIdentity } from '../checkpoint/byte-reader.js'
import { elements, STORED_BYTES, type StoredType } from '../checkpoint/tensor-source.js'
import { GgufMetadata } from './gguf-metadata.js'

export interface GgufTensor {
  readonly name: string
  readonly dtype: StoredType
  /** Row-major, slowest first, as in other formats: GGUF writes the fastest first. */
  readonly shape: readonly number[]
  /** Byte offset in the file. */
  readonly offset: number
}

export interface GgufHeader {
  readonly path: string
  readonly file: FileIdentity
  readonly metadata: GgufMetadata
  readonly tensors: ReadonlyMap<string, GgufTensor>
}

/** GGML's numbers of the types that are read. */
const TYPES: ReadonlyMap<number, StoredType> = new Map([
  [GGMLQuantizationType.F32, 'f32'],
  [GGMLQuantizationType.F16, 'f16'],
  [GGMLQuantizationType.BF16, 'bf16'],
  [GGMLQuantizationType.Q8_0, 'q8_0'],
  [GGMLQuantizationType.Q4_0, 'q4_0'],
])
/** Elements of a block, which has one scale. */
const BLOCK = 32
const FIXED_BYTES = 24
/** A vocabulary of 256,000 pieces with scores and a million merges has 20 MiB. */
const MAX_HEADER_BYTES = 32 << 20
const MAX_TENSORS = 100_000
const MAX_ENTRIES = 4096
const DEFAULT_ALIGNMENT = 32

/** Throws CheckpointError CHECKPOINT_INVALID or TENSOR_DTYPE. */
export async function readGgufHeader(reader: ByteReader, path: string): Promise<GgufHeader> {
  const { size } = reader.identity
  await checkCounts(reader, path)
  const parsed = await gguf('http://file/', { fetch: rangesOf(reader, path) }).catch((cause: unknown) => {
    if (cause instanceof CheckpointError) throw cause
    throw invalid(path, `its header cannot be read: ${cause instanceof Error ? cause.message.slice(0, 200) : show(cause)}`, 'a GGUF file', cause)
  })
  const end = parsed.tensorInfoByteRange[1]
  if (end > size) throw invalid(path, 'its header is cut short', `${end} bytes or more`)
  const metadata = new GgufMetadata(parsed.metadata as unknown as Record<string, unknown>, path)
  const alignment = metadata.optionalInteger('general.alignment', 1, 1 << 20) ?? DEFAULT_ALIGNMENT
  if ((alignment & (alignment - 1)) !== 0) throw invalid(path, `general.alignment is ${alignment}`, 'a power of two')
  const dataStart = Math.ceil(end / alignment) * alignment
  const tensors = new Map<string, GgufTensor>()
  const spans: { name: string; start: number; end: number }[] = []
  for (const { name, shape, dtype, offset } of parsed.tensorInfos) {
    if (tensors.has(name)) throw invalid(path, `${name.slice(0, 80)} is there twice`, 'one tensor of a name')
    const tensor = tensorOf(path, name, shape, dtype, dataStart + Number(offset))
    const bytes = elements(tensor.shape) * STORED_BYTES[tensor.dtype]
    if (Number(offset) % alignment !== 0 || tensor.offset + bytes > size)
      throw invalid(path, `${name.slice(0, 80)} lies at ${offset}, with ${bytes} bytes`, `a multiple of ${alignment}, inside the file`)
    tensors.set(name, tensor)
    spans.push({ name, start: tensor.offset, end: tensor.offset + bytes })
  }
  spans.sort((a, b) => a.start - b.start || a.end - b.end)
  for (const [i, span] of spans.entries()) {
    if (span.start < (spans[i - 1]?.end ?? dataStart)) throw invalid(path, `${span.name.slice(0, 80)} overlaps the tensor before it`, 'tensors apart from each other')
  }
  return { path, file: reader.identity, metadata, tensors }
}

/** Before the library allocates by them: what a file of this size can hold. */
async function checkCounts(reader: ByteReader, path: string): Promise<void> {
  const head = Buffer.alloc(FIXED_BYTES)
  if ((await reader.read(head, 0)) < FIXED_BYTES || head.toString('latin1', 0, 4) !== 'GGUF') throw invalid(path, 'it does not begin as one', 'a GGUF file')
  const version = head.readUInt32LE(4)
  if (version !== 2 && version !== 3)
    throw invalid(path, version > 0xffff ? 'its byte order is not little' : `it is of version ${version}`, 'version 2 or 3, little-endian')
  const most = (bytes: number, limit: number) => BigInt(Math.min(limit, Math.floor(reader.identity.size / bytes)))
  const [tensors, entries] = [head.readBigUInt64LE(8), head.readBigUInt64LE(16)]
  // A tensor's entry has 24 bytes or more, one of the metadata 13.
  if (tensors > most(24, MAX_TENSORS)) throw invalid(path, `it claims ${tensors} tensors`, `at most ${most(24, MAX_TENSORS)}`)
  if (entries > most(13, MAX_ENTRIES)) throw invalid(path, `it claims ${entries} entries of metadata`, `at most ${most(13, MAX_ENTRIES)}`)
}

/** The library fetches ranges; these come from the file. */
function rangesOf(reader: ByteReader, path: string): typeof fetch {
  return async (_, init) => {
    const [, from = '0', to = '0'] = /^bytes=(\d+)-(\d+)$/.exec(new Headers(init?.headers).get('range') ?? '') ?? []
    if (Number(to) >= MAX_HEADER_BYTES) throw invalid(path, 'its header is too large', `at most ${MAX_HEADER_BYTES} bytes`)
    if (Number(from) >= reader.identity.size) throw invalid(path, 'its header is cut short', `more than ${reader.identity.size} bytes`)
    const bytes = Buffer.alloc(Math.min(Number(to) + 1, reader.identity.size) - Number(from))
    const read = await reader.read(bytes, Number(from))
    return new Response(bytes.subarray(0, read), { status: 206 })
  }
}

function tensorOf(path: string, name: string, dimensions: readonly bigint[], type: number, offset: number): GgufTensor {
  const dtype = TYPES.get(type)
  if (!dtype) {
    const named = GGMLQuantizationType[type] ?? `number ${type}`
    throw new CheckpointError('TENSOR_DTYPE', {
      what: `${path}: ${name.slice(0, 80)} has the type ${named}`,
      expected: [...TYPES.values()].join(', ').toUpperCase(),
      actual: named,
      remedy: 'Use a file of the same model in one of these types (Q8_0 loses least), or make one with llama-quantize.',
    })
  }
  const shape = dimensions.map(Number).reverse()
  const isSound = shape.length >= 1 && shape.length <= 4 && shape.every((d) => Number.isSafeInteger(d) && d >= 1) && elements(shape) <= Number.MAX_SAFE_INTEGER / 8
  if (!isSound) throw invalid(path, `${name.slice(0, 80)} has the shape [${shape.slice(0, 8).join(', ')}]`, '1 to 4 dimensions')
  const isBlocked = dtype === 'q8_0' || dtype === 'q4_0'
  if (isBlocked && (shape.at(-1) as number) % BLOCK !== 0) throw invalid(path, `rows of ${name.slice(0, 80)} have ${shape.at(-1)} values`, `a multiple of ${BLOCK}`)
  return { name, dtype, shape, offset }
}

export function invalid(path: string, what: string, expected: string, cause?: unknown): CheckpointError {
  return new CheckpointError('CHECKPOINT_INVALID', { what: `${path}: ${what}`, expected, remedy: 'Fetch the file again.', cause })
}
