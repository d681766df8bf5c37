// Which files of a repository's folder a model needs. Knows names only; a name that is not wanted is never used as a path.
import { basename, dirname } from 'node:path/posix'
import type { ListFileEntry } from '@huggingface/hub'
import { HubError } from '../errors.js'
import type { HubAddress } from './hub-address.js'
import { invalidAnswer } from './hub-errors.js'

export interface HubFile {
  /** In the repository. */
  readonly path: string
  /** In its folder. */
  readonly name: string
  readonly size: number
  /** Hexadecimal: the file's SHA-256 if it is stored by LFS, else git's hash of it. Names the blob in the cache. */
  readonly hash: string
}

/** Read where they are there, in this order; config.json must be. */
const BESIDE = ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'chat_template.jinja']
/** In the order in which they are preferred; as openCheckpoint has it. */
export const WEIGHTS = ['model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin', 'pytorch_model.bin.index.json'] as const
/** Taken where there is no tokenizer.json, so that loading can refuse it by its name. */
const OTHER_TOKENIZERS = ['tokenizer.model']
const GGUF = /^[\w.,+=@ ()-]{1,200}\.gguf$/
const MAX_ENTRIES = 20_000

export interface ChosenFiles {
  /** Everything but the parts that an index names. */
  readonly files: readonly HubFile[]
  /** An index whose parts are needed too. */
  readonly index: HubFile | undefined
  /** The name of the .gguf file that is the model. */
  readonly gguf: string | undefined
}

/** Files of the folder by name. Throws HubError HUB_INVALID for a listing that cannot be. */
export async function listed(entries: AsyncIterable<ListFileEntry>, folder: string): Promise<Map<string, HubFile>> {
  const files = new Map<string, HubFile>()
  let count = 0
  for await (const entry of entries) {
    if (++count > MAX_ENTRIES) throw invalidAnswer('the Hub lists files without end', `at most ${MAX_ENTRIES} in a folder`, 'more')
    const { type, path } = entry
    if (type !== 'file' || typeof path !== 'string' || (dirname(path) === '.' ? '' : dirname(path)) !== folder) continue
    const name = basename(path)
    const size = entry.lfs?.size ?? entry.size
    const hash = entry.lfs?.oid ?? entry.oid
    if (isWanted(name)) files.set(name, { path, name, size, hash: checkHash(path, hash, size, entry.lfs !== undefined) })
  }
  return files
}

/** Parts of a checkpoint are named freely. */
function isWanted(name: string): boolean {
  return [...BESIDE, ...WEIGHTS, ...OTHER_TOKENIZERS].includes(name) || GGUF.test(name) || /^[\w.-]{1,200}\.(safetensors|bin)$/.test(name)
}

function checkHash(path: string, hash: unknown, size: unknown, isLfs: boolean): string {
  if (typeof hash === 'string' && (isLfs ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(hash) && Number.isSafeInteger(size) && (size as number) >= 0)
    return hash
  throw invalidAnswer(
    `the Hub lists ${path.slice(0, 200)} without a size and a hash`,
    isLfs ? '64 hexadecimal digits' : '40 hexadecimal digits',
    String(hash).slice(0, 80),
  )
}

/** Throws HubError HUB_NOT_FOUND: the folder holds no model. */
export function chooseFiles(files: ReadonlyMap<string, HubFile>, address: HubAddress): ChosenFiles {
  if (address.file !== undefined) {
    const file = files.get(address.file)
    if (!file) throw noModel(address, `no ${address.file}`, [...files.keys()])
    return { files: [file], index: undefined, gguf: file.name }
  }
  const weights = WEIGHTS.map((name) => files.get(name)).find((file) => file !== undefined)
  if (!weights) {
    const ggufs = [...files.keys()].filter((name) => GGUF.test(name))
    const [only, ...others] = ggufs
    if (only !== undefined && others.length === 0) return { files: [files.get(only) as HubFile], index: undefined, gguf: only }
    if (only !== undefined) throw severalGguf(address, ggufs)
    throw noModel(address, 'no weights', [...files.keys()])
  }
  if (!files.has('config.json')) throw noModel(address, 'no config.json', [...files.keys()])
  const beside = [...BESIDE, ...(files.has('tokenizer.json') ? [] : OTHER_TOKENIZERS)].flatMap((name) => files.get(name) ?? [])
  return { files: [...beside, weights], index: weights.name.endsWith('.index.json') ? weights : undefined, gguf: undefined }
}

/** Files that an index names. Throws HubError HUB_NOT_FOUND. `fileOf`: by tensor, names without folders. */
export function partsOf(fileOf: ReadonlyMap<string, string>, files: ReadonlyMap<string, HubFile>, address: HubAddress): HubFile[] {
  return [...new Set(fileOf.values())].sort().map((name) => {
    const file = files.get(name)
    if (!file) throw noModel(address, `no ${name}, which its index names`, [...files.keys()])
    return file
  })
}

function noModel({ text }: HubAddress, actual: string, names: readonly string[]): HubError {
  return new HubError('HUB_NOT_FOUND', {
    what: `${text} holds no model that can be loaded`,
    expected: `config.json with one of ${WEIGHTS.join(', ')}, or a .gguf file`,
    actual: `${actual}${names.length > 0 ? `; it has ${names.slice(0, 8).join(', ')}` : ''}`,
    remedy: 'Add the folder that holds the model: hf:owner/name/folder.',
  })
}

function severalGguf({ text }: HubAddress, names: readonly string[]): HubError {
  return new HubError('HUB_NOT_FOUND', {
    what: `${text} holds ${names.length} .gguf files`,
    expected: 'one, or the name of one in the address',
    actual: names.slice(0, 30).join(', '),
    remedy: `Name one: ${text.replace(/\/$/, '')}/${names.find((name) => /q8_0/i.test(name)) ?? names[0]}.`,
  })
}
