// What a checkpoint is and how it would run, without loading it.

import { availableParallelism } from 'node:os'
import type { CacheFormat } from '../../kernels/cache-format.js'
import { type AdapterFacts, type GpuSettings, requestOf } from '../../kernels/gpu/adapter.js'
import { findAdapter } from '../../kernels/gpu/context.js'
import type { WeightFormat } from '../../kernels/weight-format.js'
import { isShared } from '../../workers/layout/attention-plan.js'
import { layoutModel, type ModelLayout } from '../../workers/layout/model-layout.js'
import { type AttentionShape, type DispatchList, type ModelShape, PAGE_TOKENS, RANK_COUNTS, type RunPlan } from '../../workers/protocol.js'
import { resolveOptions } from '../engine/choose-backend.js'
import { determinismOf } from '../engine/determinism.js'
import { availableMemory, memoryNeed } from '../engine/memory.js'
import { cacheCost, type ModelPlan, openModel, planModel, planRun, type RankPlan, rankPlans } from '../engine/model.js'
import { OptionError } from '../errors.js'
import { localModel } from '../hub/local-model.js'
import { VARIANTS, variantNamed } from '../model/attention-variants.js'
import { countParameters } from '../model/families/model-tensors.js'
import { lowerModel } from '../model/lower-model.js'
import { parseModelConfig, readConfigFile } from '../model/model-config.js'
import { checkOptions, resolveFor } from '../options/engine-options.js'
import type { EngineOptions } from '../options/public-types.js'
import { sameWidths } from './same-widths.js'

/** What the key/value cache costs at a number of ranks. */
export interface CacheCost {
  readonly ranks: 1 | 2 | 4
  /** Values per token and layer, and bytes per token over all layers, of the fullest rank. */
  readonly valuesPerTokenPerLayer: number
  readonly bytesPerToken: number
  /** Bytes that the rank reads of its cache for each token after a full context. */
  readonly bytesReadAtFullContext: number
}

/** What a model is and how it would run. */
export interface Inspection {
  readonly dir: string
  readonly variant: string
  readonly parameters: number
  /** 'none': inspected from a configuration alone. */
  readonly format: 'torch' | 'safetensors' | 'gguf' | 'packed' | 'none'
  /** Element types of the stored matrices. */
  readonly storedTypes: readonly string[]
  readonly layers: number
  readonly contextTokens: number
  readonly vocab: number
  readonly backend: 'gpu' | 'wasm' | 'reference'
  readonly weights: WeightFormat
  readonly cache: CacheFormat
  readonly ranks: readonly RankPlan[]
  readonly replicated: readonly string[]
  readonly kvCache: readonly CacheCost[]
  /** The same if the model's attention were MLRA-4 of the same widths; undefined: it is. */
  readonly asMlra4: readonly CacheCost[] | undefined
  /** Bytes that Engine.load would allocate for these options. */
  readonly memoryBytes: number
  /** Tokens that the cache holds, all requests together. */
  readonly cacheTokens: number
  readonly determinismKey: string
  /** 32 hexadecimal digits: of the key and the tokenizer. */
  readonly determinismDigest: string
  /** What the files hold and no model needs: rotary tables, masks, counters. By name, with type and shape. */
  readonly skipped: readonly string[]
  /** On the gpu backend: the adapter of each rank, and what rank 0 dispatches for a token. */
  readonly gpu: (DispatchList & { readonly adapters: readonly AdapterFacts[] }) | undefined
}

/** Reads headers only. Throws what Engine.load would throw for the same files and options. */
export async function inspect(given: string, options: EngineOptions = {}): Promise<Inspection> {
  const checked = checkOptions(options)
  const { options: resolved } = await resolveOptions(checked)
  const dir = await localModel(given, checked)
  const model = await openModel(dir, resolved.variant)
  const plan = planRun(model, resolved, availableParallelism(), availableMemory())
  const layout = layoutModel(model.lowered.shape, plan)
  planModel(model, layout)
  const { skipped, format } = model.checkpoint
  const described = await describe(dir, dir, model, plan, layout, model.config.packed ? 'packed' : format)
  const inspection = { ...described, skipped: skipped.map(({ name, type, shape }) => `${name} (${type} [${shape.join(', ')}])`) }
  return plan.gpu ? { ...inspection, gpu: await inspectGpu(model.lowered.shape, plan, plan.gpu, layout) } : inspection
}

