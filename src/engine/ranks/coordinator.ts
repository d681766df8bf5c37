// The step loop: asks the scheduler for rows, publishes them to the mailbox, takes the results, and restarts the ranks when
// one fails. At most two steps are published at once, so the ranks never wait for this thread. It never blocks the event loop.
import { setImmediate, setTimeout } from 'node:timers/promises'
import { CONTROL, RANK, rankSlot, STEP_RING } from '../../../workers/mailbox/mailbox-layout.js'
import { eventId, type ProfileRecorder } from '../../../workers/profile/profile-recorder.js'
import { FAULT_KINDS, type FaultKind, type RankCount, SITES, type Site } from '../../../workers/protocol.js'
import { EngineClosedError, RankError, TetradError } from '../../errors.js'
import type { Scheduler } from '../scheduling/scheduler.js'
import type { FinishReason, Sequence } from '../scheduling/sequence.js'
import { Mailbox, type RankCounters } from './mailbox.js'
import { explainFailure, lateRanks, progressOf, resetControl } from './rank-failures.js'
import type { RankGroup } from './rank-group.js'
import type { Statistics } from './statistics.js'
import { type LogitsObserver, type PublishedStep, StepOutcomes } from './step-outcomes.js'

export interface CoordinatorInit {
  readonly control: SharedArrayBuffer
  readonly mailbox: SharedArrayBuffer
  readonly ranks: RankCount
  readonly stepRows: number
  readonly slots: number
  readonly pagesPerSlot: number
  readonly deadlineMs: number
  /** Logits rows of a step: by ring index, [stepRows][vocab]. */
  readonly logits: readonly (Float32Array | Float64Array)[]
  readonly vocab: number
  /** Starts the ranks over the memories, which outlive them. */
  readonly startRanks: (onExit: (detail: string) => void) => Promise<RankGroup>
  readonly maxRestarts: number
  readonly restartWindowMs: number
  /** The cache lies in the ranks, and is lost with them. */
  readonly cacheInRanks: boolean
  readonly onRestart: (event: RestartEvent) => void
  /** Where its own work is noted, if a profile is wanted. */
  readonly recorder: ProfileRecorder | undefined
}

/** The ranks were started anew after a failure. */
export interface RestartEvent {
  readonly reason: TetradError
  /** From noticing the failure to the ranks being ready. */
  readonly recoveryMs: number
  /** Requests whose running steps were computed again. */
  readonly replayed: number
}

/** Extra time for the ranks to name the late one before this thread gives up on all of them. */
const GRACE_MS = 1000
const YIELD_MS = 5

const SCHEDULE = eventId('schedule')
const RESULTS = eventId('results')

export class Coordinator {
  readonly #init: CoordinatorInit
  readonly #control: Int32Array
  readonly #mailbox: Mailbox
  readonly #scheduler: Scheduler
  readonly #statistics: Statistics
  readonly #outcomes: StepOutcomes
  readonly #published: PublishedStep[] = []
  readonly #restartTimes: number[] = []
  #group: RankGroup | undefined
  /** Tells a thread of the current group from one that was replaced. */
  #generation = 0
  #epoch = 0
  #looping: Promise<void> | undefined
  /** The ranks must be restarted before the next step. */
  #down: TetradError | undefined
  /** Nothing is served any more. */
  #fatal: TetradError | undefined

  constructor(init: CoordinatorInit, scheduler: Scheduler, statistics: Statistics) {
    this.#init = init
    this.#control = new Int32Array(init.control)
    this.#mailbox = new Mailbox(init.mailbox, init.stepRows, init.slots, init.pagesPerSlot)
    this.#scheduler = scheduler
    this.#statistics = statistics
    const ends = {
      finish: (sequence: Sequence, reason: FinishReason, by?: number) => this.#finish(sequence, reason, by),
      reject: (sequence: Sequence, error: TetradError) => this.reject(sequence, error),
    }
    this.#outcomes = new StepOutcomes(this.#mailbox, init.logits, init.vocab, scheduler, statistics, ends)
  }

  /** Sees each row of logits that a step leaves (tetrad/testing). */
  set observer(observer: LogitsObserver | undefined) {
    this.#outcomes.observer = observer
  }

