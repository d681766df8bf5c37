// The coordinator's side of the mailbox: writes steps, reads what the ranks left. Knows the layout, decides nothing.
import {
  COPY,
  COUNTERS,
  LOGPROB_VALUES,
  layoutMailbox,
  MAX_END_IDS,
  type MailboxLayout,
  MOST_BIASES,
  ROW,
  SLOT,
  STEP_HEADER,
  STEP_RING,
} from '../../../workers/mailbox/mailbox-layout.js'
import { PHASES, type Phase, SITES, type Site } from '../../../workers/protocol.js'
import type { PageCopy, StepRow } from '../scheduling/scheduler.js'
import type { RowLogprobs, Sequence } from '../scheduling/sequence.js'

/** What a rank has read and where its time went, since it was loaded. */
export interface RankCounters {
  readonly shardedWeightBytes: number
  readonly replicatedWeightBytes: number
  readonly cacheBytes: number
  readonly steps: number
  /** Milliseconds in steps, and of those waiting at each collective. */
  readonly stepMs: number
  readonly waitMs: Readonly<Partial<Record<Site, number>>>
  /** Milliseconds of computing in each part of the steps; the rest are norms, sums and copies. Empty on the gpu backend. */
  readonly computeMs: Readonly<Partial<Record<Phase, number>>>
}

export class Mailbox {
  readonly #buffer: SharedArrayBuffer
  readonly #ints: Int32Array
  readonly #floats: Float32Array
  readonly #doubles: Float64Array
  readonly #layout: MailboxLayout
  readonly #stepRows: number
  readonly #pagesPerSlot: number
  /** Whose parameters lie in each slot. */
  readonly #written: (Sequence | undefined)[] = []

  constructor(buffer: SharedArrayBuffer, stepRows: number, slots: number, pagesPerSlot: number) {
    this.#buffer = buffer
    this.#ints = new Int32Array(buffer)
    this.#floats = new Float32Array(buffer)
    this.#doubles = new Float64Array(buffer)
    this.#layout = layoutMailbox(stepRows, slots, pagesPerSlot)
    this.#stepRows = stepRows
    this.#pagesPerSlot = pagesPerSlot
  }

  /** Writes a step and the block tables it needs; the ranks may read it once the step epoch says so. */
  write(epoch: number, rows: readonly StepRow[], copies: readonly PageCopy[]): void {
    const base = ringOf(epoch) * this.#layout.stepInts
    this.#ints[base + STEP_HEADER.rows] = rows.length
    this.#ints[base + STEP_HEADER.copies] = copies.length
    for (const [i, { from, to, rows }] of copies.entries()) {
      const at = base + this.#layout.copies + i * COPY.ints
      this.#ints[at + COPY.from] = from
      this.#ints[at + COPY.to] = to
      this.#ints[at + COPY.rows] = rows
    }
    for (const [t, { sequence, position, token, flags }] of rows.entries()) {
      const at = base + STEP_HEADER.ints + t * ROW.ints
      this.#ints[at + ROW.slot] = sequence.slot
      this.#ints[at + ROW.position] = position
      this.#ints[at + ROW.token] = token
      this.#ints[at + ROW.flags] = flags
      this.#ints[at + ROW.target] = sequence.target(position)
      this.#floats[at + ROW.temperature] = sequence.temperature
      this.#ints[at + ROW.seedLow] = sequence.seed >>> 0
      this.#ints[at + ROW.seedHigh] = Math.floor(sequence.seed / 4294967296)
    }
    for (const sequence of sequencesOf(rows)) this.#writeSlot(sequence)
    for (const { sequence, position, token } of rows) {
      if (token >= 0 && isPenalized(sequence)) this.#ints[this.#history(sequence) + position] = token
    }
    // A step in flight reads only earlier entries of a block table, which stay as they are.
    for (const { pages, slot } of sequencesOf(rows)) this.#ints.set(pages, this.#layout.blockTables + slot * this.#pagesPerSlot)
  }

