// The mailbox as both sides use it: the coordinator writes steps and reads results, a rank reads steps and writes results. A step is
// written before its epoch is published and changes only after it has ended, so plain reads and writes are enough.
import {
  COPY,
  COUNTERS,
  LOGPROB_VALUES,
  layoutMailbox,
  MASK,
  MAX_BIASES,
  MAX_SUPPRESSED_IDS,
  type MailboxLayout,
  type MailboxSize,
  ROW,
  SLOT,
  STEP_HEADER,
  STEP_RING,
} from './mailbox-layout.js'

/** Longest time that a step waits for masks, all its rows together: less than a row that runs again, and bearable for the other rows. */
const MASK_WAIT_MS = 4

/** Which of the two step places an epoch uses. */
export function ringOf(epoch: number): number {
  return epoch & (STEP_RING - 1)
}

/** Views of the mailbox's memory, and where everything lies in it. */
class MailboxMemory {
  readonly ints: Int32Array
  readonly doubles: Float64Array
  readonly layout: MailboxLayout
  readonly size: MailboxSize

  constructor(buffer: SharedArrayBuffer, size: MailboxSize) {
    this.ints = new Int32Array(buffer)
    this.doubles = new Float64Array(buffer)
    this.layout = layoutMailbox(size)
    this.size = size
  }

  stepAt(epoch: number): number {
    return ringOf(epoch) * this.layout.stepInts
  }

  /** Index of row t of a step in the arrays [STEP_RING][stepRows] of results. */
  resultAt(ring: number, t: number): number {
    return ring * this.size.stepRows + t
  }

  blockTableAt(slot: number): number {
    return this.layout.blockTables + slot * this.size.pagesPerSlot
  }

  maskStateAt(ring: number, slot: number): number {
    return this.layout.maskStates + ring * this.size.slots + slot
  }

  maskAt(ring: number, slot: number): number {
    return this.layout.masks + (ring * this.size.slots + slot) * this.layout.maskInts
  }

  historyAt(slot: number): number {
    return this.layout.history + slot * this.layout.contextTokens
  }
}

/** A mailbox in a shared buffer; every thread opens it with the same size. */
export class StepBuffer {
  readonly #memory: MailboxMemory
  readonly #buffer: SharedArrayBuffer

  constructor(buffer: SharedArrayBuffer, size: MailboxSize) {
    this.#buffer = buffer
    this.#memory = new MailboxMemory(buffer, size)
  }

  static allocate(size: MailboxSize): SharedArrayBuffer {
    return new SharedArrayBuffer(layoutMailbox(size).bytes)
  }

