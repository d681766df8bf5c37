// The attention variants as table rows: how a checkpoint's keys tell them apart, and their lowering to streams and units.
// Nothing below src/ knows a variant's name. Source: the authors' model/*.py.
import { cut } from '../../workers/model-layout.js'
import { type AttentionShape, type AttentionUnit, type ModelShape, SHARDS, type StreamShape } from '../../workers/protocol.js'
import { CheckpointError, OptionError } from '../errors.js'
import { LIMITS } from './limits.js'
import type { ModelConfig } from './model-config.js'

/** Names and shapes of a checkpoint's tensors, as far as detection needs them. */
export type ShapeOf = (tensor: string) => readonly number[] | undefined

/** Latent variants: L latent heads of width D = kv_lora_rank / L, each serving some of the heads. */
interface LatentRow {
  readonly tensors: 'latent'
  readonly latents: 1 | 2 | 4
  /** Of n heads, those that latent l serves: [start, end). */
  readonly headsOf: (latent: number, heads: number) => readonly [number, number]
  /** Multiplies the sum over latents. */
  readonly outputFactor: number
  /** n_head must be a multiple of it. */
  readonly headMultiple: number
  /** Under attn. */
  readonly normKey: (latent: number) => string
  /** One parameter [L, D, heads * 2N] for all latents, or a Linear weight [heads * 2N, D] for each. */
  readonly upKey: string | ((latent: number) => string)
  /** The factors sqrt(E/QL), sqrt(E/D) and outputFactor are there; in no_scale models they are 1. */
  readonly scaled: boolean
}

/** Keys and values of n_head / group_size KV heads, as they are. */
interface GroupedRow {
  readonly tensors: 'grouped'
  /** Heads per KV head of n when config.json has no group_size; undefined: it must have it, or the tensors tell. */
  readonly groupSize: ((heads: number) => number) | undefined
  /** Queries come from a shared latent of share_q_dim. */
  readonly sharedQuery: boolean
}

/** gta: half of a key is the first half of the value, the other half a rope key shared by all heads. */
interface TiedRow {
  readonly tensors: 'tied'
}

/** tpa: queries, keys and values are products of factors. */
interface FactoredRow {
  readonly tensors: 'factored'
}

export type Variant = (LatentRow | GroupedRow | TiedRow | FactoredRow) & { readonly name: string; readonly gated: boolean }

const stackedKeys = { normKey: (l: number) => `kv_a_layernorms.${l}.weight`, upKey: 'kv_b_proj' } as const

const halves = (l: number, n: number) => (l % 2 === 0 ? ([0, n / 2] as const) : ([n / 2, n] as const))

const LATENT = {
  mlra_4: { latents: 4, headsOf: (_l, n) => [0, n], outputFactor: 4 ** -0.5, headMultiple: 1, ...stackedKeys },
  mlra_2: { latents: 4, headsOf: halves, outputFactor: 2 ** -0.5, headMultiple: 2, ...stackedKeys },
  gla_4: { latents: 4, headsOf: (l, n) => [(l * n) / 4, ((l + 1) * n) / 4], outputFactor: 1, headMultiple: 4, ...stackedKeys },
  gla_2: {
    latents: 2,
    headsOf: halves,
    outputFactor: 1,
    headMultiple: 2,
    normKey: (l) => `kv_a_layernorm_${l + 1}.weight`,
    upKey: (l) => `kv_b_proj_${l + 1}.weight`,
  },
  mla: {
    latents: 1,
    headsOf: (_l, n) => [0, n],
    outputFactor: 1,
    headMultiple: 1,
    normKey: () => 'kv_a_layernorm.weight',
    upKey: () => 'kv_b_proj.weight',
  },
} satisfies Record<string, Omit<LatentRow, 'tensors' | 'scaled'>>

