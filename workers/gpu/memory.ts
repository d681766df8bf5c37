// What a plan needs of a device's memory, and how much of it is missing when an allocation fails.
import type { DeviceShortage } from '../../kernels/gpu/adapter.js'
import { DeviceMemory } from '../../kernels/gpu/context.js'
import { cacheBytes } from '../../kernels/gpu/wgsl/cache-rows.js'
import { PAGE_TOKENS } from '../protocol.js'
import type { GpuPlan } from './plan.js'
import { deviceBytes } from './weights.js'

/** Throws DeviceMemory for a layer whose cache or weights are more than the largest buffer. */
export function checkBuffers(plan: GpuPlan, largest: number): void {
  const cache = plan.regions.all * cacheBytes(plan.format)
  const fitsTokens = Math.floor(largest / layerBytesPerToken(plan) / PAGE_TOKENS) * PAGE_TOKENS
  if (cache > largest) throw new DeviceMemory({ what: 'the cache of a layer is one buffer', askedBytes: cache, hadBytes: largest, fitsTokens })
  const askedBytes = Math.max(...[plan.head, ...plan.layers].map(({ weights }) => deviceBytes(weights, plan.kernels.floats)))
  if (askedBytes > largest)
    throw new DeviceMemory({ what: 'the weights of a layer are one buffer', askedBytes, hadBytes: largest, fitsTokens: undefined })
}

/** The shortage of a device that held hadBytes of buffers (0: not known) when the allocation of `what` failed. */
export function shortage(plan: GpuPlan, what: string, hadBytes: number): DeviceShortage {
  const cache = plan.layers.length * plan.regions.all * cacheBytes(plan.format)
  const weights = [plan.head, ...plan.layers].reduce((sum, { weights }) => sum + deviceBytes(weights, plan.kernels.floats), 0)
  // Weights are allocated after the cache: a smaller cache would leave room for them.
  const left = hadBytes === 0 ? 0 : hadBytes - weights
  const fits = Math.floor(left / plan.layers.length / layerBytesPerToken(plan) / PAGE_TOKENS) * PAGE_TOKENS
  return { what: `no room for the ${what}`, askedBytes: cache + weights, hadBytes, fitsTokens: fits > 0 ? fits : undefined }
}

function layerBytesPerToken(plan: GpuPlan): number {
  return (plan.regions.all * cacheBytes(plan.format)) / (plan.regions.stream / plan.regions.streamRow)
}
