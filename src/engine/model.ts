// A model directory opened but not loaded: configuration, tensors, variant, shape and the plan that the options give.
// What inspect prints and what Engine.load starts from.
import { CACHE_FORMATS } from '../../kernels/cache-formats.js'
import { GGML_BLOCK, isBlocked } from '../../kernels/ggml-blocks.js'
import { bestSimdLevel, type SimdLevel } from '../../kernels/wasm/simd-level.js'
import { cachedBytes, cachedValues, isLocal, segmentHeads, shardsOf, streamsOf } from '../../workers/layout/attention-plan.js'
import { cut } from '../../workers/layout/cuts.js'
import { layoutModel, type ModelLayout } from '../../workers/layout/model-layout.js'
import { cachedShards, pageClasses } from '../../workers/layout/partition.js'
import { type ModelShape, PAGE_TOKENS, type Partition, type RankCount, type Replication, type RunPlan } from '../../workers/protocol.js'
import { assetUrl } from '../assets.js'
import { OptionError } from '../errors.js'
import { type Variant, variantNamed } from '../model/attention-variants.js'
import { checkDirectory } from '../model/check-directory.js'
import { type Checkpoint, openCheckpoint } from '../model/checkpoint/checkpoint.js'
import { type PackedPlans, planPacked } from '../model/checkpoint/packed-checkpoint.js'
import { planShards } from '../model/checkpoint/shard-plan.js'
import type { StoredType } from '../model/checkpoint/tensor-source.js'
import { detectVariant } from '../model/detect-variant.js'
import { countParameters } from '../model/families/model-tensors.js'
import { type LoweredModel, lowerModel } from '../model/lower-model.js'
import { type ModelConfig, type PackedFormat, readModelConfig } from '../model/model-config.js'
import { isHeadTied } from '../model/tied-head.js'
import type { ResolvedOptions } from '../options/engine-options.js'

/** What a plan is made from. */
export interface ModelPlan {
  readonly config: ModelConfig
  readonly variant: Variant
  readonly lowered: LoweredModel
  /** Element types of the stored matrices. */
  readonly storedTypes: readonly StoredType[]
  /** Tied weights count once. */
  readonly parameters: number
}

export interface OpenModel extends ModelPlan {
  readonly dir: string
  readonly checkpoint: Checkpoint
}

/**
 * `chosen`: the variant, where the keys alone do not tell it. Throws OptionError for what is no directory's path, and CheckpointError.
 */
export async function openModel(dir: string, chosen?: string): Promise<OpenModel> {
  await checkDirectory(dir)
  const config = await readModelConfig(dir)
  const checkpoint = withoutSkipped(await openCheckpoint(dir, config.packed !== undefined), config)
  const shapeOf = (name: string) => checkpoint.tensors.get(name)?.shape
  if (config.packed) return openPacked(dir, config, checkpoint, config.packed, chosen)
  const variant = detectVariant(config, shapeOf, chosen ?? config.variant)
  const matrices = [...checkpoint.tensors.values()].filter((t) => t.shape.length > 1)
  const isTied = await isHeadTied(checkpoint.tensors, variant.decoder.names, config.tieWordEmbeddings ?? variant.decoder.tiedHead)
  const lowered = lowerModel(config, variant, shapeOf, isTied)
  return {
    dir,
    config,
    checkpoint,
    variant,
    lowered,
    storedTypes: [...new Set(matrices.map((t) => t.dtype))].sort(),
    parameters: countParameters(lowered, variant),
  }
}

/** Without the tensors of what decoding does not need, which `skipped` then lists. */
function withoutSkipped(checkpoint: Checkpoint, { decoder, layers }: ModelConfig): Checkpoint {
  const entries = [...checkpoint.tensors]
  const unused = entries.filter(([name]) => decoder.skips?.(name, layers))
  if (unused.length === 0) return checkpoint
  const skipped = unused.map(([name, { dtype, shape }]) => ({ name, type: dtype, shape }))
  return { ...checkpoint, tensors: new Map(entries.filter((entry) => !unused.includes(entry))), skipped: [...checkpoint.skipped, ...skipped] }
}

