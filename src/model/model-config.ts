// config.json of a checkpoint: the fields that Tetrad uses, checked once and frozen. Knows no tensors.

import { join } from 'node:path'
import type { FloatFormat, WeightFormat } from '../../kernels/weight-format.js'
import { WEIGHT_FORMAT_NAMES } from '../../kernels/weight-formats.js'
import { CheckpointError } from '../errors.js'
import { checkBoolean, checkInteger, checkOneOf, type Fail, show } from '../options/check.js'
import { LIMITS } from '../options/limits.js'
import { VARIANT_NAMES } from './attention-variants.js'
import { PACKED_VERSION } from './checkpoint/packed-version.js'
import { endIdsOf } from './end-ids.js'
import { decoderOf } from './families/decoders.js'
import type { Decoder } from './families/family.js'
import { cannotRead, readJsonFile, readModelJson } from './read-json.js'
import { type RopeConfig, readRope } from './rope.js'
import { refuseUnsupported } from './unsupported-fields.js'

/** Dimensions that only some attentions have. Sizes in elements. */
export type Dimension =
  /** Width of the query latent, of the key and value latents together, and of a head's parts without and with rope. */
  | 'queryRank'
  | 'kvRank'
  | 'nopeDim'
  | 'ropeDim'
  | 'headDim'
  /** Query heads per key and value head. */
  | 'groupSize'
  /** Width of the query latent of mfa. */
  | 'shareQueryDim'
  /** Key and value heads. */
  | 'kvHeads'
  /** Width of a head's value where it is not that of its key. */
  | 'valueDim'
  /** Vectors that queries, and keys and values, are sums of (tpa). */
  | 'factorQueryRank'
  | 'factorRank'

/** A configuration in Tetrad's names, whatever the file calls them. Sizes in elements. */
export interface ModelConfig {
  readonly decoder: Decoder
  readonly layers: number
  readonly heads: number
  readonly embed: number
  readonly vocab: number
  /** Longest context the model was trained for, tokens, and at most its window. */
  readonly contextTokens: number
  /** Tokens that a row attends to at most; undefined: all. Longer contexts are refused. */
  readonly window: number | undefined
  readonly intermediate: number
  readonly dims: Readonly<Partial<Record<Dimension, number>>>
  /** Added to the mean square in every norm. */
  readonly normEps: number
  readonly rope: RopeConfig
  /** Rotary vectors are stored as pairs of neighbours, not as two halves. */
  readonly pairedRope: boolean
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
  readonly weights: WeightFormat
  /** Format of the token embedding. */
  readonly embedding: FloatFormat
}

const fail: Fail = (facts) => new CheckpointError('CONFIG_INVALID', { ...facts, what: `config.json: ${facts.what}` })

/** Reads and checks `dir`/config.json. Throws CheckpointError MODEL_NOT_FOUND or CONFIG_INVALID. */
export async function readModelConfig(dir: string): Promise<ModelConfig> {
  return parseModelConfig(await readModelConfigFile(dir))
}

/** The JSON of a model's configuration, unchecked. Throws as readModelConfig. */
export async function readModelConfigFile(dir: string): Promise<unknown> {
  const value = await readModelJson(dir, 'config.json', fail)
  if (value === undefined) throw cannotRead(join(dir, 'config.json'))
  return value
}

/** The JSON of a configuration file, unchecked. Throws as readModelConfig. */
export async function readConfigFile(path: string): Promise<unknown> {
  const value = await readJsonFile(path, fail)
  if (value === undefined) throw cannotRead(path)
  return value
}

/** Checks the fields of a configuration by the keys of its decoder. Throws CheckpointError CONFIG_INVALID. */
export function parseModelConfig(value: unknown): ModelConfig {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw fail({ what: 'not an object', expected: 'a JSON object', actual: show(value), remedy: 'Fetch the file again.' })
  }
  const c = value as Record<string, unknown>
  const decoder = decoderOf(c, fail)
  const { config: keys } = decoder
  const field = (name: string, max: number) => checkInteger(name, c[name], 1, max, fail)
  const vocab = field(keys.vocab, LIMITS.vocab)
  const layers = field(keys.layers, LIMITS.layers)
  const positions = field(keys.contextTokens, LIMITS.context)
  const normEps = isSet(c.rms_norm_eps) ? epsilon(c.rms_norm_eps) : decoder.normEps
  refuseUnsupported(c, decoder, { context: positions, normEps }, fail)
  decoder.check?.(c, fail)
  const window = decoder.window?.(c, layers)
  const dims: Partial<Record<Dimension, number>> = {}
  for (const [dimension, key] of Object.entries(keys.dims) as [Dimension, string][]) {
    if (isSet(c[key])) dims[dimension] = field(key, COUNTS.has(dimension) ? LIMITS.heads : LIMITS.width)
  }
  return Object.freeze({
    decoder,
    layers,
    heads: field(keys.heads, LIMITS.heads),
    embed: field(keys.embed, LIMITS.width),
    vocab,
    contextTokens: Math.min(positions, window ?? positions),
    window: window !== undefined && window < positions ? window : undefined,
    intermediate: field(keys.intermediate, LIMITS.width),
    dims: Object.freeze(dims),
    normEps,
    rope: readRope(c, positions, fail),
    pairedRope: decoder.pairedRope?.(c) ?? false,
    variant: isSet(c.variant) ? checkOneOf('variant', c.variant, VARIANT_NAMES, fail) : undefined,
    packed: c.packed === undefined ? undefined : packedFormat(c.packed),
    tieWordEmbeddings: isSet(c.tie_word_embeddings) ? checkBoolean('tie_word_embeddings', c.tie_word_embeddings, fail) : undefined,
    eosTokenIds: endIdsOf(c.eos_token_id, vocab, fail),
  })
}

/** Dimensions that count something. */
const COUNTS: ReadonlySet<Dimension> = new Set<Dimension>(['groupSize', 'kvHeads', 'factorQueryRank', 'factorRank'])

function isSet(value: unknown): boolean {
  return value !== undefined && value !== null
}

function epsilon(value: unknown): number {
  if (typeof value === 'number' && value >= 1e-30 && value <= 1) return value
  throw fail({ what: 'rms_norm_eps is out of range', expected: 'a number from 1e-30 to 1', actual: show(value), remedy: 'Correct config.json.' })
}

function packedFormat(value: unknown): PackedFormat {
  const p = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>
  checkOneOf('packed.version', p.version as number, [PACKED_VERSION], (facts) => fail({ ...facts, remedy: 'Convert the original checkpoint again.' }))
  return Object.freeze({
    weights: checkOneOf('packed.weights', p.weights as string, WEIGHT_FORMAT_NAMES, fail),
    embedding: checkOneOf('packed.embedding', p.embedding as string, ['f32', 'bf16'] as const, fail),
  })
}
