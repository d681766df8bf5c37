// The step loop: asks the scheduler for rows, publishes them to the mailbox, takes the results, and handles failures.
// At most two steps are published at once, so the ranks never wait for this thread. It never blocks the event loop.
import { setImmediate } from 'node:timers/promises'
import { CONTROL, COUNTERS, layoutMailbox, type MailboxLayout, RANK, ROW, ROW_FLAGS, rankSlot, STEP_HEADER, STEP_RING } from '../../workers/layout.js'
import { type RankCount, SITES } from '../../workers/protocol.js'
import { EngineClosedError, RankError, type TetradError } from '../errors.js'
import type { RankGroup } from './rank-group.js'
import type { Scheduler, StepRow } from './scheduler.js'
import type { FinishReason, Sequence } from './sequence.js'

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
}

/** Extra time for the ranks to name the late one before this thread gives up on all of them. */
const GRACE_MS = 1000

const YIELD_MS = 5

interface PublishedStep {
  readonly epoch: number
  readonly rows: readonly StepRow[]
}

/** Bytes that a rank has read since it was loaded. */
export interface RankCounters {
  readonly shardedWeightBytes: number
  readonly replicatedWeightBytes: number
  readonly cacheBytes: number
  readonly steps: number
}

export type LogitsObserver = (sequence: Sequence, position: number, logits: Float32Array | Float64Array) => void

export class Coordinator {
  readonly #init: CoordinatorInit
  readonly #control: Int32Array
  readonly #ints: Int32Array
  readonly #floats: Float32Array
  readonly #layout: MailboxLayout
  readonly #scheduler: Scheduler
  readonly #published: PublishedStep[] = []
  #group: RankGroup | undefined
  #epoch = 0
  #looping: Promise<void> | undefined
  #fatal: TetradError | undefined
  /** Sees each row of logits that a step leaves (tetrad/testing). */
  observer: LogitsObserver | undefined

  constructor(init: CoordinatorInit, scheduler: Scheduler) {
    this.#init = init
    this.#control = new Int32Array(init.control)
    this.#ints = new Int32Array(init.mailbox)
    this.#floats = new Float32Array(init.mailbox)
    this.#layout = layoutMailbox(init.stepRows, init.slots, init.pagesPerSlot)
    this.#scheduler = scheduler
  }

  /** The threads that serve the steps; before the first submit. */
  attach(group: RankGroup): void {
    this.#group = group
  }