function openPacked(dir: string, config: ModelConfig, checkpoint: Checkpoint, packed: PackedFormat, chosen: string | undefined): OpenModel {
  if (config.variant === undefined || (chosen !== undefined && chosen !== config.variant)) {
    throw new OptionError('OPTION_INVALID', {
      what: 'a converted checkpoint has the variant that its config.json says',
      expected: config.variant ?? 'a variant',
      actual: chosen ?? 'none',
      remedy: 'Omit variant, or convert the original checkpoint again.',
    })
  }
  const variant = variantNamed(config.variant)
  const lowered = lowerModel(config, variant)
  return { dir, config, checkpoint, variant, lowered, storedTypes: [packed.embedding], parameters: countParameters(lowered, variant) }
}

/** Every tensor's way into the memories. Throws CheckpointError. */
export function planModel(model: OpenModel, layout: ModelLayout): PackedPlans {
  const { tensors } = model.checkpoint
  if (model.config.packed) return planPacked(tensors, model.lowered, model.variant, layout)
  return { tensors: planShards(tensors, model.lowered, model.variant, layout), direct: [] }
}

function chooseWeights(model: ModelPlan, wanted: ResolvedOptions['weights']): RunPlan['weights'] {
  const { packed } = model.config
  if (packed && wanted !== 'auto' && wanted !== packed.weights) {
    throw new OptionError('OPTION_INVALID', {
      what: 'the weights of a converted checkpoint have one format',
      expected: packed.weights,
      actual: wanted,
      remedy: 'Omit weights, or load the original checkpoint.',
    })
  }
  if (packed) return packed.weights
  if (wanted !== 'auto') return wanted
  // int8 holds blocks of both types as they are, int4 those of 4 bits.
  if (model.storedTypes.join() === 'q4_0' && keepsBlocks(model.lowered.shape)) return 'int4'
  if (model.storedTypes.some(isBlocked)) return 'int8'
  return model.storedTypes.join() === 'bf16' ? 'bf16' : 'f32'
}

/** Shards are cut between blocks: of the attention's outputs and of the MLP's rows, which are columns of the matrices after them. */
export function keepsBlocks({ attention, intermediate }: ModelShape): boolean {
  const isBetween = (column: number) => column % GGML_BLOCK === 0
  return attention.headCuts.every((head) => isBetween(head * attention.valueDim)) && [1, 2, 3].every((s) => isBetween(cut(intermediate, s)))
}

/** Throws OptionError for tpa: a rank caches coefficients of its own heads, and a scale over them would depend on the rank count. */
function checkCache(model: ModelPlan, cache: ResolvedOptions['cache']): void {
  if (!CACHE_FORMATS[cache].scaled || !model.lowered.shape.attention.factors) return
  throw new OptionError('OPTION_INVALID', {
    what: `cache: '${cache}' is not supported for this variant`,
    expected: 'a variant that caches latents or keys and values',
    actual: model.variant.name,
    remedy: "Choose cache: 'bf16'.",
  })
}

/** Prompt tokens of a step if no number is given: 512 take 60 ms with 2.9 B parameters on an H200, and tensor cores need many rows. */
const PREFILL_CHUNK = { cpu: 64, gpu: 1024 } as const

/** Share of the free memory that the cache takes when no size is given. */
const CACHE_SHARE = 0.25

