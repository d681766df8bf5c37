// The step loop: asks the scheduler for rows, publishes them to the mailbox, commits the results, and restarts the ranks when
// one fails. At most two steps are published at once, so the ranks never wait for this thread. It never blocks the event loop.
import { setImmediate, setTimeout } from 'node:timers/promises'
import { encodeFault } from '../../../workers/fault-injector.js'
import { CONTROL, RANK, rankSlot } from '../../../workers/mailbox/control.js'
import { ROW_FLAGS, STEP_RING } from '../../../workers/mailbox/mailbox-layout.js'
import { eventId, type ProfileRecorder } from '../../../workers/profile/profile-recorder.js'
import type { FaultKind, RunPlan, Stage } from '../../../workers/protocol.js'
import { EngineClosedError, RankError, TetradError } from '../../errors.js'
import type { PageCopy } from '../scheduling/prefix-cache.js'
import type { Scheduler, StepRow } from '../scheduling/scheduler.js'
import type { Sequence } from '../scheduling/sequence.js'
import type { LogitsObserver, LogitsRow } from '../scheduling/step-outcome.js'
import { Mailbox, type RankCounters } from './mailbox.js'
import { explainFailure, lateRanks, progressOf, resetControl } from './rank-failures.js'
import type { RankGroup } from './rank-group.js'
import type { Statistics } from './statistics.js'

export interface CoordinatorInit {
  readonly control: SharedArrayBuffer
  readonly mailbox: SharedArrayBuffer
  readonly plan: RunPlan
  readonly deadlineMs: number
  /** Logits rows of a step: by ring index, [stepRows][vocab]. */
  readonly logits: readonly LogitsRow[]
  readonly vocab: number
  /** Starts the ranks over the memories, which outlive them. */
  readonly startRanks: (onExit: (detail: string) => void) => Promise<RankGroup>
  readonly maxRestarts: number
  readonly restartWindowMs: number
  /** The cache lies on the ranks' devices, and is lost with them. */
  readonly cacheInRanks: boolean
  readonly onRestart: (event: RestartEvent) => void
  /** Where the coordinator's own work is recorded, if a profile is wanted. */
  readonly recorder: ProfileRecorder | undefined
}

/** The ranks were restarted after a failure. */
export interface RestartEvent {
  readonly reason: TetradError
  /** From noticing the failure to the ranks being ready. */
  readonly recoveryMs: number
  /** Requests whose running steps were computed again. */
  readonly replayed: number
}

interface PublishedStep {
  readonly epoch: number
  readonly rows: readonly StepRow[]
  readonly copies: readonly PageCopy[]
  readonly promptRows: number
  readonly publishedAt: number
}

/** Extra time for the ranks to name the late one before this thread gives up on all of them. */
const GRACE_MS = 1000
const YIELD_MS = 5
/** How often a wait for the ranks looks at its deadline. */
const WATCH_MS = 250

const SCHEDULE = eventId('schedule')
const RESULTS = eventId('results')

export class Coordinator {
  readonly #init: CoordinatorInit
  readonly #control: Int32Array
  readonly #mailbox: Mailbox
  readonly #scheduler: Scheduler
  readonly #statistics: Statistics
  readonly #published: PublishedStep[] = []
  readonly #restartTimes: number[] = []
  #group: RankGroup | undefined
  /** Of the current group: tells its threads from those of a group that was replaced. */
  #groupId = 0
  #epoch = 0
  #lastEnded = 0
  #looping: Promise<void> | undefined
  /** Sees each row of logits that a step leaves (tetrad/testing). */
  observer: LogitsObserver | undefined
  /** The ranks must be restarted before the next step. */
  #down: TetradError | undefined
  /** Set once: no request is served any more. */
  #fatal: TetradError | undefined

  constructor(init: CoordinatorInit, scheduler: Scheduler, statistics: Statistics) {
    this.#init = init
    this.#control = new Int32Array(init.control)
    this.#mailbox = new Mailbox(init.mailbox, { ...init.plan, vocab: init.vocab }, init.logits)
    this.#scheduler = scheduler
    this.#statistics = statistics
  }

  /** Starts the ranks for the first time; throws what starting them throws. */
  async start(): Promise<void> {
    this.#group = await this.#startGroup()
  }