type LatentName = keyof typeof LATENT
const latent = (of: LatentName, name: string = of, change: { gated?: boolean; scaled?: boolean } = {}): Variant => ({
  name,
  tensors: 'latent',
  gated: false,
  scaled: true,
  ...LATENT[of],
  ...change,
})
const gated = (of: LatentName) => latent(of, `${of}_gated`, { gated: true })
const noScale = (of: LatentName) => latent(of, `${of}_no_scale`, { scaled: false })

const grouped = { tensors: 'grouped', gated: false, groupSize: undefined, sharedQuery: false } as const

/** The first that a checkpoint shows is taken. */
export const VARIANTS: readonly Variant[] = [
  latent('mlra_4'),
  latent('mlra_2'),
  latent('gla_4'),
  latent('gla_2'),
  latent('mla'),
  gated('mlra_4'),
  gated('mlra_2'),
  gated('gla_2'),
  gated('mla'),
  noScale('mlra_2'),
  noScale('gla_2'),
  noScale('mla'),
  { ...grouped, name: 'mha', groupSize: () => 1 },
  { ...grouped, name: 'gqa' },
  { ...grouped, name: 'gqa_gated', gated: true },
  // The authors have no model file of this name: their mqa is gqa in one group, and is detected as that.
  { ...grouped, name: 'mqa', groupSize: (heads) => heads },
  { ...grouped, name: 'mfa', groupSize: (heads) => heads, sharedQuery: true },
  { name: 'gta', tensors: 'tied', gated: false },
  { name: 'tpa', tensors: 'factored', gated: false },
]

export const VARIANT_NAMES: readonly string[] = VARIANTS.map((v) => v.name)

export function variantNamed(name: string): Variant {
  return VARIANTS.find((v) => v.name === name) as Variant
}

const ATTENTION = 'transformer.h.0.attn.'

/**
 * The variant that a checkpoint's first layer shows; `chosen` (the `variant` option or config.json's) decides between those
 * that keys can't tell apart. Throws VARIANT_UNKNOWN, VARIANT_UNSUPPORTED, or OPTION_INVALID if the choice does not fit.
 */
export function detectVariant(config: ModelConfig, shapeOf: ShapeOf, chosen?: string): Variant {
  const found = VARIANTS.find((v) => shows(v, config, shapeOf))
  if (!found) throw unknown(config, shapeOf)
  if (chosen === undefined || chosen === found.name) return found
  const other = variantNamed(chosen)
  if (other && shows(other, config, shapeOf)) return other
  throw new OptionError('OPTION_INVALID', {
    what: `the checkpoint is not of the variant ${chosen}`,
    expected: VARIANTS.filter((v) => shows(v, config, shapeOf))
      .map((v) => v.name)
      .join(' or '),
    actual: chosen,
    remedy: 'Leave variant out, or choose one that the keys of the checkpoint fit.',
  })
}

/** Whether the first layer has this variant's keys, and of shapes that are its own. */
function shows(v: Variant, config: ModelConfig, shapeOf: ShapeOf): boolean {
  const shape = (key: string) => shapeOf(ATTENTION + key)
  switch (v.tensors) {
    case 'latent': {
      if ((shape('gated_proj.weight') !== undefined) !== v.gated) return false
      if (typeof v.upKey !== 'string') return shape(v.normKey(0)) !== undefined && shape(v.upKey(0)) !== undefined
      const latentDim = (config.kv_lora_rank ?? 0) / v.latents
      const [start, end] = v.headsOf(0, config.n_head)
      return shape(v.upKey)?.join() === [v.latents, latentDim, (end - start) * 2 * (config.qk_nope_head_dim ?? 0)].join()
    }
    case 'grouped': {
      const keys = shape('c_k.weight')
      if (!keys || (shape('c_gated.weight') !== undefined) !== v.gated || (shape('w_q.weight') !== undefined) !== v.sharedQuery) return false
      if (v.sharedQuery || v.gated || !v.groupSize) return true
      return keys[0] === (config.n_head / v.groupSize(config.n_head)) * (config.head_dim ?? 0)
    }
    case 'tied':
      return shape('W_rope_k.weight') !== undefined
    case 'factored':
      return shape('c_qkv.W_A_q.weight') !== undefined
  }
}

