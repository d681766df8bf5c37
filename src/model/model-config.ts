// config.json of a checkpoint: the fields that Tetrad uses, checked once and frozen. Knows no tensors.
import { join } from 'node:path'
import { CheckpointError } from '../errors.js'
import { checkBoolean, checkInteger, checkOneOf, type Fail, show } from '../options/check.js'
import { LIMITS } from '../options/limits.js'
import { VARIANT_NAMES } from './attention-variants.js'
import { PACKED_VERSION } from './checkpoint/packed-version.js'
import { endIdsOf } from './end-ids.js'
import { cannotRead, readJsonFile } from './read-json.js'
import { type RopeConfig, readRope } from './rope.js'
import { refuseUnsupported } from './unsupported-fields.js'

/** As in the authors' configuration files; sizes in elements. */
export interface ModelConfig {
  readonly n_layer: number
  readonly n_head: number
  readonly n_embd: number
  readonly vocab_size: number
  /** Longest context the model was trained for, tokens. */
  readonly block_size: number
  readonly intermediate_size: number
  readonly q_lora_rank: number | undefined
  readonly kv_lora_rank: number | undefined
  readonly qk_nope_head_dim: number | undefined
  readonly qk_rope_head_dim: number | undefined
  readonly head_dim: number | undefined
  readonly group_size: number | undefined
  readonly share_q_dim: number | undefined
  readonly q_rank: number | undefined
  readonly rank: number | undefined
  /** Added to the mean square in every norm. */
  readonly normEps: number
  readonly rope: RopeConfig
  /** Not in the authors' files; `tetrad synth` writes it, since the keys alone do not tell every variant. */
  readonly variant: string | undefined
  /** The weights are packed, as `tetrad convert` writes them. */
  readonly packed: PackedFormat | undefined
  /** Whether the output projection is the token embedding. Undefined: the file does not say. */
  readonly tieWordEmbeddings: boolean | undefined
  /** Ids that end a text. Undefined: other files may say. */
  readonly eosTokenIds: readonly number[] | undefined
}

export interface PackedFormat {
  readonly weights: 'f32' | 'bf16' | 'int8'
  /** Of the token embedding. */
  readonly embedding: 'f32' | 'bf16'
}

/** Of the authors' models, whose files do not state it. */
const DEFAULT_EPSILON = 1e-6

const fail: Fail = (facts) => new CheckpointError('CONFIG_INVALID', { ...facts, what: `config.json: ${facts.what}` })

/** Reads and checks `dir`/config.json. Throws CheckpointError MODEL_NOT_FOUND or CONFIG_INVALID. */
export async function readModelConfig(dir: string): Promise<ModelConfig> {
  return parseModelConfig(await readConfigFile(join(dir, 'config.json')))
}

/** The JSON of a configuration file, unchecked. Throws as readModelConfig. */
export async function readConfigFile(path: string): Promise<unknown> {
  const value = await readJsonFile(path, fail)
  if (value === undefined) throw cannotRead(path)
  return value
}

export function parseModelConfig(value: unknown): ModelConfig {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw fail({ what: 'not an object', expected: 'a JSON object', actual: show(value), remedy: 'Fetch the file again.' })
  }
  const c = value as Record<string, unknown>
  const field = (name: string, max: number) => checkInteger(name, c[name], 1, max, fail)
  const optional = (name: string, max: number) => (c[name] === undefined || c[name] === null ? undefined : field(name, max))
  const vocab = field('vocab_size', LIMITS.vocab)
  const context = field('block_size', LIMITS.context)
  const normEps = c.rms_norm_eps === undefined || c.rms_norm_eps === null ? DEFAULT_EPSILON : epsilon(c.rms_norm_eps)
  refuseUnsupported(c, context, normEps, fail)
  return Object.freeze({
    n_layer: field('n_layer', LIMITS.layers),
    n_head: field('n_head', LIMITS.heads),
    n_embd: field('n_embd', LIMITS.width),
    vocab_size: vocab,
    block_size: context,
    intermediate_size: field('intermediate_size', LIMITS.width),
    q_lora_rank: optional('q_lora_rank', LIMITS.width),
    kv_lora_rank: optional('kv_lora_rank', LIMITS.width),
    qk_nope_head_dim: optional('qk_nope_head_dim', LIMITS.width),
    qk_rope_head_dim: optional('qk_rope_head_dim', LIMITS.width),
    head_dim: optional('head_dim', LIMITS.width),
    group_size: optional('group_size', LIMITS.heads),
    share_q_dim: optional('share_q_dim', LIMITS.width),
    q_rank: optional('q_rank', LIMITS.heads),
    rank: optional('rank', LIMITS.heads),
    normEps,
    rope: readRope(c, context, fail),
    variant: typeof c.variant === 'string' ? checkOneOf('variant', c.variant, VARIANT_NAMES, fail) : undefined,
    packed: c.packed === undefined ? undefined : packedFormat(c.packed),
    tieWordEmbeddings: optionalBoolean(c, 'tie_word_embeddings'),
    eosTokenIds: endIdsOf(c.eos_token_id, vocab, fail),
  })
}

function optionalBoolean(c: Record<string, unknown>, name: string): boolean | undefined {
  const value = c[name]
  if (value === undefined || value === null) return undefined
  return checkBoolean(name, value, fail)
}

function epsilon(value: unknown): number {
  if (typeof value === 'number' && value >= 1e-30 && value <= 1) return value
  throw fail({ what: 'rms_norm_eps is out of range', expected: 'a number from 1e-30 to 1', actual: show(value), remedy: 'Correct config.json.' })
}

function packedFormat(value: unknown): PackedFormat {
  const p = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>
  checkOneOf('packed.version', p.version as number, [PACKED_VERSION], (facts) => fail({ ...facts, remedy: 'Convert the original checkpoint again.' }))
  return Object.freeze({
    weights: checkOneOf('packed.weights', p.weights as string, ['f32', 'bf16', 'int8'] as const, fail),
    embedding: checkOneOf('packed.embedding', p.embedding as string, ['f32', 'bf16'] as const, fail),
  })
}
