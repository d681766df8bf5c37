// The header of a GGUF file: metadata, and where each tensor lies. Format: ggml, docs/gguf.md. npm @huggingface/gguf 0.4.6 is not used: it
// drops U+FEFF at the start of a token, reads past the end of a file as zeros, and believes counts up to ten million.
import { CheckpointError } from '../../errors.js'
import type { ByteReader, FileIdentity } from '../checkpoint/byte-reader.js'
import { elements, STORED_BYTES, type StoredType } from '../checkpoint/tensor-source.js'
import { GgufCursor, Malformed, OutOfBytes } from './gguf-cursor.js'
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

/** GGML's numbers of the types that are read, and the names of others. */
const TYPES: ReadonlyMap<number, StoredType> = new Map([
  [0, 'f32'],
  [1, 'f16'],
  [2, 'q4_0'],
  [8, 'q8_0'],
  [30, 'bf16'],
])
const OTHER_TYPES: ReadonlyMap<number, string> = new Map(
  '3 Q4_1,6 Q5_0,7 Q5_1,9 Q8_1,10 Q2_K,11 Q3_K,12 Q4_K,13 Q5_K,14 Q6_K,15 Q8_K,16 IQ2_XXS,17 IQ2_XS,18 IQ3_XXS,19 IQ1_S,20 IQ4_NL,21 IQ3_S,22 IQ2_S,23 IQ4_XS,24 I8,25 I16,26 I32,27 I64,28 F64,29 IQ1_M,34 TQ1_0,35 TQ2_0,39 MXFP4'
    .split(',')
    .map((entry) => entry.split(' ') as [string, string])
    .map(([number, name]) => [Number(number), name]),
)
/** Elements of a block, which has one scale. */
const BLOCK = 32
const FIXED_BYTES = 24
/** A vocabulary of 128,000 pieces with 280,000 merges has 7 MiB. */
const FIRST_BYTES = 8 << 20
/** One of 256,000 pieces with scores and a million merges has 20 MiB. */
const MAX_HEADER_BYTES = 32 << 20
const MAX_TENSORS = 100_000
const MAX_ENTRIES = 4096
const DEFAULT_ALIGNMENT = 32

interface Parsed {
  readonly values: Readonly<Record<string, unknown>>
  readonly tensors: readonly { readonly name: string; readonly dimensions: readonly bigint[]; readonly type: number; readonly offset: bigint }[]
  /** Bytes of the header. */
  readonly end: number
}

/** Throws CheckpointError CHECKPOINT_INVALID or TENSOR_DTYPE. */
export async function readGgufHeader(reader: ByteReader, path: string): Promise<GgufHeader> {
  const { size } = reader.identity
  const counts = await readCounts(reader, path)
  const { values, tensors: entries, end } = await parse(reader, path, counts)
  const metadata = new GgufMetadata(values, path)
  const alignment = metadata.optionalInteger('general.alignment', 1, 1 << 20) ?? DEFAULT_ALIGNMENT
  if ((alignment & (alignment - 1)) !== 0) throw invalid(path, `general.alignment is ${alignment}`, 'a power of two')
  const dataStart = Math.ceil(end / alignment) * alignment
  const tensors = new Map<string, GgufTensor>()
  const spans: { name: string; start: number; end: number }[] = []
  for (const { name, dimensions, type, offset } of entries) {
    if (tensors.has(name)) throw invalid(path, `${name.slice(0, 80)} is there twice`, 'one tensor of a name')
    const tensor = tensorOf(path, name, dimensions, type, dataStart + Number(offset))
    const bytes = elements(tensor.shape) * STORED_BYTES[tensor.dtype]
    if (Number(offset) % alignment !== 0 || tensor.offset + bytes > size)
      throw invalid(path, `${name.slice(0, 80)} lies at ${offset}, with ${bytes} bytes`, `a multiple of ${alignment}, inside the file`)
    tensors.set(name, tensor)
    spans.push({ name, start: tensor.offset, end: tensor.offset + bytes })
  }
  spans.sort((a, b) => a.start - b.start || a.end - b.end)
  for (const [i, span] of spans.entries()) {
    if (span.start < (spans[i - 1]?.end ?? dataStart))
      throw invalid(path, `${span.name.slice(0, 80)} overlaps the tensor before it`, 'tensors apart from each other')
  }
  return { path, file: reader.identity, metadata, tensors }
}

interface Counts {
  readonly tensors: number
  readonly entries: number
}