function unknown(config: ModelConfig, shapeOf: ShapeOf): CheckpointError {
  const stacked = shapeOf(`${ATTENTION}kv_b_proj`)
  if (!stacked) {
    return new CheckpointError('VARIANT_UNKNOWN', {
      what: 'the weight files hold no attention that Tetrad knows',
      expected: `${ATTENTION}kv_b_proj or another variant's keys`,
      actual: 'none of them',
      remedy: "Point at a checkpoint of the authors' models (MLRA and its baselines).",
    })
  }
  const rank = config.kv_lora_rank ?? 0
  if (rank % 4 !== 0) return invalid('kv_lora_rank cannot be cut into 4 latent heads', 'a multiple of 4', String(rank))
  const rows = VARIANTS.filter((v) => v.tensors === 'latent' && v.upKey === 'kv_b_proj')
  const fits = (gate: boolean) =>
    rows.some((v) => v.gated !== gate && shows(v, config, (key) => (key.endsWith('gated_proj.weight') ? (v.gated ? [1] : undefined) : shapeOf(key))))
  if (fits(shapeOf(`${ATTENTION}gated_proj.weight`) !== undefined)) {
    return new CheckpointError('VARIANT_UNSUPPORTED', {
      what: 'the checkpoint is of a variant that Tetrad does not run: gla_4 with a gate',
      expected: `one of ${VARIANT_NAMES.join(', ')}`,
      actual: 'gla_4_gated',
      remedy: 'Use a checkpoint of a variant that this version runs.',
    })
  }
  const widths = rows.map((v) => {
    const [start, end] = v.tensors === 'latent' ? v.headsOf(0, config.n_head) : [0, 0]
    return `${v.name}: [4, ${rank / 4}, ${(end - start) * 2 * (config.qk_nope_head_dim ?? 0)}]`
  })
  return new CheckpointError('VARIANT_UNKNOWN', {
    what: `${ATTENTION}kv_b_proj fits no variant`,
    expected: widths.join(', '),
    actual: `[${stacked.join(', ')}]`,
    remedy: 'Check that config.json belongs to these weights.',
  })
}

/** Model shape and the factors that are folded into norm weights at load. */
export interface LoweredModel {
  readonly shape: ModelShape
  /** sqrt(n_embd / q_lora_rank) and sqrt(n_embd / D), as float32; 1 where there are none. */
  readonly queryNormFactor: number
  readonly streamNormFactor: number
}

type Lowered = { readonly attention: AttentionShape; readonly queryNormFactor?: number; readonly streamNormFactor?: number }

/**
 * Lowers a variant to streams and units. `shapeOf` is asked only for what config.json leaves open.
 * Throws CheckpointError CONFIG_INVALID where the configuration can't be cut.
 */
export function lowerModel(config: ModelConfig, variant: Variant, shapeOf: ShapeOf = () => undefined): LoweredModel {
  const { attention, queryNormFactor = 1, streamNormFactor = 1 } = lowerAttention(config, variant, shapeOf)
  const values = attention.heads * Math.max(attention.valueDim, attention.nopeDim + attention.ropeDim)
  if (values > LIMITS.width) throw invalid('n_head times the width of a head is too large', `at most ${LIMITS.width}`, String(values))
  return {
    shape: { layers: config.n_layer, embed: config.n_embd, vocab: config.vocab_size, intermediate: config.intermediate_size, attention },
    queryNormFactor,
    streamNormFactor,
  }
}

function lowerAttention(config: ModelConfig, variant: Variant, shapeOf: ShapeOf): Lowered {
  switch (variant.tensors) {
    case 'latent':
      return lowerLatent(config, variant)
    case 'grouped':
      return lowerGrouped(config, variant, shapeOf)
    case 'tied':
      return lowerTied(config, variant, shapeOf)
    case 'factored':
      return lowerFactored(config)
  }
}

