// A step as a rank reads it from the mailbox. The coordinator wrote it before bumping the epoch; it changes only after
// the step has ended, so plain reads are enough.
import {
  COPY,
  LOGPROB_VALUES,
  layoutMailbox,
  MAX_END_IDS,
  type MailboxLayout,
  MOST_BIASES,
  ROW,
  SLOT,
  STEP_HEADER,
  STEP_RING,
} from './mailbox-layout.js'

export class StepView {
  readonly #ints: Int32Array
  readonly #floats: Float32Array
  readonly #doubles: Float64Array
  readonly #layout: MailboxLayout
  readonly #stepRows: number
  readonly #pagesPerSlot: number
  #base = 0
  #ring = 0

  constructor(mailbox: SharedArrayBuffer, stepRows: number, slots: number, pagesPerSlot: number) {
    this.#ints = new Int32Array(mailbox)
    this.#floats = new Float32Array(mailbox)
    this.#doubles = new Float64Array(mailbox)
    this.#layout = layoutMailbox(stepRows, slots, pagesPerSlot)
    this.#stepRows = stepRows
    this.#pagesPerSlot = pagesPerSlot
  }

  open(epoch: number): void {
    this.#ring = epoch & (STEP_RING - 1)
    this.#base = this.#ring * this.#layout.stepInts
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

  temperature(t: number): number {
    return this.#floats[this.#base + STEP_HEADER.ints + t * ROW.ints + ROW.temperature] as number
  }

  /** Page number of a sequence's i-th page. */
  page(slot: number, i: number): number {
    return this.#ints[this.#layout.blockTables + slot * this.#pagesPerSlot + i] as number
  }

  /** Sampling parameter of a slot; `field` is one of SLOT. */
  param(slot: number, field: number): number {
    return this.#doubles[this.#layout.slotParams + slot * SLOT.values + field] as number
  }

  biasId(slot: number, i: number): number {
    return this.#ints[this.#layout.biasIds + slot * MOST_BIASES + i] as number
  }

  biasValue(slot: number, i: number): number {
    return this.#doubles[this.#layout.biasValues + slot * MOST_BIASES + i] as number
  }

  endId(slot: number, i: number): number {
    return this.#ints[this.#layout.endIds + slot * MAX_END_IDS + i] as number
  }

  /** Token of a slot's sequence at a position that the coordinator knows; of slots with penalties only. */
  known(slot: number, position: number): number {
    return this.#ints[this.#layout.history + slot * this.#layout.contextTokens + position] as number
  }

  /** Value i of what row t leaves for the flag `logprobs`. */
  setLogprob(t: number, i: number, value: number): void {
    this.#doubles[this.#layout.logprobs + (this.#ring * this.#stepRows + t) * LOGPROB_VALUES + i] = value
  }

  setScore(t: number, logProbability: number): void {
    this.#doubles[this.#layout.scores + this.#ring * this.#stepRows + t] = logProbability
  }

  setSampled(t: number, token: number): void {
    Atomics.store(this.#ints, this.#layout.sampled + this.#ring * this.#stepRows + t, token)
  }
}
