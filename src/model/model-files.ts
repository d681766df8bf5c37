// The files that describe a model: those of its directory, or what a GGUF file says in their place. A GGUF file is read as if it were a
// directory of config.json, tokenizer.json and so on.
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { CheckpointError } from '../errors.js'
import type { SkippedEntry } from './checkpoint/buffers.js'
import { withFile } from './checkpoint/byte-reader.js'
import type { TensorSource } from './checkpoint/tensor-source.js'
import { ggufConfig } from './gguf/gguf-config.js'
import { type GgufHeader, readGgufHeader } from './gguf/gguf-header.js'
import { ggufTensors, readFrequencyFactors } from './gguf/gguf-tensors.js'
import { type GgufTokenizer, ggufEndIds, ggufTokenizer, ggufTokenizerConfig } from './gguf/gguf-tokenizer.js'

const ENDING = '.gguf'
const OTHER_WEIGHTS = /^(model\.safetensors|pytorch_model\.bin)(\.index\.json)?$/

/** What a GGUF file holds, in the terms of the other formats. */
export interface GgufModel {
  readonly path: string
  readonly config: Record<string, unknown>
  readonly tensors: ReadonlyMap<string, TensorSource>
  readonly skipped: readonly SkippedEntry[]
  readonly header: GgufHeader
  /** Built when it is first wanted; undefined: the file has no vocabulary. Throws CheckpointError. */
  tokenizer(): GgufTokenizer | undefined
}

/** The GGUF file that a model is: its path, or the only one of a directory without other weights. Throws CheckpointError MODEL_NOT_FOUND. */
export async function ggufPath(model: string): Promise<string | undefined> {
  if (model.endsWith(ENDING) && (await stat(model).catch(() => undefined))?.isFile()) return model
  const names = await readdir(model).catch(() => [])
  const files = names.filter((name) => name.endsWith(ENDING)).sort()
  if (files.length === 0 || names.some((name) => OTHER_WEIGHTS.test(name))) return undefined
  if (files.length === 1) return join(model, files[0] as string)
  throw new CheckpointError('MODEL_NOT_FOUND', {
    what: `${model} holds ${files.length} .gguf files`,
    expected: 'one, or the path of one',
    actual: files.slice(0, 30).join(', '),
    remedy: `Give the path of one: ${join(model, files[0] as string)}.`,
  })
}

/** The text of one of the files that describe a model; undefined: there is none. Rejects with what the file system says, or CheckpointError. */
export async function readModelFile(model: string, name: string): Promise<string | undefined> {
  const path = await ggufPath(model)
  if (path === undefined) return textOf(join(model, name))
  // A vocabulary that cannot be rebuilt is put beside the file. The configuration is the file's own.
  const own = path === model || name === 'config.json' ? undefined : await textOf(join(model, name))
  if (own !== undefined) return own
  const gguf = await openGguf(path)
  const hasTokenizer = path !== model && name === 'tokenizer_config.json' && (await textOf(join(model, 'tokenizer.json'))) !== undefined
  return hasTokenizer ? JSON.stringify(ggufTokenizerConfig(gguf.header.metadata)) : stated(gguf, name)
}

async function textOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

function stated({ config, header: { metadata }, tokenizer }: GgufModel, name: string): string | undefined {
  const json = (value: unknown) => (value === undefined ? undefined : JSON.stringify(value))
  switch (name) {
    case 'config.json':
      return json(config)
    case 'generation_config.json':
      return json({ eos_token_id: ggufEndIds(metadata) })
    case 'tokenizer.json':
      return json(tokenizer()?.file)
    case 'tokenizer_config.json':
      return json(tokenizer()?.config)
    default:
      return undefined
  }
}

/** Several readers want parts of one header: the last one is kept while it is in use. */
let latest: { readonly key: string; readonly model: WeakRef<GgufModel> } | undefined

/** Reads the header. Throws CheckpointError. */
export async function openGguf(path: string): Promise<GgufModel> {
  return withFile(path, async (reader) => {
    const { size, mtimeMs, ino } = reader.identity
    const key = `${path}\0${size}\0${mtimeMs}\0${ino}`
    const known = latest?.key === key ? latest.model.deref() : undefined
    if (known) return known
    const model = await readGguf(reader, path)
    latest = { key, model: new WeakRef(model) }
    return model
  })
}

/** As openGguf, from bytes wherever they are. */
export async function readGguf(reader: Parameters<typeof readGgufHeader>[0], path: string): Promise<GgufModel> {
  const header = await readGgufHeader(reader, path)
  const factors = await readFrequencyFactors(header, reader)
  const config = ggufConfig(header, factors)
  const tensors = ggufTensors(header, config.num_attention_heads as number, config.num_key_value_heads as number)
  const skipped = [...header.tensors.values()].filter(({ name }) => name === 'rope_freqs.weight')
  let built: { readonly is: GgufTokenizer | undefined } | undefined
  const tokenizer = () => {
    built ??= { is: ggufTokenizer(header.metadata) }
    return built.is
  }
  return { path, config, tensors, header, tokenizer, skipped: skipped.map(({ name, dtype, shape }) => ({ name, type: dtype, shape })) }
}
