// The worker of one rank. The piscina task attaches it and returns; then it serves steps from the mailbox and its control
// plane from the port, until the pool is destroyed.
import { setImmediate } from 'node:timers/promises'
import * as Comlink from 'comlink'
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs'
import type { DeviceShortage, GpuRequest } from '../kernels/gpu/adapter.js'
import type { GpuContext } from '../kernels/gpu/context.js'
import { Collectives, RankLate, StepAborted } from './collectives/collectives.js'
import { ModelRunner } from './cpu/model-runner.js'
import { FaultInjector } from './fault-injector.js'
import { CONTROL, RANK, rankSlot } from './mailbox/control.js'
import { ProfileRecorder } from './profile/profile-recorder.js'
import type { AttachTask, RankApi, RankFailure, RankInit, RankReport } from './protocol.js'
import type { DeviceCache, RankRunner } from './rank-runner.js'

class Rank implements RankApi {
  readonly #rank: number
  readonly #ranks: number
  readonly #control: Int32Array
  #device: GpuContext | undefined
  #runner: RankRunner | undefined
  #failure: RankFailure | undefined
  #running: Promise<void> | undefined

  constructor(task: AttachTask) {
    this.#rank = task.rank
    this.#ranks = task.ranks
    this.#control = new Int32Array(task.control)
  }

  async load(init: RankInit): Promise<RankReport | DeviceShortage> {
    const recorder = init.profile && new ProfileRecorder(init.profile)
    let faults: FaultInjector | undefined
    const onFault = (fault: number, stage: number) => {
      faults ??= new FaultInjector(this.#control, this.#rank, this.#device)
      faults.act(fault, stage)
    }
    const { spins, deadlineMs } = init
    const place = { control: this.#control, rank: this.#rank, ranks: this.#ranks }
    const collectives = new Collectives(place, { spins, deadlineMs, onFault, recorder })
    const runner = await this.#open(init, collectives, recorder)
    if ('what' in runner) return runner
    this.#runner = runner
    void this.#serve(runner, collectives)
    return runner.report
  }

  async #open(init: RankInit, collectives: Collectives, recorder: ProfileRecorder | undefined): Promise<RankRunner | DeviceShortage> {
    if (init.plan.backend !== 'gpu') return new ModelRunner(this.#rank, init, collectives, recorder)
    if (!this.#device) throw new Error('acquireGpu must come before load')
    // Loaded here only: CPU ranks do not need them.
    const { GpuRunner } = await import('./gpu/runner.js')
    const { DeviceMemory } = await import('../kernels/gpu/context.js')
    return GpuRunner.create(this.#rank, init, collectives, this.#device, recorder).catch((error: unknown) => {
      if (error instanceof DeviceMemory) return error.shortage
      throw error
    })
  }

  async acquireGpu(request: GpuRequest): Promise<void> {
    // Loaded here only: CPU ranks do not need it.
    const { GpuContext } = await import('../kernels/gpu/context.js')
    this.#device = await GpuContext.acquire(request, (count) => Atomics.store(this.#control, rankSlot(this.#rank, RANK.pending), count))
  }

  async fillCache(): Promise<void> {
    await this.#deviceCache().fill()
  }

  async readCache(layer: number, pages: readonly number[]): Promise<Uint8Array> {
    const bytes = await this.#deviceCache().read(layer, pages)
    return Comlink.transfer(bytes, [bytes.buffer as ArrayBuffer])
  }

  async writeCache(layer: number, pages: readonly number[], bytes: Uint8Array): Promise<void> {
    await this.#deviceCache().write(layer, pages, bytes)
  }

  #deviceCache(): DeviceCache {
    const cache = this.#runner?.cache
    if (!cache) throw new Error('the cache of this rank is not on a device')
    return cache
  }

  async close(): Promise<void> {
    // Dawn aborts the process when a device is destroyed while something is read back from it.
    this.#device?.cancelMaps()
    await this.#running
    await this.#device?.destroy()
  }

  takeFailure(): RankFailure | undefined {
    const failure = this.#failure
    this.#failure = undefined
    return failure
  }

  async #serve(runner: RankRunner, collectives: Collectives): Promise<void> {
    const c = this.#control
    let epoch = Atomics.load(c, CONTROL.doneEpoch)
    for (;;) {
      const published = Atomics.load(c, CONTROL.stepEpoch)
      if (published === epoch) {
        collectives.enter('idle')
        // waitAsync, not wait: the port must be served while the rank is idle.
        const wait = Atomics.waitAsync(c, CONTROL.stepEpoch, published)
        if (wait.async) await wait.value
        continue
      }
      epoch = (epoch + 1) | 0
      // After a failure, steps that are already published end without running, until the coordinator clears the abort word.
      if (!collectives.aborted) {
        const running = this.#runStep(runner, collectives, epoch)
        this.#running = running
        if (running) await running
      }
      this.#end(epoch)
      if (collectives.aborted) await setImmediate()
    }
  }

  /** See RankRunner.run; a failure aborts the step for all ranks. */
  #runStep(runner: RankRunner, collectives: Collectives, epoch: number): Promise<void> | undefined {
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

  /** Marks the step as ended here; the last rank tells the coordinator. */
  #end(epoch: number): void {
    const c = this.#control
    Atomics.store(c, rankSlot(this.#rank, RANK.done), epoch)
    for (let rank = 0; rank < this.#ranks; rank++) {
      if (((Atomics.load(c, rankSlot(rank, RANK.done)) - epoch) | 0) < 0) return
    }
    // Two ranks may both see that all have ended: storing the same epoch twice does no harm.
    Atomics.store(c, CONTROL.doneEpoch, epoch)
    Atomics.add(c, CONTROL.coordinatorWake, 1)
    Atomics.notify(c, CONTROL.coordinatorWake)
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
