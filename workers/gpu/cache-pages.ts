// Pages of a layer's cache read from the device and written to it, for snapshots; and random contents, for timing. Works between steps
// or beside them: whoever asks holds the pages.
/// <reference types="@webgpu/types" />
import { BUFFER_USAGE } from '../../kernels/gpu/buffer-usage.js'
import type { GpuContext } from '../../kernels/gpu/context.js'
import { cacheBytes } from '../../kernels/gpu/wgsl/cache-rows.js'
import { layoutPages } from '../layout/page-layout.js'
import { PAGE_TOKENS } from '../protocol.js'
import type { DeviceCache } from '../rank-runner.js'
import type { GpuPlan } from './plan.js'

/** Words written at once by `fill`. */
const FILL_WORDS = 1 << 18

interface PagePlace {
  /** Byte offset in a layer's cache. */
  readonly device: number
  /** Byte offset in the pages' bytes. */
  readonly bytes: number
  readonly size: number
}

export class CachePages implements DeviceCache {
  readonly #context: GpuContext
  readonly #plan: GpuPlan
  /** By layer. */
  readonly #caches: readonly GPUBuffer[]

  constructor(context: GpuContext, plan: GpuPlan, caches: readonly GPUBuffer[]) {
    this.#context = context
    this.#plan = plan
    this.#caches = caches
  }

  async fill(): Promise<void> {
    const { queue } = this.#context.device
    const words = Int32Array.from({ length: FILL_WORDS }, (_, i) => this.#plan.format.randomWord(i))
    for (const cache of this.#caches) {
      for (let at = 0; at < cache.size; at += words.byteLength) queue.writeBuffer(cache, at, words, 0, Math.min(words.length, (cache.size - at) / 4))
      queue.submit([])
    }
    await this.#context.settle(queue.onSubmittedWorkDone())
  }

  async read(layer: number, pages: readonly number[]): Promise<Uint8Array> {
    const { device } = this.#context
    const { places, size } = this.#placesOf(pages)
    const staging = device.createBuffer({ size, usage: BUFFER_USAGE.mapRead | BUFFER_USAGE.copyDst })
    try {
      const encoder = device.createCommandEncoder()
      for (const place of places) encoder.copyBufferToBuffer(this.#cache(layer), place.device, staging, place.bytes, place.size)
      device.queue.submit([encoder.finish()])
      await this.#context.map(staging, staging.size)
      return new Uint8Array(staging.getMappedRange().slice(0))
    } finally {
      staging.destroy()
    }
  }

  async write(layer: number, pages: readonly number[], bytes: Uint8Array): Promise<void> {
    const { queue } = this.#context.device
    const source = bytes as Uint8Array<ArrayBuffer>
    for (const place of this.#placesOf(pages).places) queue.writeBuffer(this.#cache(layer), place.device, source, place.bytes, place.size)
    queue.submit([])
    await this.#context.settle(queue.onSubmittedWorkDone())
  }

  #cache(layer: number): GPUBuffer {
    const cache = this.#caches[layer]
    if (!cache) throw new RangeError(`no layer ${layer} of ${this.#caches.length}`)
    return cache
  }

  #placesOf(pages: readonly number[]): { readonly places: readonly PagePlace[]; readonly size: number } {
    const { a, own, cacheRows: rows, regions, format } = this.#plan
    const layout = layoutPages(a, own, rows, pages.length)
    const scalar = cacheBytes(format)
    const region = (first: number, bytes: number, rowBytes: number): PagePlace[] => {
      const size = PAGE_TOKENS * rowBytes
      if (size === 0) return []
      return pages.map((page, i) => ({ device: first * scalar + page * size, bytes: bytes + i * size, size }))
    }
    const places = [
      ...layout.streams.flatMap((bytes, k) => region(k * regions.stream, bytes, rows.stream.bytes)),
      ...region(regions.rope, layout.ropeStream, rows.rope.bytes),
      ...region(regions.coefficients, layout.coefficientStream, rows.coefficients.bytes),
    ]
    return { places, size: layout.bytes }
  }
}
