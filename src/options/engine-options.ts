// Options of Engine.load, checked once. Knows nothing of the model.
import { availableParallelism } from 'node:os'
import type { BackendName } from '../../kernels/backend.js'
import { SIMD_LEVELS } from '../../kernels/wasm/simd-level.js'
import { RANK_COUNTS, type RankCount } from '../../workers/protocol.js'
import { OptionError } from '../errors.js'
import { VARIANT_NAMES } from '../model/attention-variants.js'
import { checkBoolean, checkInteger, checkNames, checkOneOf, type Fail } from './check.js'
import { LIMITS } from './limits.js'

/** What Engine.load takes. */
export interface EngineOptions {
  /**
   * Worker threads that share the model's four shards: 1, 2 or 4. Default 'auto': the largest not above the cores, or on a GPU above the
   * adapters that are named (1 without: ranks on one card are time-sliced by its driver).
   */
  ranks?: 'auto' | 1 | 2 | 4
  /**
   * 'gpu' (each rank its own device, through gpu.js), 'wasm' (WebAssembly SIMD) or 'reference' (float64, slow, the oracle). Default
   * 'auto': gpu when a hardware adapter answers, else wasm; wasm for a cache of int8, which the GPU has not.
   */
  backend?: 'auto' | 'gpu' | 'wasm' | 'reference'
  /**
   * Part of the GPU adapter's name, or several: rank i takes the one at i mod n. A software adapter is used only when it is named.
   * Default: all ranks share the first hardware adapter. Cards of one name are told apart by PCI address in Mesa's form, pci-0000_65_00_0, where
   * Mesa's device-select layer is installed; nothing checks that it obeyed, so look at the driver's own tool.
   */
  adapter?: string | readonly string[]
  /** Bounds checks in GPU kernels and validation of commands: slower, for finding errors. Default false. */
  gpuChecks?: boolean
  /**
   * 'gpu.js': matrix products and attention are compiled by gpu.js too (f32 cache, f32 or bf16 weights), many times slower. Default
   * 'auto': hand-written WGSL for these where the adapter has 256 threads and 16 KiB of memory a workgroup, else gpu.js.
   */
  gpuKernels?: 'auto' | 'gpu.js'
  /**
   * Name of the attention variant. Default: what the tensors' names and shapes show, or config.json's `variant`. Needed for
   * the ablations mla_no_scale, gla_2_no_scale and mlra_2_no_scale, whose tensors look like those of mla, gla_2 and mlra_2.
   */
  variant?: string
  /**
   * Build of the WebAssembly kernels: 'relaxed' (relaxed SIMD, fused multiply-add, a third faster) or 'simd128' (every engine and
   * processor: the same bits on all of them). Default 'auto': relaxed where there is one. It is part of the determinism key.
   */
  simd?: 'auto' | 'simd128' | 'relaxed'
  /**
   * Format of the weights in memory. Default 'auto': the stored type, float16 and mixed types as f32. 'int8': a scale per row and 32
   * columns; activations are quantized for each product; the embedding and norms stay as they are.
   */
  weights?: 'auto' | 'f32' | 'bf16' | 'int8'
  /**
   * Format of the cached latents. 'int8' (wasm and reference, not for tpa): a scale per row and latent; queries of 7 bits. 'f16': gpu only.
   * Default 'f32'.
   */
  cache?: 'f32' | 'bf16' | 'f16' | 'int8'
  /** Prompt tokens of one step, 1..4096. Default 64. It never changes a bit of the output. */
  prefillChunk?: number
  /**
   * Most tokens of a request, 1..16777216, prompt and output; what the cache holds if that is less (info.contextTokens; a warning says so).
   * Default: the model's block_size. Beyond it the model was not trained: rotary positions go on, and a warning says so.
   */
  maxContext?: number
  /** Requests that run at once, 1..256. Default 32. */
  maxRunning?: number
  /** Requests that may wait beyond those, 0..1000000; more get OverloadedError. Default 1024. */
  maxQueue?: number
  /** Size of the KV cache in tokens, all requests together. Default: see cacheBytes. */
  cacheTokens?: number
  /**
   * Size of the KV cache in bytes, all ranks together. Default: a quarter of the machine's free memory, at most maxRunning full contexts,
   * 3 GiB a rank on the CPU, and 1 GiB a layer and rank on a GPU.
   */
  cacheBytes?: number
  /** Restarts of the ranks after failures before the engine fails for good, 0..1000, within restartWindowMs. Default 5. */
  maxRestarts?: number
  /** 1..86400000. Default 60000. */
  restartWindowMs?: number
  /** Milliseconds that a rank may let the others wait, or that no rank gets on within a step, 10..3600000. Default 30000. */
  stepDeadlineMs?: number
  /** Note how long every kernel and wait takes, for engine.profile(). It costs some speed. Default false. */
  profile?: boolean
  /** Called while weights are read. */
  onProgress?: (progress: LoadProgress) => void
  /** Stops loading. */
  signal?: AbortSignal
}

export interface LoadProgress {
  /** Bytes of the checkpoint read so far, and in all. */
  readonly loadedBytes: number
  readonly totalBytes: number
}

