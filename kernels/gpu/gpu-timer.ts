// How long dispatches take on the device, by timestamps around each: for profiles and benchmarks. Owns the query set; a pass with
// timestamps is a pass of its own, so timing costs some speed.
/// <reference types="@webgpu/types" />
import { BUFFER_USAGE } from './buffer-usage.js'
import type { GpuContext } from './context.js'

/** WebGPU's limit for one query set. */
const MAX_QUERIES = 4096

export interface TimedDispatch {
  readonly name: string
  /** Milliseconds of the device's clock; its zero is arbitrary. */
  readonly start: number
  readonly end: number
}

export class GpuTimer {
  readonly #queries: GPUQuerySet
  readonly #resolved: GPUBuffer
  readonly #staging: GPUBuffer
  #names: string[] = []
  /** Dispatches that were not timed for lack of room; the reader may reset it. */
  dropped = 0

  readonly #context: GpuContext

  /** The device must have the feature timestamp-query. */
  constructor(context: GpuContext) {
    const { device } = context
    this.#context = context
    this.#queries = device.createQuerySet({ type: 'timestamp', count: MAX_QUERIES })
    this.#resolved = device.createBuffer({ size: MAX_QUERIES * 8, usage: BUFFER_USAGE.queryResolve | BUFFER_USAGE.copySrc })
    this.#staging = device.createBuffer({ size: MAX_QUERIES * 8, usage: BUFFER_USAGE.mapRead | BUFFER_USAGE.copyDst })
  }

  /** Describes the pass that is to be timed. */
  pass(name: string): GPUComputePassDescriptor {
    const at = 2 * this.#names.length
    if (at + 2 > MAX_QUERIES) {
      this.dropped++
      return {}
    }
    this.#names.push(name)
    return { timestampWrites: { querySet: this.#queries, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 } }
  }

  /** After the last pass: makes the times readable. Returns how many passes were timed. */
  resolve(encoder: GPUCommandEncoder): number {
    const count = this.#names.length
    if (count === 0) return 0
    encoder.resolveQuerySet(this.#queries, 0, 2 * count, this.#resolved, 0)
    encoder.copyBufferToBuffer(this.#resolved, 0, this.#staging, 0, 16 * count)
    return count
  }

  /** The passes since the last call, once what was resolved has been submitted. late: rejects when the wait has lasted too long. */
  async take(late?: Promise<never>): Promise<TimedDispatch[]> {
    const names = this.#names
    if (names.length === 0) return []
    this.#names = []
    await this.#context.map(this.#staging, 16 * names.length, late)
    const times = new BigUint64Array(this.#staging.getMappedRange(0, 16 * names.length).slice(0))
    this.#staging.unmap()
    const at = (i: number) => Number(times[i] as bigint) / 1e6
    return names.map((name, i) => ({ name, start: at(2 * i), end: at(2 * i + 1) }))
  }
}