  /** The coordinator's side. */
  writer(): StepWriter {
    return new StepWriter(this.#memory)
  }

  /** A rank's side. */
  reader(): StepReader {
    return new StepReader(this.#memory)
  }

  counterSlots(rank: number): RankCounterSlots {
    return new RankCounterSlots(new Float64Array(this.#buffer, this.#memory.layout.counters + rank * COUNTERS.values * 8, COUNTERS.values))
  }
}

/** Counters of one rank, written by the rank at the end of a step. Fields are those of COUNTERS. */
export class RankCounterSlots {
  readonly #values: Float64Array

  constructor(values: Float64Array) {
    this.#values = values
  }

  get(field: number): number {
    return this.#values[field] as number
  }

  set(field: number, value: number): void {
    this.#values[field] = value
  }

  add(field: number, value: number): void {
    this.#values[field] = this.get(field) + value
  }

  /** Counts a step. waitMs by stage, computeMs by phase: sums since the rank was loaded. */
  endStep(ms: number, waitMs: Float64Array, computeMs?: Float64Array): void {
    this.add(COUNTERS.steps, 1)
    this.add(COUNTERS.stepMs, ms)
    this.#values.set(waitMs, COUNTERS.waitMs)
    if (computeMs) this.#values.set(computeMs, COUNTERS.computeMs)
  }
}

/** One row of a step as it is written. */
export interface RowRecord {
  readonly slot: number
  readonly position: number
  /** Token id, or LAST_SAMPLED. */
  readonly token: number
  /** Of ROW_FLAGS. */
  readonly flags: number
  /** Token id whose probability the row reports. */
  readonly target: number
  /** Place of its adapter, from 1 on; 0: none. Rows of one adapter are adjacent, after those without. */
  readonly adapter: number
}

/** A copy of cached rows as it is written. */
export interface CopyRecord {
  readonly from: number
  readonly to: number
  readonly rows: number
}

/** Values of SLOT by name, except the counts of the lists. */
export type SlotRecord = Readonly<Record<Exclude<keyof typeof SLOT, 'values' | 'biases' | 'suppressed'>, number>>

export class StepWriter {
  readonly #memory: MailboxMemory

  constructor(memory: MailboxMemory) {
    this.#memory = memory
  }

  writeStep(epoch: number, rows: readonly RowRecord[], copies: readonly CopyRecord[]): void {
    const { ints, layout } = this.#memory
    const base = this.#memory.stepAt(epoch)
    ints[base + STEP_HEADER.rows] = rows.length
    ints[base + STEP_HEADER.copies] = copies.length
    for (const [i, { from, to, rows: count }] of copies.entries()) {
      const at = base + layout.copies + i * COPY.ints
      ints[at + COPY.from] = from
      ints[at + COPY.to] = to
      ints[at + COPY.rows] = count
    }
    for (const [t, { slot, position, token, flags, target, adapter }] of rows.entries()) {
      const at = base + STEP_HEADER.ints + t * ROW.ints
      ints[at + ROW.slot] = slot
      ints[at + ROW.position] = position
      ints[at + ROW.token] = token
      ints[at + ROW.flags] = flags
      ints[at + ROW.target] = target
      ints[at + ROW.adapter] = adapter
    }
  }

  /** A slot's sampling parameters. Only while no step in flight has rows of the slot. */
  writeSlot(slot: number, params: SlotRecord, biases: readonly (readonly [id: number, bias: number])[], suppressed: readonly number[]): void {
    const { ints, doubles, layout } = this.#memory
    const values = { ...params, biases: biases.length, suppressed: suppressed.length }
    for (const name of Object.keys(values) as (keyof typeof values)[]) doubles[layout.slotParams + slot * SLOT.values + SLOT[name]] = values[name]
    ints.set(suppressed, layout.suppressedIds + slot * MAX_SUPPRESSED_IDS)
    for (const [i, [id, bias]] of biases.entries()) {
      ints[layout.biasIds + slot * MAX_BIASES + i] = id
      doubles[layout.biasValues + slot * MAX_BIASES + i] = bias
    }
  }

  /** Tokens of a slot's sequence from a position on; of slots with penalties only. */
  writeHistory(slot: number, from: number, tokens: readonly number[]): void {
    this.#memory.ints.set(tokens, this.#memory.historyAt(slot) + from)
  }

  /** The mask of a slot in a step that is not published yet; undefined: it comes later, by offerMask. */
  writeMask(epoch: number, slot: number, mask: Int32Array | undefined): void {
    const ring = ringOf(epoch)
    const { ints } = this.#memory
    if (mask) ints.set(mask, this.#memory.maskAt(ring, slot))
    ints[this.#memory.maskStateAt(ring, slot)] = mask ? MASK.ready : MASK.pending
  }

  /** The mask of a slot in a step that is published. It may come too late: then the row reports MASK_MISSED. */
  offerMask(epoch: number, slot: number, mask: Int32Array): void {
    const ring = ringOf(epoch)
    const { ints } = this.#memory
    ints.set(mask, this.#memory.maskAt(ring, slot))
    const at = this.#memory.maskStateAt(ring, slot)
    if (Atomics.compareExchange(ints, at, MASK.pending, MASK.ready) === MASK.pending) Atomics.notify(ints, at)
  }

  /** A slot's block table. A step in flight reads only earlier entries, which stay as they are. */
  writePages(slot: number, pages: readonly number[]): void {
    this.#memory.ints.set(pages, this.#memory.blockTableAt(slot))
  }

  /** Token sampled from row t of a completed step; -1 if its logits were not finite. Of a row with a score: the most likely token. */
  sampled(epoch: number, t: number): number {
    return this.#memory.ints[this.#memory.layout.sampled + this.#memory.resultAt(ringOf(epoch), t)] as number
  }

  /** Log-probability of the target of row t of a completed step; NaN if its logits were not finite. */
  score(epoch: number, t: number): number {
    return this.#memory.doubles[this.#memory.layout.scores + this.#memory.resultAt(ringOf(epoch), t)] as number
  }

  /** Value i of what row t of a completed step left for the flag `logprobs`. */
  logprob(epoch: number, t: number, i: number): number {
    return this.#memory.doubles[this.#memory.layout.logprobs + this.#memory.resultAt(ringOf(epoch), t) * LOGPROB_VALUES + i] as number
  }
}

/** The step that was opened last. */
export class StepReader {
  readonly #memory: MailboxMemory
  readonly #ints: Int32Array
  readonly #doubles: Float64Array
  readonly #layout: MailboxLayout
  #base = 0
  #ring = 0
  /** How long masks may still be waited for in this step. */
  #maskWaitMs = 0

  constructor(memory: MailboxMemory) {
    this.#memory = memory
    this.#ints = memory.ints
    this.#doubles = memory.doubles
    this.#layout = memory.layout
  }

  open(epoch: number): void {
    this.#ring = ringOf(epoch)
    this.#base = this.#memory.stepAt(epoch)
    this.#maskWaitMs = MASK_WAIT_MS
  }

  get ring(): number {
    return this.#ring
  }

  get rows(): number {
    return this.#ints[this.#base + STEP_HEADER.rows] as number
  }

  get copies(): number {
    return this.#ints[this.#base + STEP_HEADER.copies] as number
  }

  /** Field of copy i; `field` is one of COPY. */
  copy(i: number, field: number): number {
    return this.#ints[this.#base + this.#layout.copies + i * COPY.ints + field] as number
  }

  /** Field of row t; `field` is one of ROW. */
  int(t: number, field: number): number {
    return this.#ints[this.#base + STEP_HEADER.ints + t * ROW.ints + field] as number
  }

  /** Page number of a sequence's i-th page. */
  page(slot: number, i: number): number {
    return this.#ints[this.#memory.blockTableAt(slot) + i] as number
  }

  /** Sampling parameter of a slot; `field` is one of SLOT. */
  param(slot: number, field: number): number {
    return this.#doubles[this.#layout.slotParams + slot * SLOT.values + field] as number
  }

  biasId(slot: number, i: number): number {
    return this.#ints[this.#layout.biasIds + slot * MAX_BIASES + i] as number
  }

  biasValue(slot: number, i: number): number {
    return this.#doubles[this.#layout.biasValues + slot * MAX_BIASES + i] as number
  }

  suppressedId(slot: number, i: number): number {
    return this.#ints[this.#layout.suppressedIds + slot * MAX_SUPPRESSED_IDS + i] as number
  }

  /** Token of a slot's sequence at a position that the coordinator knows; of slots with penalties only. */
  known(slot: number, position: number): number {
    return this.#ints[this.#memory.historyAt(slot) + position] as number
  }

  /** Whether the slot's mask is there, or comes within a short wait: the same answer for every rank. */
  hasMask(slot: number): boolean {
    const at = this.#memory.maskStateAt(this.#ring, slot)
    if (Atomics.load(this.#ints, at) === MASK.pending && this.#maskWaitMs > 0) {
      const start = performance.now()
      Atomics.wait(this.#ints, at, MASK.pending, this.#maskWaitMs)
      this.#maskWaitMs -= performance.now() - start
    }
    return Atomics.compareExchange(this.#ints, at, MASK.pending, MASK.missed) === MASK.ready
  }

  /** 32 bits of the slot's mask, of the tokens from 32 i on. */
  mask(slot: number, i: number): number {
    return this.#ints[this.#memory.maskAt(this.#ring, slot) + i] as number
  }

  /** Value i of what row t leaves for the flag `logprobs`. */
  setLogprob(t: number, i: number, value: number): void {
    this.#doubles[this.#layout.logprobs + this.#memory.resultAt(this.#ring, t) * LOGPROB_VALUES + i] = value
  }

  setScore(t: number, logProbability: number): void {
    this.#doubles[this.#layout.scores + this.#memory.resultAt(this.#ring, t)] = logProbability
  }

  setSampled(t: number, token: number): void {
    Atomics.store(this.#ints, this.#layout.sampled + this.#memory.resultAt(this.#ring, t), token)
  }
}