  get group(): RankGroup {
    if (!this.#group) throw new EngineClosedError('ENGINE_CLOSED', { what: 'the ranks are not running', remedy: 'Load another engine.' })
    return this.#group
  }

  /** Queues a sequence. Everything else goes to its sink, the engine's failure included. */
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

  /** A sequence's constraint has become ready: its row in flight gets the mask, or it can be scheduled. */
  maskReady(sequence: Sequence): void {
    if (!this.#mailbox.offerMask(sequence)) this.wake()
  }

  /** Ends a sequence now; its results in flight are dropped. */
  abort(sequence: Sequence): void {
    this.#scheduler.finish(sequence, 'abort')
  }

  /** Ends a sequence whose text has come to a stop string. */
  stop(sequence: Sequence): void {
    this.#scheduler.finish(sequence, 'stop')
  }

  /** Ends a sequence with an error. */
  reject(sequence: Sequence, error: TetradError): void {
    this.#scheduler.reject(sequence, error)
  }

  /** Lets what was submitted run for up to drainMs, fails the rest, and ends the threads. */
  async close(drainMs: number): Promise<void> {
    const end = performance.now() + drainMs
    while (!this.#scheduler.idle && !this.#fatal && performance.now() < end) await setTimeout(Math.min(10, Math.max(1, end - performance.now())))
    this.#fatal ??= new EngineClosedError('ENGINE_CLOSED', { what: 'the engine was closed', remedy: 'Load another one.' })
    Atomics.notify(this.#control, CONTROL.coordinatorWake)
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

  /** Arms a fault in a rank: it happens when the rank next enters the stage. */
  injectFault(rank: number, kind: FaultKind, stage: Stage): void {
    Atomics.store(this.#control, rankSlot(rank, RANK.fault), encodeFault(kind, stage))
  }

  async #loop(): Promise<void> {
    // A pending waitAsync does not keep Node alive; a timer does while there is work. It also lets #completion look at the time: a wait with
    // a timeout of its own would leave a timer behind for each step, until the deadline.
    const watch = setInterval(() => Atomics.notify(this.#control, CONTROL.coordinatorWake), WATCH_MS)
    try {
      // submit must return before any sink is called.
      await Promise.resolve()
      let yielded = performance.now()
      while (!this.#fatal) {
        // When the ranks are always ahead, no wait below yields to the event loop: yield now and then.
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
        const startedAt = this.#init.recorder?.now()
        this.#published.shift()
        this.#commit(step)
        if (startedAt !== undefined) this.#init.recorder?.add(RESULTS, startedAt)
      }
      if (this.#fatal) this.#failAll(this.#fatal)
    } finally {
      clearInterval(watch)
      this.#looping = undefined
    }
  }

  #commit({ epoch, rows, promptRows, publishedAt }: PublishedStep): void {
    const ended = performance.now()
    // The ranks begin a step when the one before has ended.
    this.#scheduler.pace.note(promptRows, ended - Math.max(publishedAt, this.#lastEnded))
    this.#lastEnded = ended
    const tokens = this.#scheduler.commit(rows, this.#mailbox.outcome(epoch, this.observer))
    const now = performance.now()
    for (let i = 0; i < tokens; i++) this.#statistics.token(now)
  }

  /** False: there is nothing to run now. */
  #publish(): boolean {
    const start = performance.now()
    const startedAt = this.#init.recorder?.now()
    const rows = this.#observed(this.#scheduler.next())
    if (rows.length === 0) return false
    const epoch = (this.#epoch + 1) | 0
    this.#epoch = epoch
    const copies = this.#scheduler.takeCopies()
    this.#mailbox.write(epoch, rows, copies)
    this.#published.push({ epoch, rows, copies, promptRows: this.#scheduler.promptRows, publishedAt: start })
    Atomics.store(this.#control, CONTROL.stepEpoch, epoch)
    Atomics.notify(this.#control, CONTROL.stepEpoch)
    this.#statistics.scheduling.add(performance.now() - start)
    if (startedAt !== undefined) this.#init.recorder?.add(SCHEDULE, startedAt)
    return true
  }

  /** With an observer no row's logits may stay on a device. */
  #observed(rows: StepRow[]): StepRow[] {
    if (!this.observer) return rows
    return rows.map((row) => (row.flags === 0 ? row : { ...row, flags: row.flags | ROW_FLAGS.observed }))
  }

  /** Resolves when every rank has ended the step (undefined), or with the reason why they will not. */
  async #completion(epoch: number): Promise<TetradError | undefined> {
    const c = this.#control
    let progress = progressOf(this.#control, this.#init.plan.ranks)
    let end = performance.now() + this.#init.deadlineMs + GRACE_MS
    for (;;) {
      // Read before the words that it announces: a change after this makes the wait return at once.
      const wake = Atomics.load(c, CONTROL.coordinatorWake)
      const done = Atomics.load(c, CONTROL.doneEpoch)
      if (this.#down || this.#fatal) return this.#down
      if (Atomics.load(c, CONTROL.abort) !== 0) return explainFailure(this.#control, this.#group)
      if (((done - epoch) | 0) >= 0) return undefined
      if (performance.now() >= end) {
        // A long step is not late as long as some rank makes progress: the deadline limits waits, not work.
        const now = progressOf(this.#control, this.#init.plan.ranks)
        if (now === progress) return lateRanks(this.#control, this.#init.plan.ranks, epoch, this.#init.deadlineMs)
        progress = now
        end = performance.now() + this.#init.deadlineMs + GRACE_MS
        continue
      }
      const wait = Atomics.waitAsync(c, CONTROL.coordinatorWake, wake)
      if (wait.async) await wait.value
    }
  }

  /**
   * Ends the threads and starts others over the same memories. Weights and completed cache rows survive; rows in flight are
   * scheduled again, and by the determinism contract give the same bits.
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
    resetControl(this.#control, this.#init.plan.ranks, this.#epoch)
    const steps = this.#published.splice(0)
    const replayed = new Set(steps.flatMap((step) => [...step.rows, ...step.copies].map(({ sequence }) => sequence)))
    for (const sequence of replayed) this.#scheduler.rollBack(sequence)
    // On a GPU the cache is lost with the device.
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
    const id = ++this.#groupId
    return this.#init.startRanks((detail) => {
      if (id !== this.#groupId || this.#fatal) return
      this.#down ??= new RankError('RANK_EXITED', { what: detail, remedy: 'The engine restarts its ranks.' })
      // Wakes the wait for the step; if there is none, the loop starts, to restart the ranks at once.
      Atomics.notify(this.#control, CONTROL.coordinatorWake)
      this.wake()
    })
  }

  async #closeGroup(): Promise<void> {
    const group = this.#group
    this.#group = undefined
    this.#groupId++
    await group?.close()
  }

  #failAll(error: TetradError): void {
    this.#published.length = 0
    for (const sequence of this.#scheduler.sequences) this.#scheduler.reject(sequence, error)
  }
}
