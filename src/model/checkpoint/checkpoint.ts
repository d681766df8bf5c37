// The tensors of a model directory, whatever files they are in. Opens headers, never data.
import { access, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { CheckpointError } from '../../errors.js'
import { show } from '../../options/check.js'
import { type ByteReader, withFile } from './byte-reader.js'
import { readSafetensors } from './safetensors.js'
import type { TensorSource } from './tensor-source.js'
import { readTorchBin } from './torch-bin.js'

export interface Checkpoint {
  readonly tensors: ReadonlyMap<string, TensorSource>
  readonly format: 'torch' | 'safetensors'
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
  for (const { file, format, index } of FILES) {
    const path = join(dir, file)
    if (!(await exists(path))) continue
    const paths = index ? await readIndex(dir, path) : [path]
    const read = format === 'torch' ? readTorchBin : (reader: ByteReader, file: string) => readSafetensors(reader, file, packed)
    const tensors = new Map<string, TensorSource>()
    for (const part of paths) {
      for (const tensor of await readPart(read, part)) {
        if (tensors.has(tensor.name)) throw invalid(part, `${tensor.name} is in another file too`, 'each tensor in one file')
        tensors.set(tensor.name, tensor)
      }
    }
    return { tensors, format }
  }
  throw new CheckpointError('MODEL_NOT_FOUND', {
    what: `${dir} holds no weights`,
    expected: `one of ${FILES.map((f) => f.file).join(', ')}`,
    remedy: 'Point at the directory of a checkpoint.',
  })
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

/** Paths that a *.index.json's weight_map names, all directly in the directory. */
async function readIndex(dir: string, path: string): Promise<string[]> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (cause) {
    throw invalid(path, 'it cannot be read', 'a JSON object with weight_map', cause)
  }
  return parseIndex(text, path).map((file) => join(dir, file))
}

/** File names of a *.index.json, ascending. Throws CheckpointError CHECKPOINT_INVALID. */
export function parseIndex(text: string, path: string): string[] {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (cause) {
    throw invalid(path, 'it is not JSON', 'a JSON object with weight_map', cause)
  }
  const map = typeof parsed === 'object' && parsed !== null ? (parsed as { weight_map?: unknown }).weight_map : undefined
  if (typeof map !== 'object' || map === null || Array.isArray(map)) throw invalid(path, 'it has no weight_map', 'tensor names to file names')
  const files = new Set<string>()
  for (const file of Object.values(map)) {
    if (typeof file !== 'string' || file !== basename(file) || /[\\/\0]/.test(file) || ['', '.', '..'].includes(file)) {
      throw invalid(path, `it names ${show(file)}`, 'file names in the same directory')
    }
    files.add(file)
  }
  if (files.size === 0) throw invalid(path, 'its weight_map is empty', 'tensor names to file names')
  return [...files].sort()
}

function invalid(path: string, what: string, expected: string, cause?: unknown): CheckpointError {
  return new CheckpointError('CHECKPOINT_INVALID', { what: `${path}: ${what}`, expected, remedy: 'Fetch the file again.', cause })
}
