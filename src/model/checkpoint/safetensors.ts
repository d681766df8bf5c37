// model.safetensors: eight bytes of length, a JSON header, then the data. Reads the header only, and holds it to the
// format's rules: every byte of data belongs to exactly one tensor.

import { basename } from 'node:path'
import { CheckpointError } from '../../errors.js'
import { show } from '../../options/check.js'
import { isBuffer, type SkippedEntry } from './buffers.js'
import type { ByteReader, FileIdentity } from './byte-reader.js'
import { modelName } from './state-dict.js'
import { elements, STORED_BYTES, type StoredType, type TensorSource } from './tensor-source.js'

const TYPES: Readonly<Record<string, StoredType>> = { F64: 'f64', F32: 'f32', F16: 'f16', BF16: 'bf16' }
/** As in the reference implementation. */
const MAX_HEADER_BYTES = 100_000_000

/** Tensors of one safetensors file; U8 ones only if `packed`. Those that no model needs go to `onSkipped`. Throws CheckpointError. */
export async function readSafetensors(
  reader: ByteReader,
  path: string,
  packed = false,
  onSkipped: (entry: SkippedEntry) => void = () => {},
): Promise<TensorSource[]> {
  const { size } = reader.identity
  const prefix = new Uint8Array(8)
  if ((await reader.read(prefix, 0)) < 8) throw invalid(path, 'it is shorter than a header', 'eight bytes of header length')
  const length = new DataView(prefix.buffer).getBigUint64(0, true)
  const most = Math.min(MAX_HEADER_BYTES, size - 8)
  if (length > BigInt(most)) throw invalid(path, `its header claims ${length} bytes`, `at most ${most}`)
  const header = new Uint8Array(Number(length))
  if ((await reader.read(header, 8)) !== header.length) throw invalid(path, 'its header is cut short', `${header.length} bytes`)
  return parseHeader(header, reader.identity, path, packed ? { ...TYPES, U8: 'u8' } : TYPES, onSkipped)
}

/** Bytes of the data that a tensor takes, [start, end) in the file. */
interface Span {
  readonly name: string
  readonly start: number
  readonly end: number
}

function parseHeader(
  header: Uint8Array,
  file: FileIdentity,
  path: string,
  types: typeof TYPES,
  onSkipped: (entry: SkippedEntry) => void,
): TensorSource[] {
  let parsed: unknown
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(header))
  } catch (cause) {
    throw invalid(path, 'its header is not JSON', 'a JSON object', cause)
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw invalid(path, 'its header is not an object', 'a JSON object')
  const dataStart = 8 + header.length
  const tensors: TensorSource[] = []
  const spans: Span[] = []
  for (const [name, value] of Object.entries(parsed)) {
    if (name === '__metadata__') continue
    const entry = parseEntry(name, value, dataStart, file, path)
    spans.push(entry)
    const inModel = modelName(name)
    if (isBuffer(inModel, entry.shape)) onSkipped({ name: inModel, type: show(entry.type).replaceAll('"', ''), shape: entry.shape })
    else tensors.push(tensorOf(entry, file, path, types))
  }
  const inOrder = spans.toSorted((a, b) => a.start - b.start || a.end - b.end)
  let end = dataStart
  for (const span of inOrder) {
    const what = span.start < end ? 'overlaps the tensor before it' : 'leaves a hole before it'
    if (span.start !== end) throw invalid(path, `${span.name} ${what}`, `data from byte ${end - dataStart} on`)
    end = span.end
  }
  if (end !== file.size)
    throw invalid(
      path,
      `its tensors end ${Math.abs(file.size - end)} bytes ${end > file.size ? 'past' : 'before'} the end of the file`,
      'data up to its end',
    )
  return tensors
}

interface Entry extends Span {
  readonly type: unknown
  readonly shape: readonly number[]
}

function parseEntry(name: string, value: unknown, dataStart: number, file: FileIdentity, path: string): Entry {
  const v = (typeof value === 'object' && value !== null ? value : {}) as { dtype?: unknown; shape?: unknown; data_offsets?: unknown }
  if (!isSizes(v.shape) || v.shape.length > 8 || !isSizes(v.data_offsets) || v.data_offsets.length !== 2) {
    throw invalid(path, `its entry ${name.slice(0, 80)} is malformed`, 'dtype, shape and two data_offsets')
  }
  const [begin, end] = v.data_offsets as [number, number]
  if (end < begin || dataStart + end > file.size) {
    throw invalid(path, `${name.slice(0, 80)} claims bytes ${begin} to ${end}`, 'bytes inside the file')
  }
  return { name, type: v.dtype, shape: v.shape, start: dataStart + begin, end: dataStart + end }
}

function tensorOf({ name, type, shape, start, end }: Entry, file: FileIdentity, path: string, types: typeof TYPES): TensorSource {
  const dtype = typeof type === 'string' && Object.hasOwn(types, type) ? types[type] : undefined
  if (!dtype) {
    const copy = basename(path)
    const cast = `python -c "from safetensors.torch import load_file, save_file; import torch; save_file({k: v.to(torch.bfloat16) for k, v in load_file('${copy}').items()}, '${copy}')"`
    throw new CheckpointError('TENSOR_DTYPE', {
      what: `${path}: ${name.slice(0, 80)} has the type ${show(type)}`,
      expected: Object.keys(types).join(', '),
      actual: show(type),
      remedy: `Convert the checkpoint to float32, float16 or bfloat16: ${cast} (quantized weights must be multiplied by their scales first).`,
    })
  }
  const bytes = elements(shape) * STORED_BYTES[dtype]
  if (end - start !== bytes) throw invalid(path, `${name.slice(0, 80)} claims ${end - start} bytes`, `${bytes} bytes inside the file`)
  return { name, path, file, dtype, shape, offset: start }
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((d) => Number.isSafeInteger(d) && d >= 0)
}

function invalid(path: string, what: string, expected: string, cause?: unknown): CheckpointError {
  return new CheckpointError('CHECKPOINT_INVALID', { what: `${path}: ${what}`, expected, remedy: 'Fetch the file again.', cause })
}