/** Asks each rank's adapter, and takes no device. Throws OptionError where one does not answer. */
async function inspectGpu(shape: ModelShape, plan: RunPlan, settings: GpuSettings, layout: ModelLayout): Promise<Inspection['gpu']> {
  const adapters: AdapterFacts[] = []
  for (let rank = 0; rank < plan.ranks; rank++) {
    const { adapter, checks } = requestOf(settings, rank)
    const facts = await findAdapter({ adapter, checks }).catch(() => undefined)
    if (!facts || (facts.software && adapter === undefined)) {
      throw new OptionError('OPTION_INVALID', {
        what: `no GPU adapter answers for rank ${rank}`,
        expected: adapter === undefined ? 'a hardware adapter' : `an adapter with ${adapter} in its name`,
        actual: facts ? `${facts.device}, which is software` : 'none',
        remedy: 'Run tetrad doctor: it shows the adapters and what is missing.',
      })
    }
    adapters.push(facts)
  }
  const { listDispatches } = await import('../../workers/gpu/list-dispatches.js')
  return { adapters, ...(await listDispatches(shape, plan, layout, 0, adapters[0] as AdapterFacts)) }
}

/**
 * The same from a configuration file alone, as bf16 weights. Without `variant` in the options or the file: one for each
 * variant that the file's fields fit (gated and no_scale ones, which cache the same, left out).
 */
export async function inspectConfig(path: string, options: EngineOptions = {}): Promise<Inspection[]> {
  const checked = checkOptions(options)
  // A configuration is described for any machine: no device is asked.
  const resolved = resolveFor(checked.backend === 'auto' ? 'wasm' : checked.backend, checked)
  const config = parseModelConfig(await readConfigFile(path))
  const name = resolved.variant ?? config.variant
  const candidates = name !== undefined ? [variantNamed(name)] : VARIANTS.filter((v) => v.isPlain && v.decoder === config.decoder)
  const inspections: Inspection[] = []
  let firstProblem: unknown
  for (const variant of candidates) {
    try {
      const lowered = lowerModel(config, variant)
      const parameters = countParameters(lowered, variant)
      const model = { config, variant, lowered, storedTypes: ['bf16'] as const, parameters }
      const plan = planRun(model, resolved, availableParallelism(), availableMemory())
      inspections.push(await describe(path, undefined, model, plan, layoutModel(lowered.shape, plan), 'none'))
    } catch (error) {
      firstProblem ??= error
    }
  }
  if (inspections.length === 0) throw firstProblem
  return inspections
}

/** files: the model's, if it has more than a configuration. */
async function describe(
  dir: string,
  files: string | undefined,
  model: ModelPlan,
  plan: RunPlan,
  layout: ModelLayout,
  format: Inspection['format'],
): Promise<Inspection> {
  const determinism = await determinismOf(files, plan)
  const { attention } = model.lowered.shape
  const costs = (a: AttentionShape) =>
    RANK_COUNTS.map((ranks): CacheCost => {
      const { values, bytes } = cacheCost(a, ranks, plan)
      const bytesPerToken = bytes * model.config.layers
      return { ranks, valuesPerTokenPerLayer: values, bytesPerToken, bytesReadAtFullContext: bytesPerToken * plan.contextTokens }
    })
  const other = sameWidths(model.config, attention, model.variant.name)
  return {
    dir,
    variant: model.variant.name,
    parameters: model.parameters,
    format,
    storedTypes: model.config.packed ? [model.config.packed.weights] : model.storedTypes,
    layers: model.config.layers,
    contextTokens: plan.contextTokens,
    vocab: model.config.vocab,
    backend: plan.backend,
    weights: plan.weights,
    cache: plan.cache,
    ranks: rankPlans(model, plan, layout),
    replicated: replicatedParts(attention, plan),
    kvCache: costs(attention),
    asMlra4: other && costs(other),
    memoryBytes: memoryNeed(plan, layout).totalBytes,
    cacheTokens: plan.pages * PAGE_TOKENS,
    determinismKey: determinism.key,
    determinismDigest: determinism.digest,
    skipped: [],
    gpu: undefined,
  }
}

function replicatedParts(a: AttentionShape, plan: RunPlan): string[] {
  const shared = Array.from({ length: a.streams }, (_, i) => i).filter((i) => isShared(a, i))
  return [
    'norms',
    ...(a.sharedRopeDim > 0 ? ['rope key rows'] : []),
    ...(shared.length > 0 ? [`rows of cache streams ${shared.join(', ')}`] : []),
    ...(plan.replicate.queryA ? ['query latent projection'] : []),
    ...(plan.replicate.queryB ? ['query projection'] : []),
  ]
}
