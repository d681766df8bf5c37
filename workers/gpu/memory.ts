// What a plan asks of a device's memory, and what to say when it is not there.
import type { DeviceShortage } from '../../kernels/gpu/adapter.js'
import { DeviceMemory } from '../../kernels/gpu/context.js'
import { cacheBytes } from '../../kernels/gpu/wgsl/cache-rows.js'
import { WEIGHT_FORMATS } from '../../kernels/weight-formats.js'
import { PAGE_TOKENS } from '../protocol.js'
import type { GpuPlan } from './plan.js'

/** Throws DeviceMemory for a layer whose cache or weights are more than the largest buffer. */
export function checkBuffers(plan: GpuPlan, largest: number): void {
  const cache = plan.regions.all * cacheBytes(plan.format)
  const fitsTokens = Math.floor(largest / layerBytesPerToken(plan) / PAGE_TOKENS) * PAGE_TOKENS
  if (cache > largest) throw new DeviceMemory({ what: 'the cache of a layer is one buffer', askedBytes: cache, hadBytes: largest, fitsTokens })
  const weights = Math.max(plan.head.buffer.bytes, ...plan.layers.map((layer) => layer.buffer.bytes))
  const askedBytes = plan.portable ? weights * (WEIGHT_FORMATS[plan.weights].floatTiles?.scale ?? 1) : weights
  if (askedBytes > largest)
    throw new DeviceMemory({ what: 'the weights of a layer are one buffer', askedBytes, hadBytes: largest, fitsTokens: undefined })
}

/** What a device lacks that had room for so many bytes of buffers (0: it is not known), when what comes next did not fit. */
export function shortage(plan: GpuPlan, what: string, hadBytes: number): DeviceShortage {
  const cache = plan.layers.length * plan.regions.all * cacheBytes(plan.format)
  const weights = plan.layers.reduce((sum, layer) => sum + layer.buffer.bytes, plan.head.buffer.bytes)
  // Weights come after the cache: what they lack, the cache would have to give.
  const left = hadBytes === 0 ? 0 : hadBytes - weights
  const fits = Math.floor(left / plan.layers.length / layerBytesPerToken(plan) / PAGE_TOKENS) * PAGE_TOKENS
  return { what: `no room for the ${what}`, askedBytes: cache + weights, hadBytes, fitsTokens: fits > 0 ? fits : undefined }
}

function layerBytesPerToken(plan: GpuPlan): number {
  return (plan.regions.all * cacheBytes(plan.format)) / (plan.regions.stream / plan.regions.streamRow)
}
