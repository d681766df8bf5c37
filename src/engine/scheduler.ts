// Which rows the next step runs: pure logic over sequences and pages, no threads, no clock.
//
// Decode rows first, then prompt chunks, in order of arrival, up to stepRows. A sequence whose newest token is still being
// sampled may be scheduled one token ahead (its row says LAST_SAMPLED); never two.
import { LAST_SAMPLED, ROW_FLAGS } from '../../workers/layout.js'
import { PAGE_TOKENS } from '../../workers/protocol.js'
import type { BlockManager } from './block-manager.js'
import type { FinishReason, Sequence } from './sequence.js'

export interface StepRow {
  readonly sequence: Sequence
  readonly position: number
  readonly token: number
  readonly flags: number
}

export interface SchedulerLimits {
  readonly stepRows: number
  readonly slots: number
  /** Most tokens of one sequence. */
  readonly contextTokens: number
}

export class Scheduler {
  readonly #limits: SchedulerLimits
  readonly #blocks: BlockManager
  readonly #waiting: Sequence[] = []
  readonly #running: Sequence[] = []
  readonly #freeSlots: number[]

  constructor(limits: SchedulerLimits, blocks: BlockManager) {
    this.#limits = limits
    this.#blocks = blocks
    this.#freeSlots = Array.from({ length: limits.slots }, (_, i) => limits.slots - 1 - i)
  }

  add(sequence: Sequence): void {
    this.#waiting.push(sequence)
  }

  get idle(): boolean {
    return this.#waiting.length === 0 && this.#running.length === 0
  }

  /** All sequences that have not ended. */
  get sequences(): Sequence[] {
    return [...this.#running, ...this.#waiting].filter((s) => !s.ended)
  }

  /** Rows of the next step, already counted as in flight; none when nothing can be scheduled now. */
  next(): StepRow[] {
    this.#admit()
    const rows: StepRow[] = []
    const decoding = this.#running.filter((s) => !s.ended && s.scheduled >= s.tokens.length)
    const prefilling = this.#running.filter((s) => !s.ended && s.scheduled < s.tokens.length)
    for (const sequence of decoding) if (rows.length < this.#limits.stepRows) this.#scheduleAhead(sequence, rows)
    for (const sequence of prefilling) this.#scheduleKnown(sequence, rows)
    return rows
  }

  /** Call once per sequence of a completed step, after its results were taken. */
  completed(sequence: Sequence): void {
    sequence.inFlight--
    if (sequence.ended) this.#retire(sequence)
  }

  /** Ends a sequence: it gets no more rows, and its pages return when its steps in flight have completed. */
  end(sequence: Sequence): void {
    if (sequence.ended) return
    sequence.ended = true
    const waiting = this.#waiting.indexOf(sequence)
    if (waiting >= 0) this.#waiting.splice(waiting, 1)
    else this.#retire(sequence)
  }

  /** Why a sequence is over after its newest token, if it is. */
  finishReason(sequence: Sequence): FinishReason | undefined {
    if (sequence.generated >= sequence.maxTokens || sequence.tokens.length >= this.#limits.contextTokens) return 'length'
    return undefined
  }

  #admit(): void {
    while (this.#waiting.length > 0 && this.#freeSlots.length > 0) {
      const sequence = this.#waiting.shift() as Sequence
      sequence.slot = this.#freeSlots.pop() as number
      this.#running.push(sequence)
    }
  }

  #retire(sequence: Sequence): void {
    if (sequence.inFlight > 0) return
    const at = this.#running.indexOf(sequence)
    if (at < 0) return
    this.#running.splice(at, 1)
    this.#blocks.release(sequence.pages)
    this.#freeSlots.push(sequence.slot)
  }

  /** A row for the token that the step in flight is sampling. */
  #scheduleAhead(sequence: Sequence, rows: StepRow[]): void {
    const position = sequence.tokens.length
    if (sequence.scheduled !== position || sequence.pendingSamples !== 1) return
    if (sequence.generated + 1 >= sequence.maxTokens || position + 1 >= this.#limits.contextTokens) return
    if (!this.#reserve(sequence, position)) return
    rows.push({ sequence, position, token: LAST_SAMPLED, flags: ROW_FLAGS.sample })
    sequence.scheduled++
    sequence.pendingSamples++
    sequence.inFlight++
  }

  /** Rows for tokens that are known; the last one samples. */
  #scheduleKnown(sequence: Sequence, rows: StepRow[]): void {
    const first = sequence.scheduled
    const known = sequence.tokens.length
    while (rows.length < this.#limits.stepRows && sequence.scheduled < known) {
      const position = sequence.scheduled
      if (!this.#reserve(sequence, position)) break
      const samples = sequence.maxTokens > 0 && position === known - 1
      const flags = (sequence.everyLogits ? ROW_FLAGS.logits : 0) | (samples ? ROW_FLAGS.sample : 0)
      rows.push({ sequence, position, token: sequence.tokens[position] as number, flags })
      sequence.scheduled++
      if (samples) sequence.pendingSamples++
    }
    if (sequence.scheduled > first) sequence.inFlight++
  }

  /** Sees that the sequence holds the page of a position. */
  #reserve(sequence: Sequence, position: number): boolean {
    if (Math.floor(position / PAGE_TOKENS) < sequence.pages.length) return true
    const page = this.#blocks.take()
    if (page === undefined) return false
    sequence.pages.push(page)
    return true
  }
}