/** `available`: bytes of free memory, for the size of the cache. */
export function planRun(model: ModelPlan, options: ResolvedOptions, cores: number, available: number): RunPlan {
  const context = chooseContext(model.config, options.maxContext)
  const pagesPerSlot = Math.ceil(context / PAGE_TOKENS)
  const weights = chooseWeights(model, options.weights)
  checkCache(model, options.cache)
  const { ranks, backend, cache, maxRunning } = options
  const partition = choosePartition(model, options)
  const classes = pageClasses(partition)
  const pageBytes = cachePageBytes(model, options)
  const wanted =
    options.cacheTokens !== undefined
      ? Math.ceil(options.cacheTokens / PAGE_TOKENS)
      : Math.floor((options.cacheBytes ?? available * CACHE_SHARE) / pageBytes)
  const automatic = options.cacheTokens === undefined && options.cacheBytes === undefined
  const most = automatic ? Math.min(wanted, maxRunning * pagesPerSlot, mostPages(model, options)) : wanted
  const pages = Math.ceil(Math.max(1, most) / classes) * classes
  const partial = {
    simd: chooseSimd(options.simd),
    contextTokens: Math.min(context, pages * PAGE_TOKENS),
    backend,
    gpu: backend === 'gpu' ? { adapters: options.adapter, checks: options.gpuChecks, kernels: options.gpuKernels } : undefined,
    ranks,
    weights,
    embedding: model.storedTypes.join() === 'bf16' ? 'bf16' : 'f32',
    cache,
    partition,
    // Prompt rows, and one row for every other sequence.
    stepRows: Math.min(options.prefillChunk ?? PREFILL_CHUNK[backend === 'gpu' ? 'gpu' : 'cpu'], context) + maxRunning,
    pages,
    slots: maxRunning,
    pagesPerSlot,
  } as const
  return { ...partial, replicate: chooseReplication(model, { ...partial, replicate: { queryA: false, queryB: false } }, cores) }
}

/** From this context on 'auto' cuts the cache along the sequence (docs/partition.md). */
const AUTO_SEQUENCE_TOKENS = 32_768

/** A function of the model and of options other than ranks: the same bits at every rank count. */
function choosePartition({ config, lowered }: ModelPlan, { partition, backend, maxContext }: ResolvedOptions): Partition {
  if (partition !== 'auto') return partition
  const { attention: a } = lowered.shape
  const alone = cachedValues(a, [0, 1, 2, 3], { backend, cache: 'f32', partition: 'heads' })
  const fullest = Math.max(...a.units.map((_, s) => cachedValues(a, [s], { backend, cache: 'f32', partition: 'heads' })))
  const isLong = chooseContext(config, maxContext) >= AUTO_SEQUENCE_TOKENS
  return backend !== 'gpu' && isLong && fullest > alone / 2 ? 'sequence' : 'heads'
}

/** Beyond a window rows would attend to other tokens than the model does. */
function chooseContext({ window, contextTokens }: ModelConfig, wanted: number | undefined): number {
  if (window === undefined || wanted === undefined || wanted <= window) return wanted ?? contextTokens
  throw new OptionError('OPTION_INVALID', {
    what: 'maxContext is longer than the sliding_window of the model, beyond which attention is not supported',
    expected: `at most ${window} tokens`,
    actual: String(wanted),
    remedy: `Choose maxContext of at most ${window}, or omit it.`,
    option: 'maxContext',
  })
}

function chooseSimd(wanted: ResolvedOptions['simd']): SimdLevel {
  if (wanted === 'simd128') return wanted
  const best = bestSimdLevel(assetUrl('dist/kernels/wasm/'))
  if (wanted === 'auto' || wanted === best) return best
  throw new OptionError('OPTION_INVALID', {
    what: 'simd: relaxed is not available here',
    expected: 'a Node version and processor with relaxed SIMD and a fused multiply-add',
    actual: `Node ${process.version} on ${process.arch}`,
    remedy: 'Omit simd, or choose simd128.',
  })
}

/** Bytes of one page over all layers, of one rank. */
function rankPageBytes(model: ModelPlan, options: ResolvedOptions, rank: number): number {
  const { attention, layers } = model.lowered.shape
  const plan = { backend: options.backend, cache: options.cache, partition: choosePartition(model, options) }
  return PAGE_TOKENS * layers * cachedBytes(attention, shardsOf(rank, options.ranks), plan)
}

/** Bytes of one page over all layers and ranks. */
export function cachePageBytes(model: ModelPlan, options: ResolvedOptions): number {
  return Array.from({ length: options.ranks }, (_, r) => rankPageBytes(model, options, r)).reduce((a, b) => a + b, 0)
}

/** Bytes of a layer's cache on a GPU: a buffer, which every adapter may have. */
const GPU_LAYER_BYTES = 2 ** 30

/** Pages that leave room for the rest in a rank's memory, which ends at 4 GiB. */
export function mostPages(model: ModelPlan, options: ResolvedOptions): number {
  const largest = Math.max(...Array.from({ length: options.ranks }, (_, rank) => rankPageBytes(model, options, rank)))
  const most = options.backend === 'gpu' ? GPU_LAYER_BYTES * model.lowered.shape.layers : 3 * 2 ** 30
  return Math.floor(most / largest)
}

