// The worker threads of an engine: started by piscina, attached once, driven over comlink. Owns the pool and the ports;
// the memories are the engine's.

import { setTimeout } from 'node:timers/promises'
import { MessageChannel, type MessagePort, type Worker } from 'node:worker_threads'
import * as Comlink from 'comlink'
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs'
import { Piscina } from 'piscina'
import { type DeviceShortage, deviceEnvironment, requestOf } from '../../../kernels/gpu/adapter.js'
import { loadDawn } from '../../../kernels/gpu/context.js'
import { RANK, rankSlot } from '../../../workers/mailbox/control.js'
import type { AttachTask, RankApi, RankFailure, RankInit, RankReport } from '../../../workers/protocol.js'
import { assetUrl } from '../../assets.js'
import { MemoryError, RankError } from '../../errors.js'
import { mib } from '../../mib.js'
import { endingPool } from './pool-threads.js'

/** How long a rank may take to free its device when nothing is pending there. */
const CLOSE_MS = 2000
/** How often ranks are looked at whose devices have not answered. */
const PENDING_POLL_MS = 20
/** threadId of a thread that has ended. */
const DEAD = -1

function ofRank(rank: number) {
  return (cause: unknown): never => {
    throw new Error(`rank ${rank}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
  }
}

function reportOf(answer: RankReport | DeviceShortage, rank: number): RankReport {
  if ('backend' in answer) return answer
  const { what, askedBytes, hadBytes, fitsTokens } = answer
  throw new MemoryError('MEMORY_EXHAUSTED', {
    what: `the GPU of rank ${rank} ran out of device memory: ${what}`,
    expected: `${mib(askedBytes)} for it`,
    actual: hadBytes > 0 ? mib(hadBytes) : 'less',
    remedy:
      fitsTokens === undefined
        ? 'Choose bf16 or int8 weights, more ranks on more devices, or fewer cacheTokens.'
        : `cacheTokens: ${fitsTokens} would fit.`,
  })
}

interface RankHandle {
  readonly api: Comlink.Remote<RankApi>
  readonly port: MessagePort
}

export class RankGroup {
  readonly #pool: Piscina
  readonly #end: () => Promise<void>
  readonly #ranks: readonly RankHandle[]
  readonly #pending: PendingWork
  #closing = false
  /** What each rank really runs on, as it reported. */
  readonly reports: readonly RankReport[]

  private constructor(pool: Piscina, end: () => Promise<void>, ranks: readonly RankHandle[], pending: PendingWork, reports: readonly RankReport[]) {
    this.#pending = pending
    this.#pool = pool
    this.#end = end
    this.#ranks = ranks
    this.reports = reports
  }

  /** Starts the threads. `inits[r]` belongs to rank r. `onExit` is called if a thread ends before close. */
  static async start(inits: readonly RankInit[], control: SharedArrayBuffer, onExit: (detail: string) => void): Promise<RankGroup> {
    const count = inits.length
    const pool = new Piscina({
      filename: assetUrl('dist/workers/rank.js').href,
      minThreads: count,
      maxThreads: count,
      concurrentTasksPerWorker: 1,
      // With atomics piscina's own idle wait would block the thread, and our port with it.
      atomics: 'disabled',
      idleTimeout: Number.POSITIVE_INFINITY,
      // A rank's JavaScript heap holds views and counters only; one that exceeds this is broken, and is restarted.
      resourceLimits: { maxOldGenerationSizeMb: 256 },
    })
    const end = endingPool(pool)
    const pending = new PendingWork(new Int32Array(control), count, inits[0]?.deadlineMs ?? 0)
    let ended = (_detail: string) => {}
    // Piscina emits an error when a thread fails between tasks; without a listener it would end the process.
    pool.on('error', (error: Error) => ended(`a worker thread failed: ${error.message}`))
    // While starting, a thread's exit rejects `died`: a call to it would never be answered.
    const died = new Promise<never>((_, reject) => {
      ended = (detail) => reject(new Error(detail))
    })
    died.catch(() => {})
    for (const thread of pool.threads as Worker[]) thread.once('exit', (code) => ended(`a worker thread exited with code ${code}`))
    try {
      const channels = inits.map(() => new MessageChannel())
      const attached = channels.map(({ port2 }, rank) => {
        const task: AttachTask = { rank, ranks: inits[0]?.plan.ranks ?? 1, port: port2, control }
        return pool.run(task, { transferList: [port2] })
      })
      const ranks = channels.map(({ port1 }): RankHandle => ({ port: port1, api: Comlink.wrap<RankApi>(nodeEndpoint(port1)) }))
      await Promise.race([Promise.all(attached), died])
      const settings = inits[0]?.plan.gpu
      if (settings) {
        // In this thread too: otherwise the addon is unloaded with the last rank's thread, while threads of its own still run.
        await loadDawn()
        for (const [rank, { api }] of ranks.entries()) {
          await within(deviceEnvironment(settings, rank), () => Promise.race([api.acquireGpu(requestOf(settings, rank)).catch(ofRank(rank)), died]))
        }
      }
      const loaded = await Promise.race([Promise.all(ranks.map(({ api }, rank) => api.load(inits[rank] as RankInit))), died])
      const reports = loaded.map(reportOf)
      const group = new RankGroup(pool, end, ranks, pending, reports)
      ended = (detail) => {
        if (!group.#closing) onExit(detail)
      }
      // Idle ports must not keep the process alive.
      for (const { port } of ranks) port.unref()
      return group
    } catch (cause) {
      await pending.ended(pool.threads as Worker[])
      await end()
      if (cause instanceof MemoryError) throw cause
      throw new RankError('RANK_FAILED', {
        what: 'the ranks could not be started',
        actual: cause instanceof Error ? cause.message : String(cause),
        remedy: inits[0]?.plan.gpu
          ? 'Run tetrad doctor: it shows the adapters and what is missing.'
          : 'See the cause; fewer ranks need fewer threads.',
        cause,
      })
    }
  }

  takeFailure(rank: number): Promise<RankFailure | undefined> {
    return this.#call(rank, (api) => api.takeFailure())
  }

  /** See RankApi. */
  async fillCaches(): Promise<void> {
    for (const rank of this.#ranks.keys()) await this.#call(rank, (api) => api.fillCache())
  }

  /** See RankApi; of a GPU rank only. */
  readCache(rank: number, layer: number, pages: readonly number[]): Promise<Uint8Array> {
    return inTime(
      rank,
      this.#call(rank, (api) => api.readCache(layer, pages)),
    )
  }

  writeCache(rank: number, layer: number, pages: readonly number[], bytes: Uint8Array): Promise<void> {
    return inTime(
      rank,
      this.#call(rank, (api) => api.writeCache(layer, pages, bytes)),
    )
  }

  /** The thread of a rank, for tests that end it from outside. */
  threads(): readonly Worker[] {
    return this.#pool.threads as Worker[]
  }

  async close(): Promise<void> {
    this.#closing = true
    // A GPU device outlives its thread unless it is freed there; a rank that hangs or is dead does not answer.
    if (this.reports.some((report) => report.backend === 'gpu')) await this.#closeDevices()
    for (const { port } of this.#ranks) port.close()
    await this.#end()
  }

  /**
   * Frees the ranks' devices, and ends their threads one after another: drivers (NVIDIA's, seen with four ranks) crash where
   * several threads take Dawn down at once.
   */
  async #closeDevices(): Promise<void> {
    const threads = this.threads().slice()
    for (const rank of this.#ranks.keys()) {
      const closed = this.#call(rank, (api) => api.close()).catch(() => {})
      await Promise.race([closed, setTimeout(CLOSE_MS, undefined, { ref: false })])
    }
    await this.#pending.ended(threads)
    for (const thread of threads) await thread.terminate()
  }

  /** A call with its port referenced, so that the process waits for the answer. */
  async #call<T>(rank: number, call: (api: Comlink.Remote<RankApi>) => Promise<T>): Promise<T> {
    const handle = this.#ranks[rank]
    if (!handle) throw new RangeError(`no rank ${rank} of ${this.#ranks.length}`)
    handle.port.ref()
    try {
      return await call(handle.api)
    } finally {
      handle.port.unref()
    }
  }
}

/** What the ranks' devices have not answered, as the control words say: a rank that waits for its device may not answer a call. */
class PendingWork {
  readonly #control: Int32Array
  readonly #ranks: number
  readonly #deadlineMs: number

  /** deadlineMs: of a step, after which a device is taken to be dead. */
  constructor(control: Int32Array, ranks: number, deadlineMs: number) {
    this.#control = control
    this.#ranks = ranks
    this.#deadlineMs = deadlineMs
  }

  /** Resolves when nothing is pending on the ranks' devices, when the threads are dead, or at the deadline of a step. */
  async ended(threads: readonly Worker[]): Promise<void> {
    const until = performance.now() + this.#deadlineMs
    const isAlive = () => threads.some((thread) => thread.threadId !== DEAD)
    while (this.#any && isAlive() && performance.now() < until) await setTimeout(PENDING_POLL_MS)
  }

  get #any(): boolean {
    return Array.from({ length: this.#ranks }, (_, rank) => Atomics.load(this.#control, rankSlot(rank, RANK.pending))).some((count) => count > 0)
  }
}

/** The environment belongs to the whole process: engines that load at the same time change it one after another. */
let environmentFree: Promise<unknown> = Promise.resolve()

/** Runs `work` with variables of the process's environment set, which native code of all threads sees. */
function within<T>(environment: Readonly<Record<string, string>> | undefined, work: () => Promise<T>): Promise<T> {
  const turn = environmentFree.then(async () => {
    const before = Object.keys(environment ?? {}).map((name) => [name, process.env[name]] as const)
    Object.assign(process.env, environment)
    try {
      return await work()
    } finally {
      for (const [name, value] of before) {
        if (value === undefined) delete process.env[name]
        else process.env[name] = value
      }
    }
  })
  environmentFree = turn.catch(() => {})
  return turn
}

/** Deadline for reading or writing pages of a device. */
const PAGES_MS = 30_000

/** Rejects with RankError at the deadline: a dead thread never answers. */
async function inTime<T>(rank: number, work: Promise<T>): Promise<T> {
  const done = new AbortController()
  const late = setTimeout(PAGES_MS, undefined, { signal: done.signal }).then(
    () => {
      throw new RankError('RANK_LATE', {
        what: `rank ${rank} did not read or write pages of its cache`,
        expected: `an answer within ${PAGES_MS} ms`,
        actual: 'none',
        remedy: 'Save or load the snapshot again.',
      })
    },
    () => undefined as never,
  )
  try {
    return await Promise.race([work, late])
  } finally {
    done.abort()
  }
}