type Dimension = Exclude<{ [K in keyof ModelConfig]: ModelConfig[K] extends number | undefined ? K : never }[keyof ModelConfig], undefined>

function need(config: ModelConfig, name: Dimension): number {
  const value = config[name]
  if (value !== undefined) return value
  throw invalid(`${name} is missing`, 'a positive integer', 'nothing')
}

function lowerLatent(config: ModelConfig, variant: Variant & LatentRow): Lowered {
  const queryRank = need(config, 'q_lora_rank')
  const kvRank = need(config, 'kv_lora_rank')
  const nopeDim = need(config, 'qk_nope_head_dim')
  const ropeDim = need(config, 'qk_rope_head_dim')
  const heads = config.n_head
  const { latents, scaled } = variant
  if (kvRank % latents !== 0) throw invalid(`kv_lora_rank cannot be cut into ${latents} latent heads`, `a multiple of ${latents}`, String(kvRank))
  if (ropeDim % 2 !== 0) throw invalid('qk_rope_head_dim is odd', 'an even number', String(ropeDim))
  if (heads % variant.headMultiple !== 0)
    throw invalid(`n_head cannot be cut as ${variant.name} does`, `a multiple of ${variant.headMultiple}`, String(heads))
  const width = kvRank / latents
  // 4 / latents shards share a latent and split its heads.
  const each = SHARDS / latents
  const units = shards((s) => {
    const stream = Math.floor(s / each)
    const [start, end] = variant.headsOf(stream, heads)
    const at = (i: number) => start + Math.floor((i * (end - start)) / each)
    return unit(stream, at(s % each), at((s % each) + 1))
  })
  return {
    attention: {
      heads,
      nopeDim,
      ropeDim,
      valueDim: nopeDim,
      queryRank,
      queryNormed: true,
      streams: latents,
      stream: { width, keyWidth: width, valueOffset: 0, valueWidth: width, normed: true, ropeVectors: 0 },
      absorbed: true,
      sharedRopeDim: ropeDim,
      factors: undefined,
      gated: variant.gated,
      units,
      headCuts: cutsOf(heads),
      scale: (nopeDim + ropeDim) ** -0.5,
      outputFactor: scaled ? variant.outputFactor : 1,
    },
    queryNormFactor: scaled ? Math.fround(Math.sqrt(config.n_embd / queryRank)) : 1,
    streamNormFactor: scaled ? Math.fround(Math.sqrt(config.n_embd / width)) : 1,
  }
}

/** Attention over KV heads that are cached as they are. */
function lowerKvHeads(
  config: ModelConfig,
  groupSize: number,
  head: {
    readonly nopeDim: number
    readonly ropeDim: number
    readonly valueDim: number
    readonly stream: StreamShape
    readonly sharedRopeDim: number
  },
): AttentionShape {
  const heads = config.n_head
  if (heads % groupSize !== 0) throw invalid('n_head cannot be cut into groups', `a multiple of group_size ${groupSize}`, String(heads))
  const kvHeads = heads / groupSize
  // Whole KV heads per shard where there are enough; else the heads are cut and shards share KV heads.
  const headCuts = kvHeads >= SHARDS ? cutsOf(kvHeads).map((c) => c * groupSize) : cutsOf(heads)
  const units = shards((s) => {
    const start = headCuts[s] as number
    const end = headCuts[s + 1] as number
    const first = Math.floor(start / groupSize)
    return Array.from({ length: Math.ceil(end / groupSize) - first }, (_, i) =>
      unit(first + i, Math.max(start, (first + i) * groupSize), Math.min(end, (first + i + 1) * groupSize)),
    ).flat()
  })
  return {
    heads,
    ...head,
    queryRank: 0,
    queryNormed: false,
    streams: kvHeads,
    absorbed: false,
    factors: undefined,
    gated: false,
    units,
    headCuts,
    scale: (head.nopeDim + head.ropeDim) ** -0.5,
    outputFactor: 1,
  }
}