// Microseconds of a collective: both ranks spinning on cores of their own and the usual skew between them, or parked
// (measured on 2 cores, Node 20: 0.13 and 21 us for the barrier alone). And bytes a microsecond of one thread.
const SPINNING_US = 1.5
const PARKED_US = 21
const BYTES_PER_US = 25e3

/** A projection is computed whole by every rank where the extra bytes cost less time than the gather. It never changes a bit. */
function chooseReplication(model: ModelPlan, plan: RunPlan, cores: number): Replication {
  // Between GPUs a gather costs a readback: they compute queries whole.
  if (plan.backend === 'gpu') return { queryA: true, queryB: true }
  if (plan.ranks === 1 || model.lowered.shape.attention.queryRank === 0) return { queryA: false, queryB: false }
  const layer = layoutModel(model.lowered.shape, plan).shards.map((shard) => shard.layers[0])
  const extra = 1 - 1 / plan.ranks
  const whole = (pick: 'queryA' | 'queryB') => layer.reduce((sum, l) => sum + (l?.[pick].bytes ?? 0), 0)
  const barrier = plan.ranks <= cores ? SPINNING_US : PARKED_US
  const pays = (bytes: number) => (bytes * extra) / BYTES_PER_US < barrier
  const queryA = pays(whole('queryA'))
  return { queryA, queryB: queryA && !isLocal(model.lowered.shape.attention) && pays(whole('queryB')) }
}

/** One rank of a plan, in the model's terms. */
export interface RankPlan {
  readonly rank: number
  readonly shards: readonly number[]
  /** Cache streams (latent heads, or key and value heads) that this rank holds. */
  readonly streams: readonly number[]
  /** Query heads that it attends with, [start, end). */
  readonly heads: readonly [number, number]
  /** Heads of the attention projection, rows of the MLP, rows of the vocabulary: [start, end). */
  readonly projectionHeads: readonly [number, number]
  readonly mlpRows: readonly [number, number]
  readonly vocabRows: readonly [number, number]
  readonly shardedWeightBytes: number
  /** Read by this rank beyond its shards: norms, rope key rows, replicated projections. */
  readonly replicatedWeightBytes: number
}

export function rankPlans(model: ModelPlan, plan: RunPlan, layout: ModelLayout): RankPlan[] {
  const { shape } = model.lowered
  const a = shape.attention
  return layout.ranks.map((rank, r) => {
    const shards = shardsOf(r, plan.ranks)
    const first = shards[0] as number
    const end = (shards.at(-1) as number) + 1
    const range = (n: number): [number, number] => [cut(n, first), cut(n, end)]
    const others = layout.shards.filter((_, s) => !shards.includes(s))
    const replicated = (pick: 'queryA' | 'queryB') => others.flatMap((s) => s.layers).reduce((sum, layer) => sum + layer[pick].bytes, 0)
    return {
      rank: r,
      shards,
      streams: streamsOf(a, cachedShards(plan.partition, shards)),
      heads: [rank.attendStart, rank.attendEnd],
      projectionHeads: [segmentHeads(a, first).start, segmentHeads(a, end - 1).end],
      mlpRows: range(shape.intermediate),
      vocabRows: range(shape.vocab),
      shardedWeightBytes: shards.reduce((sum, s) => sum + (layout.shards[s]?.weightBytes ?? 0), 0),
      replicatedWeightBytes:
        rank.weightBytes + (plan.replicate.queryA ? replicated('queryA') : 0) + (plan.replicate.queryB ? replicated('queryB') : 0),
    }
  })
}

/** Of the fullest rank at a rank count, per token and layer: cached values, and bytes with padding and scales. */
export function cacheCost(attention: ModelShape['attention'], ranks: RankCount, plan: RunPlan): { values: number; bytes: number } {
  const fullest = (of: typeof cachedBytes) => Math.max(...Array.from({ length: ranks }, (_, r) => of(attention, shardsOf(r, ranks), plan)))
  return { values: fullest(cachedValues), bytes: fullest(cachedBytes) }
}
