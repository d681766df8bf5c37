// Which rows the next step runs, and what becomes of a completed step's results: pure logic over sequences and pages, no threads, no
// clock.
//
// Running sequences that decode get one row each; prompts share the rows that the pace gives. A sequence whose newest token is still
// being sampled may be scheduled one token ahead (its row says LAST_SAMPLED); never two. A row of a constrained sequence that is scheduled
// ahead gets its mask while it runs; if that comes too late, the row is run again. When pages run out, the last in
// order gives up its own and is computed again later. The first in order is never preempted, so there is always progress.
//
// Order: arrival, less PRIORITY_STEP places per unit of priority. So a request is overtaken by at most
// PRIORITY_STEP * (the difference of priorities) later ones: the bound against starvation.
import { LAST_SAMPLED, MASK_MISSED, ROW_FLAGS } from '../../../workers/mailbox/mailbox-layout.js'
import { PAGE_TOKENS } from '../../../workers/protocol.js'
import { RequestError, type TetradError } from '../../errors.js'
import type { PageAllocator } from './page-allocator.js'
import { type PageCopy, PrefixCache } from './prefix-cache.js'
import { PRIORITY_STEP } from './priority.js'
import type { PromptPace } from './prompt-pace.js'
import { decodes, draftShare, endsPrompt, sampleFlags, schedulable, wantsPromptLogprobs } from './rows-of.js'
import type { FinishReason, Sequence, SequenceAdapter } from './sequence.js'
import type { StepOutcome } from './step-outcome.js'
import { byAdapter, type StepRow } from './step-rows.js'

export type { StepRow }

export interface SchedulerLimits {
  readonly pace: PromptPace
  /** Maximum sequences that run at once. */
  readonly slots: number
  /** Maximum tokens of one sequence; no more than fit the cache. */
  readonly contextTokens: number
}

export class Scheduler {
  readonly #limits: SchedulerLimits
  readonly #allocator: PageAllocator
  readonly #prefixes: PrefixCache
  // Both ascending by order.
  readonly #waiting: Sequence[] = []
  readonly #running: Sequence[] = []
  readonly #freeSlots: number[]
  #arrivals = 0
  #promptRows = 0
  preemptions = 0

  constructor(limits: SchedulerLimits, allocator: PageAllocator) {
    this.#limits = limits
    this.#allocator = allocator
    this.#prefixes = new PrefixCache(allocator, limits.slots)
    this.#freeSlots = Array.from({ length: limits.slots }, (_, i) => limits.slots - 1 - i)
  }

