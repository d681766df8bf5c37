// The queue of a rank's device: encodes dispatches, submits, and reads back within a deadline. Notes times when a profile is wanted.
// Knows no model.
/// <reference types="@webgpu/types" />
import { BUFFER_USAGE } from '../../kernels/gpu/buffer-usage.js'
import type { GpuContext } from '../../kernels/gpu/context.js'
import { GpuTimer } from '../../kernels/gpu/gpu-timer.js'
import type { Command, Program, StepSize } from '../../kernels/gpu/program.js'
import { dispatchId, eventId, type ProfileRecorder } from '../profile/profile-recorder.js'

const ENCODE = eventId('encode')
const SUBMIT = eventId('submit')
const READBACK = eventId('readback')
/** Bytes that are read back where only the end of the work is waited for. */
const MARK_BYTES = 16

export class GpuQueue {
  readonly #context: GpuContext
  readonly #program: Program
  readonly #deadlineMs: number
  readonly #recorder: ProfileRecorder | undefined
  readonly #timer: GpuTimer | undefined
  /** Results are copied here to be read back. */
  readonly staging: GPUBuffer
  readonly #mark: GPUBuffer
  #encodingSince = 0

  constructor(context: GpuContext, program: Program, stagingBytes: number, deadlineMs: number, recorder: ProfileRecorder | undefined) {
    this.#context = context
    this.#program = program
    this.#deadlineMs = deadlineMs
    this.#recorder = recorder
    if (recorder && !context.device.features.has('timestamp-query')) throw new Error('the adapter has no timestamp-query, which a profile needs')
    this.#timer = recorder && new GpuTimer(context)
    this.#mark = program.buffer(MARK_BYTES)
    this.staging = context.device.createBuffer({ size: stagingBytes, usage: BUFFER_USAGE.mapRead | BUFFER_USAGE.copyDst })
  }

  encoder(): GPUCommandEncoder {
    this.#encodingSince = this.#recorder?.now() ?? 0
    return this.#context.device.createCommandEncoder()
  }

  encode(encoder: GPUCommandEncoder, commands: readonly Command[], step: StepSize): void {
    this.#program.encode(encoder, commands, step, this.#timer)
  }

  /** Ends what was encoded, for `read` or `finish`. */
  end(encoder: GPUCommandEncoder): GPUCommandBuffer {
    this.#timer?.resolve(encoder)
    const commands = encoder.finish()
    this.#recorder?.add(ENCODE, this.#encodingSince)
    return commands
  }

  /** Submits commands and gives `take` the first bytes of the staging buffer; `meanwhile` is called while the device works. */
  async read(commands: readonly GPUCommandBuffer[], bytes: number, take: (data: Float32Array) => void, meanwhile?: () => void): Promise<void> {
    this.#submit(commands)
    const since = this.#recorder?.now() ?? 0
    const mapped = this.#inTime((late) => this.#context.map(this.staging, bytes, late))
    // Awaited below; this keeps a rejection from being unhandled when `meanwhile` throws.
    mapped.catch(() => {})
    meanwhile?.()
    await mapped
    take(new Float32Array(this.staging.getMappedRange(0, bytes)))
    this.staging.unmap()
    await this.#note(since)
  }

  /** Submits commands and waits for their end: a copy that follows them is read back, since a map can be cancelled. */
  async finish(commands: readonly GPUCommandBuffer[], meanwhile?: () => void): Promise<void> {
    const encoder = this.#context.device.createCommandEncoder()
    encoder.copyBufferToBuffer(this.#mark, 0, this.staging, 0, MARK_BYTES)
    this.#submit([...commands, encoder.finish()])
    const since = this.#recorder?.now() ?? 0
    const done = this.#inTime((late) => this.#context.map(this.staging, MARK_BYTES, late))
    // Also observed by the await below, which is not reached when `meanwhile` throws.
    done.catch(() => {})
    meanwhile?.()
    await done
    this.staging.unmap()
    await this.#note(since)
  }

  #submit(commands: readonly GPUCommandBuffer[]): void {
    const since = this.#recorder?.now() ?? 0
    for (const part of commands) this.#context.device.queue.submit([part])
    this.#recorder?.add(SUBMIT, since)
  }

  /** Records the dispatches as events. The clocks differ: the last dispatch is taken to have ended when the host woke. */
  async #note(since: number): Promise<void> {
    const recorder = this.#recorder
    if (recorder) {
      const woke = recorder.now()
      const timer = this.#timer as GpuTimer
      const timed = await this.#inTime((late) => timer.take(late))
      recorder.drop(timer.dropped)
      timer.dropped = 0
      const offset = woke - (timed.at(-1)?.end ?? 0)
      // The part of the wait before the first dispatch began.
      const first = timed[0] ? timed[0].start + offset : woke
      recorder.add(READBACK, since, Math.max(since, first))
      for (const { name, start, end } of timed) recorder.add(dispatchId(name), start + offset, end + offset)
    }
    this.#context.check()
  }

  /** Waits for the device, at most until the deadline. */
  async #inTime<T>(work: (late: Promise<never>) => Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`the GPU did not end its work within ${this.#deadlineMs} ms`)), this.#deadlineMs)
    })
    try {
      return await work(late)
    } finally {
      clearTimeout(timer)
    }
  }
}