function evenHead(config: ModelConfig, multiple: number): number {
  const width = need(config, 'head_dim')
  if (width % multiple !== 0) throw invalid('head_dim cannot be rotated in halves', `a multiple of ${multiple}`, String(width))
  return width
}

/** group_size, or what the variant or the number of rows per KV head says. */
function groupSizeOf(config: ModelConfig, fallback: ((heads: number) => number) | undefined, rows: number | undefined, perHead: number): number {
  if (fallback) return fallback(config.n_head)
  if (config.group_size !== undefined) return config.group_size
  if (rows !== undefined && rows >= perHead && rows % perHead === 0 && config.n_head % (rows / perHead) === 0) return config.n_head / (rows / perHead)
  throw invalid('group_size is missing', 'the number of heads that share a key and value head', 'nothing')
}

function lowerGrouped(config: ModelConfig, variant: Variant & GroupedRow, shapeOf: ShapeOf): Lowered {
  const width = evenHead(config, 2)
  const groupSize = groupSizeOf(config, variant.groupSize, shapeOf(`${ATTENTION}c_k.weight`)?.[0], width)
  const attention = lowerKvHeads(config, groupSize, {
    nopeDim: 0,
    ropeDim: width,
    valueDim: width,
    stream: { width: 2 * width, keyWidth: width, valueOffset: width, valueWidth: width, normed: false, ropeVectors: 1 },
    sharedRopeDim: 0,
  })
  const shared = variant.sharedQuery ? { queryRank: need(config, 'share_q_dim'), queryNormed: true } : {}
  return { attention: { ...attention, ...shared, gated: variant.gated } }
}

function lowerTied(config: ModelConfig, _variant: Variant, shapeOf: ShapeOf): Lowered {
  const width = evenHead(config, 4)
  const groupSize = groupSizeOf(config, undefined, shapeOf(`${ATTENTION}kv_proj.weight`)?.[0], width)
  return {
    attention: lowerKvHeads(config, groupSize, {
      nopeDim: width / 2,
      ropeDim: width / 2,
      valueDim: width,
      stream: { width, keyWidth: width / 2, valueOffset: 0, valueWidth: width, normed: false, ropeVectors: 0 },
      sharedRopeDim: width / 2,
    }),
  }
}

function lowerFactored(config: ModelConfig): Lowered {
  const width = evenHead(config, 2)
  const rank = need(config, 'rank')
  const queryRank = need(config, 'q_rank')
  const heads = config.n_head
  const headCuts = cutsOf(heads)
  return {
    attention: {
      heads,
      nopeDim: 0,
      ropeDim: width,
      valueDim: width,
      queryRank: queryRank * width,
      queryNormed: false,
      streams: 1,
      stream: { width: 2 * rank * width, keyWidth: width, valueOffset: rank * width, valueWidth: width, normed: false, ropeVectors: rank },
      absorbed: false,
      sharedRopeDim: 0,
      factors: { queryRank, rank },
      gated: false,
      units: shards((s) => unit(0, headCuts[s] as number, headCuts[s + 1] as number)),
      headCuts,
      // The means over q_rank and rank are taken here and, for values, once at the output.
      scale: width ** -0.5 / (queryRank * rank),
      outputFactor: 1 / rank,
    },
  }
}

function cutsOf(n: number): number[] {
  return Array.from({ length: SHARDS + 1 }, (_, i) => cut(n, i))
}

function shards<T>(of: (shard: number) => T): T[] {
  return Array.from({ length: SHARDS }, (_, s) => of(s))
}

/** A unit, or none without heads. */
function unit(stream: number, headStart: number, headEnd: number): AttentionUnit[] {
  return headEnd > headStart ? [{ stream, headStart, headEnd }] : []
}

function invalid(what: string, expected: string, actual: string): CheckpointError {
  return new CheckpointError('CONFIG_INVALID', {
    what: `config.json: ${what}`,
    expected,
    actual,
    remedy: 'Use a checkpoint whose configuration can be cut.',
  })
}