  /** Queues a sequence. Its sink hears everything else, the engine's failure included. */
  submit(sequence: Sequence): void {
    if (this.#fatal) {
      sequence.sink.onError(this.#fatal)
      return
    }
    this.#scheduler.add(sequence)
    this.#looping ??= this.#loop()
  }

  /** Ends a sequence now; what is in flight for it is dropped. */
  abort(sequence: Sequence): void {
    if (sequence.ended) return
    this.#scheduler.end(sequence)
    sequence.sink.onFinish('abort')
  }

  /** A thread is gone: everything fails. */
  fail(error: TetradError): void {
    this.#fatal ??= error
    // Wakes the wait for the step, which then sees #fatal.
    Atomics.notify(this.#control, CONTROL.doneEpoch)
    if (!this.#looping) this.#failAll(this.#fatal)
  }

  /** Fails what runs, and resolves when the loop has ended. */
  async close(): Promise<void> {
    this.fail(new EngineClosedError('ENGINE_CLOSED', { what: 'the engine was closed', remedy: 'Load another one.' }))
    await this.#looping
  }

  get fatal(): TetradError | undefined {
    return this.#fatal
  }

  counters(rank: number): RankCounters {
    const c = new Float64Array(this.#init.mailbox, this.#layout.counters + rank * COUNTERS.values * 8, COUNTERS.values)
    return {
      shardedWeightBytes: c[COUNTERS.shardedWeightBytes] as number,
      replicatedWeightBytes: c[COUNTERS.replicatedWeightBytes] as number,
      cacheBytes: c[COUNTERS.cacheBytes] as number,
      steps: c[COUNTERS.steps] as number,
    }
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
        while (this.#published.length < STEP_RING && this.#publish()) {}
        const step = this.#published[0]
        if (!step) break
        await this.#completion(step.epoch)
        if (this.#fatal) break
        if (Atomics.load(this.#control, CONTROL.abort) === 0) this.#complete(step)
        else await this.#recover()
      }
      if (this.#fatal) this.#failAll(this.#fatal)
    } finally {
      clearInterval(alive)
      this.#looping = undefined
    }
  }

  #publish(): boolean {
    const rows = this.#scheduler.next()
    if (rows.length === 0) return false
    const epoch = (this.#epoch + 1) | 0
    this.#epoch = epoch
    const base = (epoch & (STEP_RING - 1)) * this.#layout.stepInts
    this.#ints[base + STEP_HEADER.rows] = rows.length
    for (const [t, { sequence, position, token, flags }] of rows.entries()) {
      const at = base + STEP_HEADER.slots + t * ROW.ints
      this.#ints[at + ROW.slot] = sequence.slot
      this.#ints[at + ROW.position] = position
      this.#ints[at + ROW.token] = token
      this.#ints[at + ROW.flags] = flags
      this.#floats[at + ROW.temperature] = sequence.temperature
      this.#ints[at + ROW.seedLow] = sequence.seed >>> 0
      this.#ints[at + ROW.seedHigh] = Math.floor(sequence.seed / 4294967296)
    }
    for (const sequence of sequencesOf(rows)) {
      // A step in flight reads only earlier entries, which stay as they are.
      this.#ints.set(sequence.pages, this.#layout.blockTables + sequence.slot * this.#init.pagesPerSlot)
      sequence.sink.onScheduled()
    }
    this.#published.push({ epoch, rows })
    Atomics.store(this.#control, CONTROL.stepEpoch, epoch)
    Atomics.notify(this.#control, CONTROL.stepEpoch)
    return true
  }

  /** Resolves when every rank has ended the step. Sets #fatal when that takes longer than the deadline. */
  async #completion(epoch: number): Promise<void> {
    const end = performance.now() + this.#init.deadlineMs + GRACE_MS
    for (;;) {
      const done = Atomics.load(this.#control, CONTROL.doneEpoch)
      if (((done - epoch) | 0) >= 0 || this.#fatal) return
      const left = end - performance.now()
      if (left <= 0) {
        this.#fatal = await this.#lateError(epoch)
        return
      }
      const wait = Atomics.waitAsync(this.#control, CONTROL.doneEpoch, done, left)
      if (wait.async) await wait.value
    }
  }

  #complete(step: PublishedStep): void {
    this.#published.shift()
    const ring = step.epoch & (STEP_RING - 1)
    const { vocab } = this.#init
    const logits = this.#init.logits[ring] as Float32Array | Float64Array
    let at = 0
    for (const [t, { sequence, position, flags }] of step.rows.entries()) {
      if (flags === 0) continue
      const row = logits.subarray(at * vocab, (at + 1) * vocab)
      at++
      if (sequence.ended) continue
      try {
        this.observer?.(sequence, position, row)
        if ((flags & ROW_FLAGS.logits) !== 0) sequence.sink.onLogits(position, row)
        if ((flags & ROW_FLAGS.sample) !== 0) {
          sequence.pendingSamples--
          this.#take(sequence, this.#ints[this.#layout.sampled + ring * this.#init.stepRows + t] as number)
        } else if (sequence.maxTokens === 0 && position === sequence.tokens.length - 1) {
          this.#finish(sequence, 'length')
        }
      } catch (error) {
        // What a sink throws is its own request's failure, never the loop's.
        this.#scheduler.end(sequence)
        sequence.sink.onError(error instanceof Error ? error : new Error(String(error)))
      }
    }
    for (const sequence of sequencesOf(step.rows)) this.#scheduler.completed(sequence)
  }

  #take(sequence: Sequence, token: number): void {
    if (sequence.endOfText.has(token)) return this.#finish(sequence, 'stop')
    sequence.tokens.push(token)
    sequence.sink.onToken(token)
    const reason = this.#scheduler.finishReason(sequence)
    if (reason) this.#finish(sequence, reason)
  }

  #finish(sequence: Sequence, reason: FinishReason): void {
    if (sequence.ended) return
    this.#scheduler.end(sequence)
    sequence.sink.onFinish(reason)
  }

  /** After an aborted step: all ranks are let out of it, its sequences fail, and the next request is served. */
  async #recover(): Promise<void> {
    const c = this.#control
    const by = Atomics.load(c, CONTROL.abort) - 1
    await this.#completion(this.#epoch)
    if (this.#fatal) return
    const failure = await this.#group?.takeFailure(by)
    Atomics.store(c, CONTROL.arrived, 0)
    for (let rank = 0; rank < this.#init.ranks; rank++) Atomics.store(c, rankSlot(rank, RANK.barriers), 0)
    Atomics.store(c, CONTROL.abort, 0)
    const error = new RankError(failure?.code ?? 'RANK_FAILED', {
      what: `rank ${by} failed: ${failure?.message ?? 'it gave no reason'}`,
      remedy: 'Send the request again; the engine goes on.',
    })
    const steps = this.#published.splice(0)
    for (const sequence of new Set(steps.flatMap((step) => [...sequencesOf(step.rows)]))) {
      const alreadyEnded = sequence.ended
      this.#scheduler.end(sequence)
      // All of its steps are over at once.
      sequence.inFlight = 1
      this.#scheduler.completed(sequence)
      if (!alreadyEnded) sequence.sink.onError(error)
    }
  }

  /** Which rank did not end the step, and where it was last seen. */
  async #lateError(epoch: number): Promise<TetradError> {
    const c = this.#control
    const by = Atomics.load(c, CONTROL.abort) - 1
    const late = Array.from({ length: this.#init.ranks }, (_, rank) => rank).filter(
      (rank) => ((Atomics.load(c, rankSlot(rank, RANK.done)) - epoch) | 0) < 0,
    )
    const named = late.map((rank) => `rank ${rank} (last seen at: ${SITES[Atomics.load(c, rankSlot(rank, RANK.site))] ?? 'unknown'})`).join(', ')
    // A rank that has ended the step can still say what it saw.
    const seen = by >= 0 && !late.includes(by) ? await this.#group?.takeFailure(by) : undefined
    return new RankError('RANK_LATE', {
      what: seen?.message ?? `${named} did not end the step within ${this.#init.deadlineMs} ms`,
      expected: `every rank within ${this.#init.deadlineMs} ms`,
      actual: named,
      remedy: 'Close this engine and load another; raise stepDeadlineMs if the machine is just slow.',
    })
  }

  #failAll(error: TetradError): void {
    this.#published.length = 0
    for (const sequence of this.#scheduler.sequences) {
      this.#scheduler.end(sequence)
      sequence.sink.onError(error)
    }
  }
}

function sequencesOf(rows: readonly StepRow[]): Set<Sequence> {
  return new Set(rows.map((row) => row.sequence))
}