  /** Starts the ranks for the first time; throws what starting them throws. */
  async start(): Promise<void> {
    this.#group = await this.#startGroup()
  }

  get group(): RankGroup {
    if (!this.#group) throw new EngineClosedError('ENGINE_CLOSED', { what: 'the ranks are not running', remedy: 'Load another engine.' })
    return this.#group
  }

  /** Queues a sequence. Its sink hears everything else, the engine's failure included. */
  submit(sequence: Sequence): void {
    if (this.#fatal) {
      sequence.sink.onError(this.#fatal)
      return
    }
    this.#scheduler.add(sequence)
    this.wake()
  }

  /** Something can be scheduled again. */
  wake(): void {
    this.#looping ??= this.#loop()
  }

  /** Ends a sequence now; what is in flight for it is dropped. */
  abort(sequence: Sequence): void {
    if (sequence.ended) return
    this.#scheduler.end(sequence)
    sequence.sink.onFinish('abort')
  }

  /** Ends a sequence whose text has come to a stop string. */
  stop(sequence: Sequence): void {
    this.#finish(sequence, 'stop')
  }

  /** Ends a sequence with an error. */
  reject(sequence: Sequence, error: TetradError): void {
    if (sequence.ended) return
    this.#scheduler.end(sequence)
    sequence.sink.onError(error)
  }

  /** Lets what was submitted run for up to drainMs, fails the rest, and ends the threads. */
  async close(drainMs: number): Promise<void> {
    const end = performance.now() + drainMs
    while (!this.#scheduler.idle && !this.#fatal && performance.now() < end) await setTimeout(Math.min(10, Math.max(1, end - performance.now())))
    this.#fatal ??= new EngineClosedError('ENGINE_CLOSED', { what: 'the engine was closed', remedy: 'Load another one.' })
    Atomics.notify(this.#control, CONTROL.attention)
    await this.#looping
    this.#failAll(this.#fatal)
    await this.#closeGroup()
  }

  get fatal(): TetradError | undefined {
    return this.#fatal
  }

  counters(rank: number): RankCounters {
    return this.#mailbox.counters(rank)
  }

  /** Arms a fault in a rank, for when it next comes to the site. */
  injectFault(rank: number, kind: FaultKind, site: Site): void {
    Atomics.store(this.#control, rankSlot(rank, RANK.fault), 1 + FAULT_KINDS.indexOf(kind) + 16 * SITES.indexOf(site))
  }

  async #loop(): Promise<void> {
    // A pending waitAsync does not keep Node alive; a timer does while there is work.
    const alive = setInterval(() => {}, 0x7fffffff)
    try {
      // Submitting must return before any sink is called.
      await Promise.resolve()
      let yielded = performance.now()
      while (!this.#fatal) {
        // When the ranks are always ahead no wait ever gives the event loop a turn: take one now and then.
        if (performance.now() - yielded > YIELD_MS) {
          await setImmediate()
          yielded = performance.now()
        }
        if (this.#down) {
          await this.#restart(this.#down)
          continue
        }
        while (this.#published.length < STEP_RING && this.#publish()) {}
        const step = this.#published[0]
        if (!step) break
        this.#down ??= await this.#completion(step.epoch)
        if (this.#down || this.#fatal) continue
        const noted = this.#init.recorder?.now()
        this.#published.shift()
        this.#outcomes.take(step)
        if (noted !== undefined) this.#init.recorder?.add(RESULTS, noted)
      }
      if (this.#fatal) this.#failAll(this.#fatal)
    } finally {
      clearInterval(alive)
      this.#looping = undefined
    }
  }

  #publish(): boolean {
    const start = performance.now()
    const noted = this.#init.recorder?.now()
    const rows = this.#scheduler.next()
    if (rows.length === 0) return false
    const epoch = (this.#epoch + 1) | 0
    this.#epoch = epoch
    const copies = this.#scheduler.takeCopies()
    this.#mailbox.write(epoch, rows, copies)
    this.#published.push({ epoch, rows, copies })
    Atomics.store(this.#control, CONTROL.stepEpoch, epoch)
    Atomics.notify(this.#control, CONTROL.stepEpoch)
    this.#statistics.scheduling.add(performance.now() - start)
    if (noted !== undefined) this.#init.recorder?.add(SCHEDULE, noted)
    return true
  }

  /** Resolves when every rank has ended the step, or with why they never will. */
  async #completion(epoch: number): Promise<TetradError | undefined> {
    const c = this.#control
    let progress = progressOf(this.#control, this.#init.ranks)
    let end = performance.now() + this.#init.deadlineMs + GRACE_MS
    for (;;) {
      // Read before what it announces: a change after this makes the wait return at once.
      const attention = Atomics.load(c, CONTROL.attention)
      const done = Atomics.load(c, CONTROL.doneEpoch)
      if (this.#down || this.#fatal) return this.#down
      if (Atomics.load(c, CONTROL.abort) !== 0) return explainFailure(this.#control, this.#group)
      if (((done - epoch) | 0) >= 0) return undefined
      const left = end - performance.now()
      if (left <= 0) {
        // A long step is not late as long as some rank gets on: the deadline is for what they wait for, not for the work.
        const now = progressOf(this.#control, this.#init.ranks)
        if (now === progress) return lateRanks(this.#control, this.#init.ranks, epoch, this.#init.deadlineMs)
        progress = now
        end = performance.now() + this.#init.deadlineMs + GRACE_MS
        continue
      }
      const wait = Atomics.waitAsync(c, CONTROL.attention, attention, left)
      if (wait.async) await wait.value
    }
  }

  #finish(sequence: Sequence, reason: FinishReason, by?: number): void {
    if (sequence.ended) return
    this.#scheduler.end(sequence)
    sequence.sink.onFinish(reason, by)
  }

  /**
   * Ends the threads and starts others over the same memories. Weights and completed cache rows are still there; what was
   * in flight is scheduled again, and by the determinism contract gives the same bits.
   */
  async #restart(reason: TetradError): Promise<void> {
    const start = performance.now()
    const recent = this.#restartTimes.filter((at) => start - at < this.#init.restartWindowMs)
    this.#restartTimes.splice(0, this.#restartTimes.length, ...recent, start)
    if (recent.length >= this.#init.maxRestarts) {
      this.#fatal = new RankError(reason.code, {
        what: `${reason.what}; the ranks were restarted ${recent.length} times within ${this.#init.restartWindowMs} ms already`,
        remedy: 'Close this engine and load another; look at what ends the ranks.',
        cause: reason,
      })
      return
    }
    await this.#closeGroup()
    resetControl(this.#control, this.#init.ranks, this.#epoch)
    const steps = this.#published.splice(0)
    const replayed = new Set(steps.flatMap((step) => [...step.rows, ...step.copies].map(({ sequence }) => sequence)))
    for (const sequence of replayed) this.#scheduler.rollBack(sequence)
    // On a GPU the cache went with the device.
    if (this.#init.cacheInRanks) this.#scheduler.loseCache()
    this.#down = undefined
    try {
      this.#group = await this.#startGroup()
    } catch (error) {
      this.#down ??=
        error instanceof TetradError ? error : new RankError('RANK_FAILED', { what: String(error), remedy: 'See the cause.', cause: error })
      return
    }
    this.#statistics.restarts++
    this.#init.onRestart({ reason, recoveryMs: performance.now() - start, replayed: replayed.size })
  }

  async #startGroup(): Promise<RankGroup> {
    const generation = ++this.#generation
    return this.#init.startRanks((detail) => {
      if (generation !== this.#generation || this.#fatal) return
      this.#down ??= new RankError('RANK_EXITED', { what: detail, remedy: 'The engine restarts its ranks.' })
      // Wakes the wait for the step; if there is none, the loop starts in order to restart the ranks at once.
      Atomics.notify(this.#control, CONTROL.attention)
      this.wake()
    })
  }

  async #closeGroup(): Promise<void> {
    const group = this.#group
    this.#group = undefined
    this.#generation++
    await group?.close()
  }

  #failAll(error: TetradError): void {
    this.#published.length = 0
    for (const sequence of this.#scheduler.sequences) {
      this.#scheduler.end(sequence)
      sequence.sink.onError(error)
    }
  }
}
