// Which rows the next step runs: pure logic over sequences and pages, no threads, no clock.
//
// Running sequences that decode get one row each; prompts share prefillChunk rows. A sequence whose newest token is still
// being sampled may be scheduled one token ahead (its row says LAST_SAMPLED); never two. When pages run out, the last in
// order gives up its own and is computed again later. The first in order is never preempted, so there is always progress.
//
// Order: arrival, less PRIORITY_STEP places per unit of priority. So a request is overtaken by at most
// PRIORITY_STEP * (the difference of priorities) later ones: the bound against starvation.
import { LAST_SAMPLED, ROW_FLAGS } from '../../../workers/mailbox/mailbox-layout.js'
import { PAGE_TOKENS } from '../../../workers/protocol.js'
import type { BlockManager } from './block-manager.js'
import type { FinishReason, Sequence } from './sequence.js'

export const PRIORITY_STEP = 64
export const MOST_PRIORITY = 10

export interface StepRow {
  readonly sequence: Sequence
  readonly position: number
  readonly token: number
  readonly flags: number
}

/** The first `rows` cached rows of one page to another, before any row of the step. */
export interface PageCopy {
  readonly sequence: Sequence
  readonly from: number
  readonly to: number
  readonly rows: number
}

export interface SchedulerLimits {
  /** Prompt rows of one step. */
  readonly prefillChunk: number
  /** Sequences that run at once. */
  readonly slots: number
  /** Most tokens of one sequence; no more than fit the cache. */
  readonly contextTokens: number
}

export class Scheduler {
  readonly #limits: SchedulerLimits
  readonly #blocks: BlockManager
  /** By order. */
  readonly #waiting: Sequence[] = []
  /** By order. */
  readonly #running: Sequence[] = []
  readonly #freeSlots: number[]
  /** For the next step. */
  #copies: PageCopy[] = []
  #arrivals = 0
  preemptions = 0

  constructor(limits: SchedulerLimits, blocks: BlockManager) {
    this.#limits = limits
    this.#blocks = blocks
    this.#freeSlots = Array.from({ length: limits.slots }, (_, i) => limits.slots - 1 - i)
  }

