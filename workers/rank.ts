// The worker of one rank. The piscina task attaches it and returns; then it serves steps from the mailbox and its control
// plane from the port, until the pool is destroyed.
import { setImmediate } from 'node:timers/promises'
import * as Comlink from 'comlink'
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs'
import type { DeviceShortage, GpuRequest } from '../kernels/gpu/adapter.js'
import type { GpuContext } from '../kernels/gpu/context.js'
import { instructionLevel } from '../kernels/open-backend.js'
import { Collectives, RankLate, StepAborted } from './collectives/collectives.js'
import { ModelRunner } from './cpu/model-runner.js'
import type { GpuRunner } from './gpu/runner.js'
import { CONTROL, RANK, rankSlot } from './mailbox/mailbox-layout.js'
import { ProfileRecorder } from './profile/profile-recorder.js'
import { type AttachTask, FAULT_KINDS, type RankApi, type RankFailure, type RankInit, type RankReport } from './protocol.js'

class Rank implements RankApi {
  readonly #rank: number
  readonly #ranks: number
  readonly #control: Int32Array
  #device: GpuContext | undefined
  #gpu: GpuRunner | undefined
  #collectives: Collectives | undefined
  #failure: RankFailure | undefined
  #running: Promise<void> | undefined

  constructor(task: AttachTask) {
    this.#rank = task.rank
    this.#ranks = task.ranks
    this.#control = new Int32Array(task.control)
  }

  async load(init: RankInit): Promise<RankReport | DeviceShortage> {
    const recorder = init.profile && new ProfileRecorder(init.profile)
    const onFault = (fault: number, at: number) => this.#actOnFault(fault, at)
    this.#collectives = new Collectives(this.#control, this.#rank, this.#ranks, init.spins, init.deadlineMs, onFault, recorder)
    if (init.plan.backend === 'gpu') {
      const { GpuRunner } = await import('./gpu/runner.js')
      const { DeviceMemory } = await import('../kernels/gpu/context.js')
      const made = GpuRunner.create(this.#rank, init, this.#collectives, this.#device as GpuContext, recorder)
      const runner = await made.catch((error: unknown) => {
        if (error instanceof DeviceMemory) return error.shortage
        throw error
      })
      if (!(runner instanceof GpuRunner)) return runner
      this.#gpu = runner
      void this.#serve(runner, this.#collectives)
      const dispatches = runner.dispatches
      return { backend: 'gpu', instructions: runner.instructions, adapter: runner.adapter, dispatches }
    }
    const runner = new ModelRunner(this.#rank, init, this.#collectives, recorder)
    void this.#serve(runner, this.#collectives)
    const instructions = instructionLevel(runner.backend, init.plan.simd)
    return { backend: runner.backend, instructions, adapter: undefined, dispatches: [] }
  }

  async acquireGpu(request: GpuRequest): Promise<void> {
    // Loaded here only: without a GPU nobody needs it.
    const { GpuContext } = await import('../kernels/gpu/context.js')
    this.#device = await GpuContext.acquire(request)
  }

  async fillCache(): Promise<void> {
    await this.#gpu?.fillCache()
  }

  async readCache(layer: number, pages: readonly number[]): Promise<Uint8Array> {
    const bytes = await this.#onGpu().readCache(layer, pages)
    return Comlink.transfer(bytes, [bytes.buffer as ArrayBuffer])
  }

  async writeCache(layer: number, pages: readonly number[], bytes: Uint8Array): Promise<void> {
    await this.#onGpu().writeCache(layer, pages, bytes)
  }

  #onGpu(): GpuRunner {
    if (!this.#gpu) throw new Error('this rank has no device')
    return this.#gpu
  }

  async close(): Promise<void> {
    // Dawn aborts the process when a device goes while something is read back from it.
    await this.#running
    await this.#device?.destroy()
  }

  takeFailure(): RankFailure | undefined {
    const failure = this.#failure
    this.#failure = undefined
    return failure
  }

  async #serve(runner: ModelRunner | GpuRunner, collectives: Collectives): Promise<void> {
    const c = this.#control
    let epoch = Atomics.load(c, CONTROL.doneEpoch)
    for (;;) {
      const published = Atomics.load(c, CONTROL.stepEpoch)
      if (published === epoch) {
        collectives.at('idle')
        // waitAsync, not wait: the port must be served while there is nothing to do.
        const wait = Atomics.waitAsync(c, CONTROL.stepEpoch, published)
        if (wait.async) await wait.value
        continue
      }
      epoch = (epoch + 1) | 0
      // After a failure the steps already published are ended unrun, until the coordinator has cleared the abort word.
      if (!collectives.aborted) {
        const running = this.#runStep(runner, collectives, epoch)
        this.#running = running
        if (running) await running
      }
      this.#end(epoch)
      if (collectives.aborted) await setImmediate()
    }
  }

  /** A promise of a GPU rank's step; a CPU rank's has ended when it returns. */
  #runStep(runner: ModelRunner | GpuRunner, collectives: Collectives, epoch: number): Promise<void> | undefined {
    try {
      return runner.run(epoch)?.catch((error: unknown) => this.#failed(error, collectives))
    } catch (error) {
      this.#failed(error, collectives)
      return undefined
    }
  }

  #failed(error: unknown, collectives: Collectives): void {
    if (error instanceof StepAborted) return
    if (collectives.abort()) this.#failure = describe(error)
  }

  #actOnFault(fault: number, at: number): void {
    if (at !== fault >> 4) return
    Atomics.store(this.#control, rankSlot(this.#rank, RANK.fault), 0)
    const kind = FAULT_KINDS[(fault & 15) - 1]
    const park = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
    if (kind === 'throw') throw new Error('injected fault')
    if (kind === 'exit') process.exit(1)
    if (kind === 'device-lost') this.#gpu?.loseDevice()
    if (kind === 'invalid-command') this.#gpu?.sendInvalidCommand()
    if (kind === 'slow') park(250)
    if (kind === 'hang') park(Number.POSITIVE_INFINITY)
    if (kind === 'out-of-memory') for (const kept: unknown[] = []; ; ) kept.push(new Array(1 << 20).fill(kept.length))
  }

  /** Marks the step as ended here; the last rank tells the coordinator. */
  #end(epoch: number): void {
    const c = this.#control
    Atomics.store(c, rankSlot(this.#rank, RANK.done), epoch)
    for (let rank = 0; rank < this.#ranks; rank++) {
      if (((Atomics.load(c, rankSlot(rank, RANK.done)) - epoch) | 0) < 0) return
    }
    // Two ranks may both see that all have ended: storing the same epoch twice does no harm.
    Atomics.store(c, CONTROL.doneEpoch, epoch)
    Atomics.add(c, CONTROL.attention, 1)
    Atomics.notify(c, CONTROL.attention)
  }
}

function describe(error: unknown): RankFailure {
  const message = error instanceof Error ? error.message : String(error)
  if (error instanceof RankLate) return { code: 'RANK_LATE', message }
  return { code: 'RANK_FAILED', message }
}

/** The attach task: returns once every rank has attached, so that no worker is given two. */
export default async function attach(task: AttachTask): Promise<void> {
  const rank = new Rank(task)
  const control = new Int32Array(task.control)
  Comlink.expose(rank, nodeEndpoint(task.port))
  Atomics.add(control, CONTROL.attached, 1)
  Atomics.notify(control, CONTROL.attached)
  for (;;) {
    const attached = Atomics.load(control, CONTROL.attached)
    if (attached >= task.ranks) return
    const wait = Atomics.waitAsync(control, CONTROL.attached, attached)
    if (wait.async) await wait.value
  }
}