/** The options with every default filled in, except what depends on the checkpoint. */
export interface ResolvedOptions {
  readonly ranks: RankCount
  /** 'auto' was asked for: the backend decides as well. */
  readonly ranksAreAutomatic: boolean
  readonly backend: 'auto' | 'gpu' | 'wasm' | 'reference'
  /** Names; none: the first hardware adapter. */
  readonly adapter: readonly string[]
  readonly gpuChecks: boolean
  readonly gpuKernels: 'auto' | 'gpu.js'
  readonly variant: string | undefined
  readonly simd: 'auto' | 'simd128' | 'relaxed'
  readonly weights: 'auto' | 'f32' | 'bf16' | 'int8'
  readonly cache: 'f32' | 'bf16' | 'f16' | 'int8'
  readonly prefillChunk: number
  readonly stepDeadlineMs: number
  readonly maxContext: number | undefined
  readonly maxRunning: number
  readonly maxQueue: number
  readonly cacheTokens: number | undefined
  readonly cacheBytes: number | undefined
  readonly maxRestarts: number
  readonly restartWindowMs: number
  readonly profile: boolean
  readonly onProgress: ((progress: LoadProgress) => void) | undefined
  readonly signal: AbortSignal | undefined
}

const NAMES = [
  'ranks',
  'backend',
  'adapter',
  'gpuChecks',
  'gpuKernels',
  'variant',
  'simd',
  'weights',
  'cache',
  'prefillChunk',
  'maxContext',
  'maxRunning',
  'maxQueue',
  'cacheTokens',
  'cacheBytes',
  'maxRestarts',
  'restartWindowMs',
  'stepDeadlineMs',
  'profile',
  'onProgress',
  'signal',
]

const fail: Fail = (facts) => new OptionError('OPTION_INVALID', facts)

export function resolveOptions(options: EngineOptions = {}): ResolvedOptions {
  const o = checkNames('Engine.load', options, NAMES)
  if (o.cacheTokens !== undefined && o.cacheBytes !== undefined) {
    throw fail({ what: 'cacheTokens and cacheBytes are both given', expected: 'one of them', actual: 'both', remedy: 'Leave one out.' })
  }
  const ranks = checkOneOf('ranks', o.ranks ?? 'auto', ['auto', ...RANK_COUNTS] as const, fail)
  const backend = checkOneOf('backend', o.backend ?? 'auto', ['auto', 'gpu', 'wasm', 'reference'] as const, fail)
  const adapter = adapterNames(o.adapter)
  return Object.freeze({
    ranks: ranks === 'auto' ? ranksOf(backend, adapter) : ranks,
    ranksAreAutomatic: ranks === 'auto',
    backend,
    adapter,
    gpuChecks: checkBoolean('gpuChecks', o.gpuChecks, fail),
    gpuKernels: checkOneOf('gpuKernels', o.gpuKernels ?? 'auto', ['auto', 'gpu.js'] as const, fail),
    variant: o.variant === undefined ? undefined : checkOneOf('variant', o.variant as string, VARIANT_NAMES, fail),
    simd: checkOneOf('simd', o.simd ?? 'auto', ['auto', ...SIMD_LEVELS] as const, fail),
    weights: checkOneOf('weights', o.weights ?? 'auto', ['auto', 'f32', 'bf16', 'int8'] as const, fail),
    cache: checkOneOf('cache', o.cache ?? 'f32', ['f32', 'bf16', 'f16', 'int8'] as const, fail),
    prefillChunk: checkInteger('prefillChunk', o.prefillChunk ?? 64, 1, 4096, fail),
    stepDeadlineMs: checkInteger('stepDeadlineMs', o.stepDeadlineMs ?? 30000, 10, 3600000, fail),
    maxContext: o.maxContext === undefined ? undefined : checkInteger('maxContext', o.maxContext, 1, LIMITS.context, fail),
    maxRunning: checkInteger('maxRunning', o.maxRunning ?? 32, 1, 256, fail),
    maxQueue: checkInteger('maxQueue', o.maxQueue ?? 1024, 0, 1_000_000, fail),
    cacheTokens: o.cacheTokens === undefined ? undefined : checkInteger('cacheTokens', o.cacheTokens, 1, 2 ** 31, fail),
    cacheBytes: o.cacheBytes === undefined ? undefined : checkInteger('cacheBytes', o.cacheBytes, 1, Number.MAX_SAFE_INTEGER, fail),
    maxRestarts: checkInteger('maxRestarts', o.maxRestarts ?? 5, 0, 1000, fail),
    restartWindowMs: checkInteger('restartWindowMs', o.restartWindowMs ?? 60_000, 1, 86_400_000, fail),
    profile: checkBoolean('profile', o.profile, fail),
    onProgress: checkInstance('onProgress', o.onProgress, (v): v is (p: LoadProgress) => void => typeof v === 'function', 'a function'),
    signal: checkInstance('signal', o.signal, (v): v is AbortSignal => v instanceof AbortSignal, 'an AbortSignal'),
  })
}

function adapterNames(value: unknown): readonly string[] {
  const isName = (v: unknown): v is string => typeof v === 'string' && v.length > 0
  const isNames = (v: unknown): v is string | readonly string[] => isName(v) || (Array.isArray(v) && v.length > 0 && v.every(isName))
  const names = checkInstance('adapter', value, isNames, 'a part of an adapter name, or a list of them') ?? []
  return Object.freeze(typeof names === 'string' ? [names] : [...names])
}

/** What 'auto' ranks are on a backend; 'auto' itself counts as the CPU. availableParallelism heeds affinity and, from Node 22 on, cgroup quotas. */
export function ranksOf(backend: 'auto' | BackendName, adapters: readonly string[]): RankCount {
  return automaticRanks(backend === 'gpu' ? adapters.length : availableParallelism())
}

/** The largest rank count not above the cores. */
export function automaticRanks(cores: number): RankCount {
  return cores >= 4 ? 4 : cores >= 2 ? 2 : 1
}

export function checkInstance<T>(name: string, value: unknown, is: (v: unknown) => v is T, expected: string): T | undefined {
  if (value === undefined || is(value)) return value
  throw fail({ what: `${name} is of the wrong type`, expected, actual: typeof value, remedy: `Pass ${expected} or leave ${name} out.` })
}
