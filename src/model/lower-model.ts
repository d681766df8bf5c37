// A variant's row and a configuration, lowered to the shape that ranks run: cache streams and attention units. Source: the authors' model/*.py.
import { cut } from '../../workers/layout/cuts.js'
import { type AttentionShape, type AttentionUnit, type ModelShape, SHARDS, type StreamShape } from '../../workers/protocol.js'
import { LIMITS } from '../options/limits.js'
import { ATTENTION, type GroupedRow, type LatentRow, type ShapeOf, type Variant } from './attention-variants.js'
import { invalidConfig } from './invalid-config.js'
import type { ModelConfig } from './model-config.js'
import { ropeShape } from './rope.js'

/** Model shape and the factors that are folded into norm weights at load. */
export interface LoweredModel {
  readonly shape: ModelShape
  /** sqrt(n_embd / q_lora_rank) and sqrt(n_embd / D), as float32; 1 where there are none. */
  readonly queryNormFactor: number
  readonly streamNormFactor: number
}

type Lowered = { readonly attention: AttentionShape; readonly queryNormFactor?: number; readonly streamNormFactor?: number }

/**
 * Lowers a variant to streams and units. `shapeOf` is asked only for what config.json leaves open. `tiedHead`: by default as
 * config.json says.
 * Throws CheckpointError CONFIG_INVALID where the configuration can't be cut.
 */
export function lowerModel(
  config: ModelConfig,
  variant: Variant,
  shapeOf: ShapeOf = () => undefined,
  tiedHead = config.tieWordEmbeddings !== false,
): LoweredModel {
  const { attention, queryNormFactor = 1, streamNormFactor = 1 } = lowerAttention(config, variant, shapeOf)
  const values = attention.heads * Math.max(attention.valueDim, attention.nopeDim + attention.ropeDim)
  if (values > LIMITS.width) throw invalidConfig('n_head times the width of a head is too large', `at most ${LIMITS.width}`, String(values))
  return {
    shape: {
      layers: config.n_layer,
      embed: config.n_embd,
      vocab: config.vocab_size,
      intermediate: config.intermediate_size,
      normEps: config.normEps,
      tiedHead,
      rope: ropeShape(config.rope, attention.ropeDim),
      attention,
    },
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
  throw invalidConfig(`${name} is missing`, 'a positive integer', 'nothing')
}

function lowerLatent(config: ModelConfig, variant: Variant & LatentRow): Lowered {
  const queryRank = need(config, 'q_lora_rank')
  const kvRank = need(config, 'kv_lora_rank')
  const nopeDim = need(config, 'qk_nope_head_dim')
  const ropeDim = need(config, 'qk_rope_head_dim')
  const heads = config.n_head
  const { latents, scaled } = variant
  if (kvRank % latents !== 0)
    throw invalidConfig(`kv_lora_rank cannot be cut into ${latents} latent heads`, `a multiple of ${latents}`, String(kvRank))
  if (ropeDim % 2 !== 0) throw invalidConfig('qk_rope_head_dim is odd', 'an even number', String(ropeDim))
  if (heads % variant.headMultiple !== 0)
    throw invalidConfig(`n_head cannot be cut as ${variant.name} does`, `a multiple of ${variant.headMultiple}`, String(heads))
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
      normEps: config.normEps,
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
  if (heads % groupSize !== 0) throw invalidConfig('n_head cannot be cut into groups', `a multiple of group_size ${groupSize}`, String(heads))
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
    normEps: config.normEps,
  }
}

function evenHead(config: ModelConfig, multiple: number): number {
  const width = need(config, 'head_dim')
  if (width % multiple !== 0) throw invalidConfig('head_dim cannot be rotated in halves', `a multiple of ${multiple}`, String(width))
  return width
}

/** group_size, or what the variant or the number of rows per KV head says. */
function groupSizeOf(config: ModelConfig, fallback: ((heads: number) => number) | undefined, rows: number | undefined, perHead: number): number {
  if (fallback) return fallback(config.n_head)
  if (config.group_size !== undefined) return config.group_size
  if (rows !== undefined && rows >= perHead && rows % perHead === 0 && config.n_head % (rows / perHead) === 0) return config.n_head / (rows / perHead)
  throw invalidConfig('group_size is missing', 'the number of heads that share a key and value head', 'nothing')
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
      normEps: config.normEps,
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
