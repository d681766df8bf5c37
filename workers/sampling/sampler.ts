// Chooses tokens from gathered logits. Every rank does it over the same bits, so all know the token without another collective and the
// next step can start before the coordinator has seen it.
//
// Order: logitBias; repetition penalty, then presence and frequency penalties; ids that end the text are barred below minTokens;
// greedy at temperature 0, else temperature, topK, topP, minP, typicalP, and the inverse CDF over ids in ascending order.
import type { KernelBackend } from '../../kernels/backend.js'
import { uniform } from '../../kernels/portable-math.js'
import type { Rows, Scalars } from '../../kernels/rows.js'
import { samplingScalars } from '../layout/exchange-layout.js'
import { LAST_SAMPLED, ROW, SLOT } from '../mailbox/mailbox-layout.js'
import type { StepView } from '../mailbox/step-view.js'
import { TokenFilters } from './filters.js'

export class Sampler {
  readonly #kernels: KernelBackend
  readonly #step: StepView
  readonly #vocab: number
  /** Byte offset of the weights. */
  readonly #weightsAt: number
  /** Adjusted logits, one row; and the same as scalars. */
  readonly #adjusted: Rows
  readonly #logits: Scalars
  readonly #weights: Scalars
  readonly #filters: TokenFilters
  /** How often each token occurs in the sequence at hand, and in its output. Zeros between rows. */
  readonly #counts: Int32Array
  readonly #outputCounts: Int32Array

  /** scratch: a byte offset in the kernels' memory, with room for twice samplingScalars(vocab). */
  constructor(kernels: KernelBackend, step: StepView, vocab: number, scratch: number) {
    this.#kernels = kernels
    this.#step = step
    this.#vocab = vocab
    this.#weightsAt = scratch + samplingScalars(vocab) * kernels.scalarBytes
    this.#adjusted = kernels.rows(scratch, vocab)
    const scalars = (at: number) => kernels.scalars.subarray(at / kernels.scalarBytes, at / kernels.scalarBytes + vocab)
    this.#logits = scalars(scratch)
    this.#weights = scalars(this.#weightsAt)
    this.#filters = new TokenFilters(vocab)
    this.#counts = new Int32Array(vocab)
    this.#outputCounts = new Int32Array(vocab)
  }

  /** The token after row t of the step, or -1 if its logits (row `at`) are not finite. lastSampled: what the row's own token is if it says so. */
  sample(t: number, logits: Rows, at: number, lastSampled: number): number {
    const step = this.#step
    const slot = step.int(t, ROW.slot)
    const temperature = step.temperature(t)
    if (step.param(slot, SLOT.adjusted) === 0) {
      if (temperature === 0) return this.#kernels.argmax(logits, at, this.#vocab)
      return this.#kernels.sample(logits, at, this.#vocab, temperature, this.#uniform(t, slot), this.#weightsAt)
    }
    if (this.#kernels.argmax(logits, at, this.#vocab) < 0) return -1
    this.#logits.set(logits.row(at).subarray(0, this.#vocab))
    this.#bias(slot)
    if (step.param(slot, SLOT.penalized) !== 0) this.#penalize(t, slot, lastSampled)
    this.#bar(t, slot)
    if (temperature === 0) return this.#kernels.argmax(this.#adjusted, 0, this.#vocab)
    const top = this.#kernels.softWeights(this.#adjusted, 0, this.#vocab, temperature, this.#weightsAt)
    if (top < 0) return -1
    const { topK, topP, minP, typicalP } = SLOT
    this.#filters.keepMostLikely(this.#weights, step.param(slot, topK), step.param(slot, topP), step.param(slot, minP))
    this.#filters.keepTypical(this.#weights, this.#logits, temperature, step.param(slot, typicalP))
    return this.#pick(this.#uniform(t, slot), top)
  }

  #uniform(t: number, slot: number): number {
    const step = this.#step
    return uniform(step.int(t, ROW.seedLow), step.int(t, ROW.seedHigh), step.param(slot, SLOT.choice), step.int(t, ROW.position) + 1)
  }

  #bias(slot: number): void {
    const count = this.#step.param(slot, SLOT.biases)
    for (let i = 0; i < count; i++) {
      const id = this.#step.biasId(slot, i)
      this.#logits[id] = (this.#logits[id] as number) + this.#step.biasValue(slot, i)
    }
  }

  /** Tokens up to row t's own count. */
  #penalize(t: number, slot: number, lastSampled: number): void {
    const step = this.#step
    const last = step.int(t, ROW.position)
    const promptLength = step.param(slot, SLOT.promptLength)
    const repetition = step.param(slot, SLOT.repetitionPenalty)
    const presence = step.param(slot, SLOT.presencePenalty)
    const frequency = step.param(slot, SLOT.frequencyPenalty)
    const given = step.int(t, ROW.token)
    const newest = given === LAST_SAMPLED ? lastSampled : given
    for (let p = 0; p <= last; p++) {
      const id = p < last ? step.known(slot, p) : newest
      this.#counts[id] = (this.#counts[id] as number) + 1
      if (p >= promptLength) this.#outputCounts[id] = (this.#outputCounts[id] as number) + 1
    }
    for (let p = 0; p <= last; p++) {
      const id = p < last ? step.known(slot, p) : newest
      if (this.#counts[id] === 0) continue
      let value = this.#logits[id] as number
      value = value > 0 ? value / repetition : value * repetition
      const output = this.#outputCounts[id] as number
      if (output > 0) value = value - presence - frequency * output
      this.#logits[id] = value
      this.#counts[id] = 0
      this.#outputCounts[id] = 0
    }
  }

  /** Ids that would end the text too early. */
  #bar(t: number, slot: number): void {
    const step = this.#step
    if (step.int(t, ROW.position) + 1 >= step.param(slot, SLOT.firstEnd)) return
    const count = step.param(slot, SLOT.forbidden)
    for (let i = 0; i < count; i++) this.#logits[step.endId(slot, i)] = Number.NEGATIVE_INFINITY
  }

  #pick(u: number, top: number): number {
    const weights = this.#weights
    let total = 0
    for (let i = 0; i < this.#vocab; i++) total += weights[i] as number
    const threshold = u * total
    let sum = 0
    for (let i = 0; i < this.#vocab; i++) {
      sum += weights[i] as number
      if (sum > threshold) return i
    }
    return top
  }
}