/** As many as a file of this size can hold. */
async function readCounts(reader: ByteReader, path: string): Promise<Counts> {
  const head = Buffer.alloc(FIXED_BYTES)
  if ((await reader.read(head, 0)) < FIXED_BYTES || head.toString('latin1', 0, 4) !== 'GGUF')
    throw invalid(path, 'it does not begin as one', 'a GGUF file')
  const version = head.readUInt32LE(4)
  if (version !== 2 && version !== 3)
    throw invalid(path, version > 0xffff ? 'its byte order is not little' : `it is of version ${version}`, 'version 2 or 3, little-endian')
  const most = (bytes: number, limit: number) => BigInt(Math.min(limit, Math.floor(reader.identity.size / bytes)))
  const [tensors, entries] = [head.readBigUInt64LE(8), head.readBigUInt64LE(16)]
  // A tensor's entry has 24 bytes or more, one of the metadata 13.
  if (tensors > most(24, MAX_TENSORS)) throw invalid(path, `it claims ${tensors} tensors`, `at most ${most(24, MAX_TENSORS)}`)
  if (entries > most(13, MAX_ENTRIES)) throw invalid(path, `it claims ${entries} entries of metadata`, `at most ${most(13, MAX_ENTRIES)}`)
  return { tensors: Number(tensors), entries: Number(entries) }
}

/** Reads twice as much until all of the header is there. */
async function parse(reader: ByteReader, path: string, counts: Counts): Promise<Parsed> {
  const { size } = reader.identity
  for (let length = FIRST_BYTES; ; length *= 2) {
    const bytes = Buffer.allocUnsafeSlow(Math.min(length, size))
    const read = await reader.read(bytes, 0)
    try {
      return parsed(bytes.subarray(0, read), counts)
    } catch (error) {
      if (error instanceof Malformed) throw invalid(path, `its header is damaged: ${error.message}`, 'a GGUF file', error)
      if (!(error instanceof OutOfBytes)) throw error
      if (length >= size) throw invalid(path, 'its header is cut short', `more than ${size} bytes`)
      if (length >= MAX_HEADER_BYTES) throw invalid(path, 'its header is too large', `at most ${MAX_HEADER_BYTES} bytes`)
    }
  }
}

function parsed(bytes: Buffer, counts: Counts): Parsed {
  const cursor = new GgufCursor(bytes, FIXED_BYTES)
  const values: Record<string, unknown> = Object.create(null) as Record<string, unknown>
  for (let i = 0; i < counts.entries; i++) {
    const key = cursor.string()
    if (Object.hasOwn(values, key)) throw new Malformed(`${key.slice(0, 80)} is there twice`)
    values[key] = cursor.value()
  }
  const tensors = Array.from({ length: counts.tensors }, () => {
    const name = cursor.string()
    const rank = cursor.u32()
    if (rank > 4) throw new Malformed(`${name.slice(0, 80)} has ${rank} dimensions`)
    return { name, dimensions: Array.from({ length: rank }, () => cursor.u64()), type: cursor.u32(), offset: cursor.u64() }
  })
  return { values, tensors, end: cursor.position }
}

function tensorOf(path: string, name: string, dimensions: readonly bigint[], type: number, offset: number): GgufTensor {
  const dtype = TYPES.get(type)
  if (!dtype) {
    const named = OTHER_TYPES.get(type) ?? `number ${type}`
    throw new CheckpointError('TENSOR_DTYPE', {
      what: `${path}: ${name.slice(0, 80)} has the type ${named}`,
      expected: [...TYPES.values()].join(', ').toUpperCase(),
      actual: named,
      remedy: 'Use a file of the same model in one of these types (Q8_0 loses least), or make one with llama-quantize.',
    })
  }
  const shape = dimensions.map(Number).reverse()
  const isSound =
    shape.length >= 1 && shape.length <= 4 && shape.every((d) => Number.isSafeInteger(d) && d >= 1) && elements(shape) <= Number.MAX_SAFE_INTEGER / 8
  if (!isSound) throw invalid(path, `${name.slice(0, 80)} has the shape [${shape.slice(0, 8).join(', ')}]`, '1 to 4 dimensions')
  const isBlocked = dtype === 'q8_0' || dtype === 'q4_0'
  if (isBlocked && (shape.at(-1) as number) % BLOCK !== 0)
    throw invalid(path, `rows of ${name.slice(0, 80)} have ${shape.at(-1)} values`, `a multiple of ${BLOCK}`)
  return { name, dtype, shape, offset }
}

export function invalid(path: string, what: string, expected: string, cause?: unknown): CheckpointError {
  return new CheckpointError('CHECKPOINT_INVALID', { what: `${path}: ${what}`, expected, remedy: 'Fetch the file again.', cause })
}