  #history({ slot }: Sequence): number {
    return this.#layout.history + slot * this.#layout.contextTokens
  }

  /** Parameters, once; and of a sequence with penalties the tokens that are known. */
  #writeSlot(sequence: Sequence): void {
    const { slot, adjustments: a } = sequence
    if (isPenalized(sequence)) this.#ints.set(sequence.tokens, this.#history(sequence))
    if (this.#written[slot] === sequence) return
    this.#written[slot] = sequence
    const at = this.#layout.slotParams + slot * SLOT.values
    const put = (field: number, value: number) => {
      this.#doubles[at + field] = value
    }
    const endIds = [...sequence.barred]
    const barring = (a?.minTokens ?? 0) > 0 && endIds.length > 0
    const filtering = a !== undefined && (a.topK > 0 || a.topP < 1 || a.minP > 0 || a.typicalP < 1)
    put(SLOT.adjusted, Number(filtering || barring || isPenalized(sequence) || (a?.logitBias.length ?? 0) > 0))
    put(SLOT.topK, a?.topK ?? 0)
    put(SLOT.topP, a?.topP ?? 1)
    put(SLOT.minP, a?.minP ?? 0)
    put(SLOT.typicalP, a?.typicalP ?? 1)
    put(SLOT.repetitionPenalty, a?.repetitionPenalty ?? 1)
    put(SLOT.presencePenalty, a?.presencePenalty ?? 0)
    put(SLOT.frequencyPenalty, a?.frequencyPenalty ?? 0)
    put(SLOT.firstEnd, sequence.promptLength + (a?.minTokens ?? 0))
    put(SLOT.promptLength, sequence.promptLength)
    put(SLOT.penalized, Number(isPenalized(sequence)))
    put(SLOT.choice, a?.choice ?? 0)
    put(SLOT.logprobs, Math.max(a?.logprobs ?? 0, a?.promptLogprobs ?? 0))
    put(SLOT.forbidden, barring ? endIds.length : 0)
    put(SLOT.biases, a?.logitBias.length ?? 0)
    this.#ints.set(endIds, this.#layout.endIds + slot * MAX_END_IDS)
    for (const [i, [id, bias]] of (a?.logitBias ?? []).entries()) {
      this.#ints[this.#layout.biasIds + slot * MOST_BIASES + i] = id
      this.#doubles[this.#layout.biasValues + slot * MOST_BIASES + i] = bias
    }
  }

  /** What row t of a completed step left for the flag `logprobs`: of its token, and of the k most likely ones. */
  logprobs(epoch: number, t: number, k: number): RowLogprobs {
    const at = this.#layout.logprobs + (ringOf(epoch) * this.#stepRows + t) * LOGPROB_VALUES
    const value = (i: number) => this.#doubles[at + i] as number
    return { logprob: value(0), top: Array.from({ length: k }, (_, i) => ({ token: value(1 + 2 * i), logprob: value(2 + 2 * i) })) }
  }

  /** Token sampled from row t of a completed step; -1 if its logits were not finite. */
  sampled(epoch: number, t: number): number {
    return this.#ints[this.#layout.sampled + ringOf(epoch) * this.#stepRows + t] as number
  }

  /** Log-probability that row t of a completed step was asked for; NaN if its logits were not finite. */
  score(epoch: number, t: number): number {
    return this.#doubles[this.#layout.scores + ringOf(epoch) * this.#stepRows + t] as number
  }

  counters(rank: number): RankCounters {
    const c = new Float64Array(this.#buffer, this.#layout.counters + rank * COUNTERS.values * 8, COUNTERS.values)
    const waits = SITES.map((site, i) => [site, c[COUNTERS.waitMs + i] as number] as const).filter(([, ms]) => ms > 0)
    const computed = PHASES.map((phase, i) => [phase, c[COUNTERS.computeMs + i] as number] as const).filter(([, ms]) => ms > 0)
    return {
      shardedWeightBytes: c[COUNTERS.shardedWeightBytes] as number,
      replicatedWeightBytes: c[COUNTERS.replicatedWeightBytes] as number,
      cacheBytes: c[COUNTERS.cacheBytes] as number,
      steps: c[COUNTERS.steps] as number,
      stepMs: c[COUNTERS.stepMs] as number,
      waitMs: Object.fromEntries(waits),
      computeMs: Object.fromEntries(computed),
    }
  }
}

function isPenalized({ adjustments: a }: Sequence): boolean {
  return a !== undefined && (a.repetitionPenalty !== 1 || a.presencePenalty !== 0 || a.frequencyPenalty !== 0)
}

/** Which of the two step slots an epoch uses. */
export function ringOf(epoch: number): number {
  return epoch & (STEP_RING - 1)
}

export function sequencesOf(rows: readonly StepRow[]): Set<Sequence> {
  return new Set(rows.map((row) => row.sequence))
}
