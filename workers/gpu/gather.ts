// Exchanges partials between ranks: own ones from the device to the exchange memory, the others' from there to the device.
/// <reference types="@webgpu/types" />
import type { Shaped } from '../../kernels/gpu/program.js'
import type { Rows } from '../../kernels/rows.js'
import type { Collectives } from '../collectives/collectives.js'
import { SHARDS, type Stage } from '../protocol.js'
import type { GpuQueue } from './queue.js'

export class GpuGather {
  readonly #device: GPUQueue
  readonly #queue: GpuQueue
  readonly #own: readonly number[]
  readonly #collectives: Collectives
  /** Another shard's plane on its way to the device. */
  readonly #others: Float32Array<ArrayBuffer>

  /** scalars: of the largest plane. */
  constructor(device: GPUQueue, queue: GpuQueue, own: readonly number[], collectives: Collectives, scalars: number) {
    this.#device = device
    this.#queue = queue
    this.#own = own
    this.#collectives = collectives
    this.#others = new Float32Array(scalars)
  }

  /** Submits what was encoded; own planes to the exchange slots, a barrier, and the other shards' planes to the device. */
  async run(encoder: GPUCommandEncoder, planes: Shaped, slots: readonly Rows[], tokens: number, stage: Stage): Promise<void> {
    const [width = 0, rows = 0] = planes.dims
    const bytes = tokens * width * 4
    for (const [i, s] of this.#own.entries()) encoder.copyBufferToBuffer(planes.buffer, s * rows * width * 4, this.#queue.staging, i * bytes, bytes)
    await this.#queue.read([this.#queue.end(encoder)], this.#own.length * bytes, (data) => {
      for (const [i, s] of this.#own.entries()) {
        const slot = slots[s] as Rows
        for (let t = 0; t < tokens; t++) slot.row(t).set(data.subarray((i * tokens + t) * width, (i * tokens + t) * width + slot.width))
      }
    })
    await this.#collectives.barrierAsync(stage)
    for (let s = 0; s < SHARDS; s++) {
      if (this.#own.includes(s)) continue
      const slot = slots[s] as Rows
      for (let t = 0; t < tokens; t++) this.#others.set(slot.row(t), t * width)
      this.#device.writeBuffer(planes.buffer, s * rows * width * 4, this.#others, 0, tokens * width)
    }
  }
}