  add(sequence: Sequence): void {
    sequence.order = this.#arrivals++ - sequence.priority * PRIORITY_STEP
    insert(this.#waiting, sequence)
  }

  get pace(): PromptPace {
    return this.#limits.pace
  }

  get idle(): boolean {
    return this.#waiting.length === 0 && this.#running.length === 0
  }

  get waiting(): number {
    return this.#waiting.length
  }

  get running(): number {
    return this.#running.length
  }

  /** Whether a sequence has this adapter, or a step in flight has rows with it. */
  uses({ serial }: SequenceAdapter): boolean {
    return [...this.#running, ...this.#waiting].some(({ adapter }) => adapter?.serial === serial)
  }

  /** All sequences that have not ended. */
  get sequences(): Sequence[] {
    return [...this.#running, ...this.#waiting].filter((s) => !s.ended)
  }

  /** Rows of the next step, already counted as in flight; empty when nothing can be scheduled now. */
  next(): StepRow[] {
    this.#admit()
    const rows: StepRow[] = []
    // Preempting changes the list, so it is walked over a copy.
    const running = [...this.#running]
    for (const sequence of running) if (sequence.scheduled >= sequence.tokens.length) this.#scheduleAhead(sequence, rows)
    const most = this.#limits.pace.rows(rows.length > 0 || running.some((sequence) => schedulable(sequence) && decodes(sequence)))
    let prefill = most
    const share = draftShare(this.#running, most)
    for (const sequence of running) {
      if (!decodes(sequence)) prefill -= this.#scheduleKnown(sequence, prefill, rows)
      // Undefined: they are being made, and it waits for them.
      else {
        const guesses = this.#guesses(sequence, Math.min(prefill, share))
        if (guesses && this.#scheduleKnown(sequence, 1, rows) > 0) prefill -= this.#scheduleDrafts(sequence, guesses, rows)
      }
    }
    this.#promptRows = most - prefill
    return byAdapter(rows)
  }

  /** How many of the rows just given were of prompts and drafts. */
  get promptRows(): number {
    return this.#promptRows
  }

  /** Copies that the rows just given need; they are the step's from now on. */
  takeCopies(): PageCopy[] {
    return this.#prefixes.takeCopies()
  }

  /**
   * Commits a completed step: accepts its rows, appends sampled tokens, tells the sinks, ends what is finished, and returns pages. The
   * only place where results change sequences. Steps are committed in the order in which they were published. What a sink throws
   * ends its own sequence only. Returns how many tokens were generated.
   */
  commit(rows: readonly StepRow[], outcome: StepOutcome): number {
    let generated = 0
    let withFlags = 0
    /** The sequence of the last row that sampled: its second one in a step is the row of a draft that was right. */
    let previous: Sequence | undefined
    for (const [t, row] of rows.entries()) {
      const { sequence, flags } = row
      const accepted = !sequence.ended && this.#acceptRow(row)
      if (flags === 0) {
        if (accepted && endsPrompt(row)) this.finish(sequence, 'length')
        continue
      }
      const i = withFlags++
      const samples = (flags & ROW_FLAGS.sample) !== 0
      if (samples && !sequence.ended) sequence.pendingSamples--
      if (!accepted) continue
      try {
        this.#report(row, t, i, outcome)
        if (sequence.ended) continue
        if (samples) {
          if (previous === sequence && sequence.drafts) sequence.drafts.accepted++
          previous = sequence
          const token = outcome.sampled(t)
          if (token === MASK_MISSED) missMask(row)
          else if (this.#appendToken(sequence, token)) generated++
        } else if (endsPrompt(row)) this.finish(sequence, 'length')
      } catch (error) {
        this.end(sequence)
        sequence.sink.onError(error instanceof Error ? error : new Error(String(error)))
      }
    }
    for (const sequence of new Set(rows.map((row) => row.sequence))) this.#finishStep(sequence)
    return generated
  }

  /** Ends a sequence and tells its sink. `by`: the token id that ended it, if one did. */
  finish(sequence: Sequence, reason: FinishReason, by?: number): void {
    if (sequence.ended) return
    this.end(sequence)
    sequence.sink.onFinish(reason, by)
  }

  /** Ends a sequence with an error. */
  reject(sequence: Sequence, error: TetradError): void {
    if (sequence.ended) return
    this.end(sequence)
    sequence.sink.onError(error)
  }

  /** Forgets what was in flight, rows and copies: it is scheduled again. For sequences of steps that will not complete. */
  rollBack(sequence: Sequence): void {
    sequence.inFlight = 0
    sequence.pendingSamples = 0
    sequence.missedMask = false
    sequence.scheduled = sequence.computed
    this.#settle(sequence)
  }

  /** The cached rows of all sequences are lost: everything is computed again. Only while no step is in flight. */
  loseCache(): void {
    for (const sequence of [...this.#running]) {
      this.rollBack(sequence)
      if (this.#running.includes(sequence)) {
        sequence.preempted = true
        this.#settle(sequence)
      }
    }
    this.#prefixes.clear()
  }

  /** Ends a sequence: it gets no more rows, and its pages return when its steps in flight have completed. */
  end(sequence: Sequence): void {
    if (sequence.ended) return
    sequence.ended = true
    const waiting = this.#waiting.indexOf(sequence)
    if (waiting >= 0) this.#waiting.splice(waiting, 1)
    else this.#settle(sequence)
  }

  /** False: the row was of a draft that turned out wrong, or of a token that was not sampled, and its results are dropped. */
  #acceptRow({ sequence, position, token }: StepRow): boolean {
    // Of a row that was scheduled ahead of one whose mask was missed, nobody knows the token.
    if (position >= sequence.tokens.length || (token !== LAST_SAMPLED && sequence.tokens[position] !== token)) return false
    sequence.computed = position + 1
    // The row of a right draft was not counted when it was published.
    sequence.scheduled = Math.max(sequence.scheduled, sequence.computed)
    return true
  }

  /** Gives the sink the logits, score and logprobs that the row was asked for; rejects the sequence if they are not finite. */
  #report({ sequence, position, flags }: StepRow, t: number, i: number, outcome: StepOutcome): void {
    const { sink, sampling } = sequence
    outcome.observe?.(sequence, position, outcome.logits(i))
    if ((flags & ROW_FLAGS.logits) !== 0) sink.onLogits(position, outcome.logits(i))
    if ((flags & ROW_FLAGS.score) !== 0) {
      const likeliest = outcome.sampled(t)
      if (likeliest < 0) this.reject(sequence, nonFinite(position + 1))
      else sink.onScore(position + 1, outcome.score(t), likeliest === sequence.target(position))
    }
    if ((flags & ROW_FLAGS.logprobs) !== 0) {
      const { logprobs = 0, promptLogprobs = 0 } = sampling ?? {}
      const left = outcome.logprobs(t, (flags & ROW_FLAGS.sample) !== 0 ? logprobs : promptLogprobs)
      if (Number.isNaN(left.logprob)) this.reject(sequence, nonFinite(position + 1))
      else sink.onLogprobs(position + 1, left)
    }
  }

  /** False: the token ended the sequence and is not part of it. */
  #appendToken(sequence: Sequence, token: number): boolean {
    if (token < 0) {
      this.reject(sequence, nonFinite(sequence.tokens.length))
      return false
    }
    if (sequence.endOfText.has(token)) {
      this.finish(sequence, 'stop', token)
      return false
    }
    sequence.tokens.push(token)
    sequence.constraint?.accept(token)
    sequence.sink.onToken(token)
    if (sequence.generated >= sequence.maxTokens || sequence.tokens.length >= this.#limits.contextTokens) this.finish(sequence, 'length')
    return true
  }

  /** One step less of the sequence is in flight. */
  #finishStep(sequence: Sequence): void {
    sequence.inFlight--
    this.#prefixes.cacheFullPages(sequence)
    if (sequence.sharesPrompt && sequence.computed >= sequence.promptLength) {
      sequence.sharesPrompt = false
      this.#prefixes.cachePartialPage(sequence)
    }
    this.#settle(sequence)
  }

  #admit(): void {
    while (this.#waiting.length > 0 && this.#freeSlots.length > 0) {
      const sequence = this.#waiting[0] as Sequence
      // A page for its first rows, and a spare one for sequences that decode: without it, it would be preempted at once.
      const spare = this.#running.length > 0 ? 1 : 0
      if (this.#allocator.freeFor(0) < 1 + spare) return
      this.#waiting.shift()
      sequence.slot = this.#freeSlots.pop() as number
      this.#prefixes.reuse(sequence)
      if (!sequence.wasAdmitted) sequence.cachedTokens = sequence.scheduled
      sequence.wasAdmitted = true
      insert(this.#running, sequence)
      sequence.sink.onAdmitted()
    }
  }

  /** Takes the pages and the slot of an ended or preempted sequence, once no step in flight uses them. */
  #settle(sequence: Sequence): void {
    if (sequence.inFlight > 0 || !(sequence.ended || sequence.preempted)) return
    const at = this.#running.indexOf(sequence)
    if (at < 0) return
    this.#running.splice(at, 1)
    this.#prefixes.cachePartialPage(sequence)
    this.#allocator.release(sequence.pages)
    sequence.chain.length = 0
    this.#freeSlots.push(sequence.slot)
    sequence.slot = -1
    sequence.scheduled = 0
    sequence.computed = 0
    if (sequence.ended) return
    sequence.preempted = false
    insert(this.#waiting, sequence)
  }

  /** Draft tokens after a sequence's newest one. */
  #guesses(sequence: Sequence, max: number): readonly number[] | undefined {
    const { drafts, tokens } = sequence
    if (!drafts || !schedulable(sequence)) return []
    // The last draft's row samples one more token.
    const left = Math.min(sequence.maxTokens - sequence.generated, this.#limits.contextTokens - tokens.length) - 1
    return drafts.propose(tokens, Math.min(max, left))
  }

  /** Rows for drafts after the row just scheduled. Returns how many. */
  #scheduleDrafts(sequence: Sequence, guesses: readonly number[], rows: StepRow[]): number {
    const { drafts, tokens } = sequence
    if (!drafts) return 0
    let taken = 0
    for (const token of guesses) {
      const position = tokens.length + taken
      if (!schedulable(sequence) || !this.#reserve(sequence, position)) break
      rows.push({ sequence, position, token, flags: sampleFlags(sequence) })
      sequence.pendingSamples++
      taken++
    }
    drafts.drafted += taken
    return taken
  }

  /** A row for the token that the step in flight is sampling. Not where drafts may follow from that token. */
  #scheduleAhead(sequence: Sequence, rows: StepRow[]): void {
    const position = sequence.tokens.length
    if (sequence.drafts?.restsAt(position + 1) === false || sequence.missedMask) return
    if (!schedulable(sequence) || sequence.scheduled !== position || sequence.pendingSamples !== 1) return
    if (sequence.generated + 1 >= sequence.maxTokens || position + 1 >= this.#limits.contextTokens) return
    if (!this.#reserve(sequence, position)) return
    rows.push({ sequence, position, token: LAST_SAMPLED, flags: sampleFlags(sequence) })
    sequence.scheduled++
    sequence.pendingSamples++
    sequence.inFlight++
  }

  /** Up to `max` rows for known tokens; the last token's row samples. Returns how many. */
  #scheduleKnown(sequence: Sequence, max: number, rows: StepRow[]): number {
    if (sequence.missedMask && sequence.inFlight === 0) sequence.missedMask = false
    const known = sequence.tokens.length
    let taken = 0
    while (sequence.scheduled < known && taken < max && schedulable(sequence)) {
      const position = sequence.scheduled
      if (!this.#reserve(sequence, position)) break
      const samples = sequence.maxTokens > 0 && position === known - 1
      if (samples && !canSample(sequence)) break
      const scores = sequence.score !== undefined && position + 1 >= sequence.score.from
      const flags =
        (sequence.everyLogits ? ROW_FLAGS.logits : 0) |
        (samples ? sampleFlags(sequence) : 0) |
        (scores ? ROW_FLAGS.score : 0) |
        (wantsPromptLogprobs(sequence, position) ? ROW_FLAGS.logprobs : 0)
      rows.push({ sequence, position, token: sequence.tokens[position] as number, flags })
      sequence.scheduled++
      if (samples) sequence.pendingSamples++
      // Counted at the first row: its pages are in use even if a later row finds no page and it is preempted.
      if (taken++ === 0) sequence.inFlight++
    }
    return taken
  }

  /** Makes sure that the sequence holds the page of a position; preempts later sequences for it. False: not possible now. */
  #reserve(sequence: Sequence, position: number): boolean {
    while (Math.floor(position / PAGE_TOKENS) >= sequence.pages.length) {
      const page = this.#allocator.allocate(sequence.pages.length)
      if (page !== undefined) {
        sequence.pages.push(page)
        continue
      }
      // The last in order that is not preempted already. Its pages may be freed only when its steps have completed.
      const victim = this.#running.findLast((s) => !s.preempted && !s.ended)
      if (!victim || victim.order < sequence.order || this.#running.some((s) => s.preempted || (s.ended && s.inFlight > 0))) return false
      victim.preempted = true
      this.preemptions++
      this.#settle(victim)
      if (victim === sequence) return false
    }
    return true
  }
}

/** Its mask is known, if it has one, and no row is in flight whose results will be dropped. */
function canSample({ constraint, missedMask }: Sequence): boolean {
  return constraint === undefined || (constraint.ready && !missedMask)
}

/** The row has computed what it caches, and sampled nothing. */
function missMask({ sequence, position }: StepRow): void {
  sequence.missedMask = true
  sequence.computed = position
  sequence.scheduled = position
}

/** Keeps a list ascending by order. */
function insert(list: Sequence[], sequence: Sequence): void {
  const at = list.findIndex((other) => other.order > sequence.order)
  list.splice(at < 0 ? list.length : at, 0, sequence)
}

function nonFinite(position: number): RequestError {
  return new RequestError('NON_FINITE_LOGITS', {
    what: `the logits for position ${position} are not finite`,
    expected: 'finite logits',
    actual: 'NaN or infinity',
    remedy: 'Use another checkpoint, or f32 weights and cache.',
  })
}
