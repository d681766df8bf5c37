// The tensors of a model directory, whatever files they are in. Opens headers, never data.
import { access, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { CheckpointError } from '../../errors.js'
import { parseJson } from '../../json.js'
import { show } from '../../options/check.js'
import { ggufPath, openGguf } from '../model-files.js'
import type { SkippedEntry } from './buffers.js'
import { type ByteReader, withFile } from './byte-reader.js'
import { readSafetensors } from './safetensors.js'
import { modelName } from './state-dict.js'
import type { TensorSource } from './tensor-source.js'
import { readTorchBin } from './torch-bin.js'

export interface Checkpoint {
  /** By the name that the tensor has in the model, without prefixes of wrappers. */
  readonly tensors: ReadonlyMap<string, TensorSource>
  readonly format: 'torch' | 'safetensors' | 'gguf'
  /** What the files hold beside: buffers that no model needs, values that are no tensors. */
  readonly skipped: readonly SkippedEntry[]
}

/** In this order: the first that exists is the checkpoint. */
const FILES = [
  { file: 'model.safetensors', format: 'safetensors', index: false },
  { file: 'model.safetensors.index.json', format: 'safetensors', index: true },
  { file: 'pytorch_model.bin', format: 'torch', index: false },
  { file: 'pytorch_model.bin.index.json', format: 'torch', index: true },
] as const

/** `packed`: as convert writes it. Throws CheckpointError MODEL_NOT_FOUND, CHECKPOINT_INVALID, CHECKPOINT_UNSAFE or TENSOR_DTYPE. */
export async function openCheckpoint(dir: string, packed = false): Promise<Checkpoint> {
  const gguf = await ggufPath(dir)
  if (gguf !== undefined) {
    const { tensors, skipped } = await openGguf(gguf)
    return { tensors, skipped, format: 'gguf' }
  }
  for (const { file, format, index } of FILES) {
    const path = join(dir, file)
    if (!(await exists(path))) continue
    const fileOf = index ? await readIndex(path) : undefined
    const files = fileOf ? [...new Set(fileOf.values())].sort() : [file]
    const skipped: SkippedEntry[] = []
    const onSkipped = (entry: SkippedEntry) => void skipped.push(entry)
    const read =
      format === 'torch'
        ? (reader: ByteReader, part: string) => readTorchBin(reader, part, onSkipped)
        : (reader: ByteReader, part: string) => readSafetensors(reader, part, packed, onSkipped)
    const tensors = new Map<string, TensorSource>()
    for (const part of files) {
      const partPath = join(dir, part)
      for (const tensor of await readPart(read, partPath)) {
        // A tensor that several shards hold is the one of the shard that the index names.
        const indexed = fileOf?.get(tensor.name)
        if (indexed !== undefined && indexed !== part) continue
        const name = modelName(tensor.name)
        const other = tensors.get(name)
        if (other) throw duplicate(partPath, name, tensor, other)
        tensors.set(name, { ...tensor, name })
      }
    }
    if (fileOf) checkIndex(fileOf, tensors, skipped, path)
    return { tensors, format, skipped }
  }
  throw new CheckpointError('MODEL_NOT_FOUND', {
    what: `${dir} holds no weights`,
    expected: `one of ${FILES.map((f) => f.file).join(', ')}, or a .gguf file`,
    remedy: 'Point at the directory of a checkpoint.',
  })
}

function duplicate(path: string, name: string, tensor: TensorSource, other: TensorSource): CheckpointError {
  if (tensor.name === other.name)
    return invalid(path, `${name} is in ${basename(other.path)} too, and the index names neither`, 'each tensor in one file')
  return invalid(path, `two tensors are ${name} without prefixes of wrappers (_orig_mod., module.)`, 'one tensor of that name', undefined)
}

/** Every tensor of the index must be where it says. */
function checkIndex(
  fileOf: ReadonlyMap<string, string>,
  tensors: ReadonlyMap<string, TensorSource>,
  skipped: readonly SkippedEntry[],
  path: string,
): void {
  const notLoaded = new Set(skipped.map(({ name }) => name))
  for (const [name, file] of fileOf) {
    if (tensors.has(modelName(name)) || notLoaded.has(modelName(name))) continue
    throw invalid(path, `it says that ${name.slice(0, 120)} is in ${file}, which does not hold it`, 'tensors where the index says')
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

async function readPart(read: (reader: ByteReader, path: string) => Promise<TensorSource[]>, path: string): Promise<TensorSource[]> {
  try {
    return await withFile(path, (reader) => read(reader, path))
  } catch (cause) {
    if (cause instanceof CheckpointError) throw cause
    throw new CheckpointError('MODEL_NOT_FOUND', {
      what: `cannot read ${path}`,
      actual: cause instanceof Error ? cause.message : String(cause),
      remedy: 'Check that the file is there and readable.',
      cause,
    })
  }
}

async function readIndex(path: string): Promise<Map<string, string>> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (cause) {
    throw invalid(path, 'it cannot be read', 'a JSON object with weight_map', cause)
  }
  return parseIndex(text, path)
}

/** The file of each tensor by a *.index.json: file names in the same directory. Throws CheckpointError CHECKPOINT_INVALID. */
export function parseIndex(text: string, path: string): Map<string, string> {
  let parsed: unknown
  try {
    parsed = parseJson(text)
  } catch (cause) {
    throw invalid(path, 'it is not JSON', 'a JSON object with weight_map', cause)
  }
  const map = typeof parsed === 'object' && parsed !== null ? (parsed as { weight_map?: unknown }).weight_map : undefined
  if (typeof map !== 'object' || map === null || Array.isArray(map)) throw invalid(path, 'it has no weight_map', 'tensor names to file names')
  const fileOf = new Map<string, string>()
  for (const [name, file] of Object.entries(map)) {
    if (typeof file !== 'string' || file !== basename(file) || /[\\/\0]/.test(file) || ['', '.', '..'].includes(file)) {
      throw invalid(path, `it names ${show(file)}`, 'file names in the same directory')
    }
    fileOf.set(name, file)
  }
  if (fileOf.size === 0) throw invalid(path, 'its weight_map is empty', 'tensor names to file names')
  return fileOf
}

function invalid(path: string, what: string, expected: string, cause?: unknown): CheckpointError {
  return new CheckpointError('CHECKPOINT_INVALID', { what: `${path}: ${what}`, expected, remedy: 'Fetch the file again.', cause })
}