  add(sequence: Sequence): void {
    sequence.order = this.#arrivals++ - sequence.priority * PRIORITY_STEP
    insert(this.#waiting, sequence)
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

  /** All sequences that have not ended. */
  get sequences(): Sequence[] {
    return [...this.#running, ...this.#waiting].filter((s) => !s.ended)
  }

  /** Rows of the next step, already counted as in flight; none when nothing can be scheduled now. */
  next(): StepRow[] {
    this.#admit()
    const rows: StepRow[] = []
    // Preempting changes the list, so it is walked over a copy.
    const running = [...this.#running]
    for (const sequence of running) if (sequence.scheduled >= sequence.tokens.length) this.#scheduleAhead(sequence, rows)
    let prefill = this.#limits.prefillChunk
    for (const sequence of running) {
      const left = sequence.tokens.length - sequence.scheduled
      // One known token after generation began is decoding as well: after a pause, a restart, or without running ahead.
      const decodes = left === 1 && sequence.generated > 0
      const taken = this.#scheduleKnown(sequence, decodes ? 1 : prefill, rows)
      prefill -= decodes && taken > 0 ? this.#scheduleDrafts(sequence, prefill, rows) : decodes ? 0 : taken
    }
    return rows
  }

  /** Copies that the rows just given need; they are the step's from now on. */
  takeCopies(): PageCopy[] {
    return this.#copies.splice(0)
  }

  /**
   * Call for each row of a completed step whose sequence has not ended, before its results are taken. False: the row was of a
   * draft that turned out wrong, and its results count for nothing.
   */
  computed({ sequence, position, token }: StepRow): boolean {
    if (token !== LAST_SAMPLED && sequence.tokens[position] !== token) return false
    sequence.computed = position + 1
    // The row of a draft that was right was not counted when it was published.
    sequence.scheduled = Math.max(sequence.scheduled, sequence.computed)
    return true
  }

  /** Call once per sequence of a completed step, after its results were taken. */
  completed(sequence: Sequence): void {
    sequence.inFlight--
    this.#learnPages(sequence)
    if (sequence.sharesPrompt && sequence.computed >= sequence.promptLength) {
      sequence.sharesPrompt = false
      this.#learnRest(sequence)
    }
    this.#settle(sequence)
  }

  /** Forgets what was in flight, rows and copies: it is scheduled again. For sequences of steps that will never complete. */
  rollBack(sequence: Sequence): void {
    sequence.inFlight = 0
    sequence.pendingSamples = 0
    sequence.scheduled = sequence.computed
    this.#settle(sequence)
  }

  /** The cached rows are gone, of all sequences: everything is computed again. Only while no step is in flight. */
  loseCache(): void {
    for (const sequence of [...this.#running]) {
      this.rollBack(sequence)
      if (this.#running.includes(sequence)) {
        sequence.preempted = true
        this.#settle(sequence)
      }
    }
    this.#copies.length = 0
    this.#blocks.forgetAll()
  }

  /** Ends a sequence: it gets no more rows, and its pages return when its steps in flight have completed. */
  end(sequence: Sequence): void {
    if (sequence.ended) return
    sequence.ended = true
    const waiting = this.#waiting.indexOf(sequence)
    if (waiting >= 0) this.#waiting.splice(waiting, 1)
    else this.#settle(sequence)
  }

  /** Why a sequence is over after its newest token, if it is. */
  finishReason(sequence: Sequence): FinishReason | undefined {
    if (sequence.generated >= sequence.maxTokens || sequence.tokens.length >= this.#limits.contextTokens) return 'length'
    return undefined
  }

  #admit(): void {
    while (this.#waiting.length > 0 && this.#freeSlots.length > 0) {
      const sequence = this.#waiting[0] as Sequence
      // A page for its first rows, and one to spare for whoever decodes: else it would only be preempted at once.
      const spare = this.#running.length > 0 ? 1 : 0
      if (this.#blocks.freePages < 1 + spare) return
      this.#waiting.shift()
      sequence.slot = this.#freeSlots.pop() as number
      this.#findPrefix(sequence)
      insert(this.#running, sequence)
      sequence.sink.onAdmitted()
    }
  }

  /** Takes the pages of the longest known prefix, and copies what a known page after it has in common with the tokens. */
  #findPrefix(sequence: Sequence): void {
    const { tokens, pages, chain, reusable } = sequence
    for (let i = 0; (i + 1) * PAGE_TOKENS <= reusable; i++) {
      const found = this.#blocks.reuse(chain.at(-1) ?? 0, tokens.slice(i * PAGE_TOKENS, (i + 1) * PAGE_TOKENS))
      if (!found) break
      pages.push(found.page)
      chain.push(found.chain)
    }
    // Copied rows count as computed when the step that copies them has completed.
    sequence.computed = pages.length * PAGE_TOKENS
    sequence.scheduled = sequence.computed + this.#copyRows(sequence)
    if (!sequence.wasAdmitted) sequence.cachedTokens = sequence.scheduled
    sequence.wasAdmitted = true
  }

  /** Gives the sequence a page with rows copied from a known one; returns how many. */
  #copyRows(sequence: Sequence): number {
    const { tokens, pages, chain, computed, reusable } = sequence
    const wanted = tokens.slice(computed, Math.min(reusable, computed + PAGE_TOKENS))
    if (wanted.length === 0 || this.#copies.length >= this.#limits.slots) return 0
    const source = this.#blocks.similar(chain.at(-1) ?? 0, wanted)
    if (!source) return 0
    const page = this.#blocks.takeOther(source.page)
    if (page === undefined) return 0
    pages.push(page)
    this.#copies.push({ sequence, from: source.page, to: page, rows: source.rows })
    return source.rows
  }

  #learnPages(sequence: Sequence): void {
    const { tokens, pages, chain, computed } = sequence
    for (let i = chain.length; (i + 1) * PAGE_TOKENS <= computed; i++) {
      chain.push(this.#blocks.learn(pages[i] as number, chain.at(-1) ?? 0, tokens.slice(i * PAGE_TOKENS, (i + 1) * PAGE_TOKENS)))
    }
  }

  /** The computed rows after its last full page. */
  #learnRest({ tokens, pages, chain, computed }: Sequence): void {
    const page = pages[chain.length]
    const first = chain.length * PAGE_TOKENS
    if (page !== undefined && computed > first) this.#blocks.learnPartial(page, chain.at(-1) ?? 0, tokens.slice(first, computed))
  }

  /** Takes what an ended or preempted sequence holds, once no step in flight uses it. */
  #settle(sequence: Sequence): void {
    if (sequence.inFlight > 0 || !(sequence.ended || sequence.preempted)) return
    const at = this.#running.indexOf(sequence)
    if (at < 0) return
    this.#running.splice(at, 1)
    this.#learnRest(sequence)
    this.#blocks.release(sequence.pages)
    sequence.chain.length = 0
    this.#freeSlots.push(sequence.slot)
    sequence.slot = -1
    sequence.scheduled = 0
    sequence.computed = 0
    if (sequence.ended) return
    sequence.preempted = false
    insert(this.#waiting, sequence)
  }

  /** Rows for tokens that are guessed to come, beside the row just scheduled; prompt rows make room. Returns how many. */
  #scheduleDrafts(sequence: Sequence, most: number, rows: StepRow[]): number {
    const { drafts, tokens } = sequence
    if (!drafts) return 0
    // The last draft's row samples one token more.
    const left = Math.min(sequence.maxTokens - sequence.generated, this.#limits.contextTokens - tokens.length) - 1
    let taken = 0
    for (const token of drafts.propose(tokens, Math.min(most, left))) {
      const position = tokens.length + taken
      if (!schedulable(sequence) || !this.#reserve(sequence, position)) break
      rows.push({ sequence, position, token, flags: sampleFlags(sequence) })
      sequence.pendingSamples++
      taken++
    }
    drafts.drafted += taken
    return taken
  }

  /** A row for the token that the step in flight is sampling. Drafts need to know it first. */
  #scheduleAhead(sequence: Sequence, rows: StepRow[]): void {
    const position = sequence.tokens.length
    if (sequence.drafts) return
    if (!schedulable(sequence) || sequence.scheduled !== position || sequence.pendingSamples !== 1) return
    if (sequence.generated + 1 >= sequence.maxTokens || position + 1 >= this.#limits.contextTokens) return
    if (!this.#reserve(sequence, position)) return
    rows.push({ sequence, position, token: LAST_SAMPLED, flags: sampleFlags(sequence) })
    sequence.scheduled++
    sequence.pendingSamples++
    sequence.inFlight++
  }

  /** Up to `most` rows for tokens that are known; the last token's row samples. Returns how many. */
  #scheduleKnown(sequence: Sequence, most: number, rows: StepRow[]): number {
    const known = sequence.tokens.length
    let taken = 0
    while (sequence.scheduled < known && taken < most && schedulable(sequence)) {
      const position = sequence.scheduled
      if (!this.#reserve(sequence, position)) break
      const samples = sequence.maxTokens > 0 && position === known - 1
      const scores = sequence.score !== undefined && position + 1 >= sequence.score.from
      const flags =
        (sequence.everyLogits ? ROW_FLAGS.logits : 0) |
        (samples ? sampleFlags(sequence) : 0) |
        (scores ? ROW_FLAGS.score : 0) |
        (wantsPromptLogprobs(sequence, position) ? ROW_FLAGS.logprobs : 0)
      rows.push({ sequence, position, token: sequence.tokens[position] as number, flags })
      sequence.scheduled++
      if (samples) sequence.pendingSamples++
      // From its first row on it holds its pages, also if a later row finds none and it has to give way.
      if (taken++ === 0) sequence.inFlight++
    }
    return taken
  }

  /** Sees that the sequence holds the page of a position, at the expense of later ones. False: not now. */
  #reserve(sequence: Sequence, position: number): boolean {
    while (Math.floor(position / PAGE_TOKENS) >= sequence.pages.length) {
      const page = this.#blocks.take()
      if (page !== undefined) {
        sequence.pages.push(page)
        continue
      }
      // The last in order that is not giving up already; its pages may come only when its steps have completed.
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

function sampleFlags({ adjustments }: Sequence): number {
  return ROW_FLAGS.sample | (adjustments?.logprobs === undefined ? 0 : ROW_FLAGS.logprobs)
}

/** The row of a position says how likely the token after it is; after a preemption it has said so already. */
function wantsPromptLogprobs({ adjustments, promptLength, generated }: Sequence, position: number): boolean {
  return adjustments?.promptLogprobs !== undefined && generated === 0 && position + 1 < promptLength
}

function schedulable(sequence: Sequence): boolean {
  return !sequence.ended && !sequence.paused && !sequence.preempted && sequence.slot >= 0
}

/** Keeps a list ascending by order. */
function insert(list: Sequence[], sequence: Sequence): void {
  const at = list.findIndex((other) => other.order > sequence.order)
  list.splice(at < 0 ? list.length : at, 0, sequence)
}
