// Memory for a model: how much it needs, whether there is that much, and what would fit if there is not.
import { availableParallelism } from 'node:os'
import { CACHE_FORMAT_NAMES, CACHE_FORMATS } from '../../kernels/cache-formats.js'
import { WEIGHT_FORMAT_NAMES, WEIGHT_FORMATS } from '../../kernels/weight-formats.js'
import { layoutModel, type ModelLayout } from '../../workers/layout/model-layout.js'
import { PAGE_TOKENS, type RunPlan } from '../../workers/protocol.js'
import { MemoryError } from '../errors.js'
import { mib } from '../mib.js'
import type { ResolvedOptions } from '../options/engine-options.js'
import { cachePageBytes, mostPages, type OpenModel, planRun } from './model.js'

/** The most that one WebAssembly memory can hold. */
const MEMORY_LIMIT = 2 ** 32

export interface MemoryNeed {
  readonly totalBytes: number
  /** The largest single memory. */
  readonly largestBytes: number
}

export function memoryNeed(plan: RunPlan, layout: ModelLayout): MemoryNeed {
  const parts = [...layout.shards, ...layout.ranks].map((part) => part.bytes)
  if (plan.ranks > 1) parts.push(layout.exchange.bytes)
  return { totalBytes: parts.reduce((a, b) => a + b, 0), largestBytes: Math.max(...parts) }
}

/** Bytes that this process may still take, cgroup limits included. */
export function availableMemory(): number {
  return process.availableMemory()
}

/** Throws MemoryError MEMORY_EXHAUSTED, before anything is allocated, naming the options that would fit. */
export function checkMemory(model: OpenModel, options: ResolvedOptions, plan: RunPlan, layout: ModelLayout, available: number): void {
  const need = memoryNeed(plan, layout)
  if (fits(need, plan, available)) return
  const fitting = alternatives(model, options).find((change) => {
    const other = planRun(model, { ...options, ...change }, availableParallelism(), available)
    return fits(memoryNeed(other, layoutModel(model.lowered.shape, other)), other, available)
  })
  // When the cache was given a size, that size is what can give.
  const cacheAsked = options.cacheTokens !== undefined || options.cacheBytes !== undefined
  const pageBytes = cachePageBytes(model, options)
  const room = Math.min(Math.floor((available - (need.totalBytes - plan.pages * pageBytes)) / pageBytes), mostPages(model, options))
  const described = fitting && Object.entries(fitting).map(([name, value]) => `${name}: ${typeof value === 'string' ? `'${value}'` : value}`)
  throw new MemoryError('MEMORY_EXHAUSTED', {
    what:
      need.totalBytes > available
        ? `the model needs ${mib(need.totalBytes)}`
        : `one of the model's memories needs ${mib(need.largestBytes)}, and a WebAssembly memory ends at ${mib(MEMORY_LIMIT)}`,
    expected: `at most ${mib(need.totalBytes > available ? available : MEMORY_LIMIT)}`,
    actual: `${mib(need.totalBytes)} for ${plan.ranks} ranks, ${plan.weights} weights, ${plan.cache} cache, a cache of ${plan.pages * PAGE_TOKENS} tokens`,
    remedy:
      cacheAsked && room > 0
        ? `A cache of ${room * PAGE_TOKENS} tokens would fit: cacheTokens: ${room * PAGE_TOKENS}.`
        : described
          ? `This would fit: { ${described.join(', ')} }.`
          : 'No choice of ranks or formats would fit. Free memory, or use a larger machine.',
  })
}

/** Smaller formats, those that change the output least first; each at the ranks asked for and at 4. */
function alternatives(model: OpenModel, options: ResolvedOptions): Partial<ResolvedOptions>[] {
  const { backend, cache, gpuKernels, weights } = options
  const side = backend === 'gpu' ? 'gpu' : 'cpu'
  const gpuJs = gpuKernels === 'gpu.js'
  const hasFactors = model.lowered.shape.attention.factors !== undefined
  // A converted checkpoint has one format.
  const otherWeights = WEIGHT_FORMAT_NAMES.filter(
    (name) => !model.config.packed && name !== 'f32' && name !== weights && (!gpuJs || WEIGHT_FORMATS[name].floatTiles),
  )
  const otherCaches = CACHE_FORMAT_NAMES.slice(CACHE_FORMAT_NAMES.indexOf(cache) + 1).filter((name) => {
    const format = CACHE_FORMATS[name]
    return format[side] && !(format.scaled && hasFactors) && !(gpuJs && !format.gpu?.gpuJs)
  })
  const changes: Partial<ResolvedOptions>[] = [
    ...otherCaches.map((name) => ({ cache: name })),
    ...otherWeights.map((name) => ({ weights: name })),
    ...otherWeights.flatMap((name) => otherCaches.map((other) => ({ weights: name, cache: other }))),
  ]
  return [{ ranks: 4 }, ...changes.flatMap((change) => [options.ranks, 4 as const].map((ranks) => ({ ...change, ranks })))]
}

function fits(need: MemoryNeed, plan: RunPlan, available: number): boolean {
  return need.totalBytes <= available && (plan.backend !== 'wasm' || need.largestBytes <= MEMORY_LIMIT)
}
