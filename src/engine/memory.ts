// Memory for a model: how much it needs, whether there is that much, and what would fit if there is not.
import { availableParallelism } from 'node:os'
import { layoutModel, type ModelLayout } from '../../workers/layout/model-layout.js'
import { PAGE_TOKENS, type RunPlan } from '../../workers/protocol.js'
import { MemoryError } from '../errors.js'
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

/** Formats that take less memory, those that change the output least first; each at the ranks asked for and at 4. */
function alternatives(model: OpenModel, options: ResolvedOptions): Partial<ResolvedOptions>[] {
  const { backend, cache, weights } = options
  // A converted checkpoint has the format that it has, and int8 caches are not for every model and backend.
  const otherWeights = model.config.packed ? [] : (['bf16', 'int8'] as const).filter((format) => format !== weights)
  const hasInt8Cache = backend !== 'gpu' && !model.lowered.shape.attention.factors
  const otherCaches = ([...(backend === 'gpu' ? (['f16'] as const) : []), 'bf16', ...(hasInt8Cache ? (['int8'] as const) : [])] as const).filter(
    (format) => format !== cache && cache !== 'int8',
  )
  const changes: Partial<ResolvedOptions>[] = [
    ...otherCaches.map((format) => ({ cache: format })),
    ...otherWeights.map((format) => ({ weights: format })),
    ...otherWeights.flatMap((format) => otherCaches.map((other) => ({ weights: format, cache: other }))),
  ]
  // gpu.js kernels have neither int8 weights nor other caches.
  const allowed = options.gpuKernels === 'gpu.js' ? [{ weights: 'bf16' as const }] : changes
  return [{ ranks: 4 }, ...allowed.flatMap((change) => [options.ranks, 4 as const].map((ranks) => ({ ...change, ranks })))]
}

function fits(need: MemoryNeed, plan: RunPlan, available: number): boolean {
  return need.totalBytes <= available && (plan.backend !== 'wasm' || need.largestBytes <= MEMORY_LIMIT)
}

function mib(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20)} MiB`
}
