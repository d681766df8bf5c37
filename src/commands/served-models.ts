// Models that a command serves: named, loaded, and closed again.
import { existsSync } from 'node:fs'
import { basename, resolve } from 'node:path'
import { EMBEDDED_MODEL } from '../assets.js'
import { OptionError } from '../errors.js'
import { hubModelName, isHubAddress, parseHubAddress } from '../hub/hub-address.js'
import { modelDigest, servedFingerprint } from '../model/checkpoint/model-digest.js'
import { invalidOption } from '../options/check.js'
import type { ServedEngine, ServedModel } from '../serve/served-model.js'
import { engineOptions, type Flags } from './flags.js'
import { commandModel } from './local-model.js'
import { loadEngine } from './progress.js'

export const NAMED_MODEL_DOC =
  'model directory, .gguf file or hf:owner/name[@revision][/folder], with a name: name=directory; again for another (default: the embedded one)'

export interface NamedDirectory {
  readonly id: string
  /** Or hf:owner/name. */
  readonly dir: string
}

/** Of --model dir or --model name=dir; the embedded model where none is given. Throws OptionError for a name that is there twice. */
export function namedDirectories(given: readonly string[] | undefined): NamedDirectory[] {
  const named = (given ?? [EMBEDDED_MODEL]).map(nameOf)
  const twice = named.find(({ id }, i) => named.findIndex((other) => other.id === id) < i)
  if (!twice) return named
  throw new OptionError('OPTION_INVALID', {
    what: `two models are called ${twice.id}`,
    expected: 'a name for each',
    actual: twice.dir,
    remedy: 'Give one of them another: --model name=directory.',
  })
}

/** replicas: processes for each; undefined: an engine in this one. fingerprints: they are wanted, which reads all files once more. */
export async function loadModels(
  named: readonly NamedDirectory[],
  flags: Flags,
  replicas: number | undefined,
  fingerprints: boolean,
  signal: AbortSignal,
): Promise<Map<string, ServedModel>> {
  const { loadChatTemplate } = await import('../tokenizer/chat-template.js')
  const models = new Map<string, ServedModel>()
  try {
    for (const { id, dir: given } of named) {
      const dir = await commandModel(given, signal)
      const template = await loadChatTemplate(dir)
      const engine = await load(dir, flags, replicas, signal)
      models.set(id, { id, engine, template, created: Math.floor(Date.now() / 1000) })
      if (!fingerprints) continue
      const fingerprint = servedFingerprint(id, await modelDigest(dir), `${engine.info.determinismKey}/context-${engine.info.contextTokens}`)
      models.set(id, { id, engine, template, created: Math.floor(Date.now() / 1000), fingerprint })
    }
    return models
  } catch (error) {
    await closeModels(models, 0)
    throw error
  }
}

export async function closeModels(models: ReadonlyMap<string, { readonly engine: ServedEngine }>, drainMs: number): Promise<void> {
  await Promise.all([...models.values()].map(({ engine }) => engine.close({ drainMs })))
}

/** An engine of this process, or replicas in processes of their own. */
async function load(dir: string, flags: Flags, replicas: number | undefined, signal: AbortSignal): Promise<ServedEngine> {
  if (replicas === undefined) return loadEngine(dir, flags, signal)
  const { ReplicaPool } = await import('../serve/replicas/replica-pool.js')
  const pool = await ReplicaPool.load(dir, engineOptions(flags), replicas, (text) => console.error(text))
  console.error(`${replicas} replicas of ${pool.info.ranks} ranks are ready`)
  return pool
}

function nameOf(given: string): NamedDirectory {
  // A name may have slashes, as those of repositories do. A directory with = in its path is a directory.
  const match = existsSync(given) ? null : /^(\w[\w.-]*(?:\/[\w.-]+)*)=(.+)$/.exec(given)
  if (match) return { id: match[1] as string, dir: match[2] as string }
  return { id: isHubAddress(given) ? hubModelName(parseHubAddress(given)) : basename(resolve(given)), dir: given }
}

/** Names of the adapters of --lora: they are models of the API. Throws OptionError. */
export function adapterNames(named: readonly NamedDirectory[], flags: Flags): readonly string[] {
  const adapters = Object.keys(engineOptions(flags).adapters ?? {})
  const taken = adapters.find((name) => named.some(({ id }) => id === name))
  const fail = (what: string, expected: string, actual: string, remedy: string) => invalidOption({ what, expected, actual, remedy, option: '--lora' })
  if (taken !== undefined) throw fail('an adapter has the name of a model', 'a name of its own', taken, 'Give it another: --lora name=directory.')
  if (adapters.length > 0 && named.length > 1)
    throw fail('--lora needs one model', 'one --model', String(named.length), 'Serve the other models from another process.')
  return adapters
}
