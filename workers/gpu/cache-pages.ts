// Pages of a layer's cache out of the device and back, for snapshots. Between steps or beside them: whoever asks holds the pages.
/// <reference types="@webgpu/types" />
import type { GpuContext } from '../../kernels/gpu/context.js'
import { cacheBytes } from '../../kernels/gpu/wgsl/cache-rows.js'
import { cacheWidth } from '../layout/attention-plan.js'
import { PAGE_TOKENS } from '../protocol.js'
import type { GpuPlan } from './plan.js'

/** First byte and bytes of a page, of each stream, of the rope keys and of the coefficients. */
function regionsOf({ a, regions, streamCount, format, lanes }: GpuPlan): { readonly at: number; readonly pageBytes: number }[] {
  const scalar = cacheBytes(format)
  const region = (at: number, width: number) => ({ at: at * scalar, pageBytes: PAGE_TOKENS * width * scalar })
  return [
    ...Array.from({ length: streamCount }, (_, k) => region(k * regions.stream, regions.streamRow)),
    region(regions.rope, cacheWidth(a.sharedRopeDim)),
    region(regions.coefficients, 2 * (a.factors?.rank ?? 0) * lanes),
  ].filter(({ pageBytes }) => pageBytes > 0)
}

export async function readPages(context: GpuContext, plan: GpuPlan, cache: GPUBuffer, pages: readonly number[]): Promise<Uint8Array> {
  const regions = regionsOf(plan)
  const size = regions.reduce((sum, { pageBytes }) => sum + pageBytes * pages.length, 0)
  // MAP_READ and COPY_DST.
  const staging = context.device.createBuffer({ size, usage: 1 | 8 })
  try {
    const encoder = context.device.createCommandEncoder()
    let to = 0
    for (const { at, pageBytes } of regions) {
      for (const page of pages) {
        encoder.copyBufferToBuffer(cache, at + page * pageBytes, staging, to, pageBytes)
        to += pageBytes
      }
    }
    context.device.queue.submit([encoder.finish()])
    await context.settle(staging.mapAsync(1))
    return new Uint8Array(staging.getMappedRange().slice(0))
  } finally {
    staging.destroy()
  }
}

export async function writePages(context: GpuContext, plan: GpuPlan, cache: GPUBuffer, pages: readonly number[], bytes: Uint8Array): Promise<void> {
  const { queue } = context.device
  let from = 0
  for (const { at, pageBytes } of regionsOf(plan)) {
    for (const page of pages) {
      queue.writeBuffer(cache, at + page * pageBytes, bytes as Uint8Array<ArrayBuffer>, from, pageBytes)
      from += pageBytes
    }
  }
  queue.submit([])
  await context.settle(queue.onSubmittedWorkDone())
}
