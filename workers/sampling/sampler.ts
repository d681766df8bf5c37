// Samples tokens from gathered logits. Every rank does it over the same bits, so all know the token without another collective and the
// next step can start before the coordinator has seen it.
//
// Order: logitBias; repetition penalty, then presence and frequency penalties; ids that end the text are suppressed below minTokens;
// tokens outside of the slot's mask are suppressed; greedy at temperature 0, else temperature, topK, topP, minP, typicalP, and the inverse CDF over ids in ascending order.
import type { KernelBackend } from '../../kernels/backend.js'
import { uniform } from '../../kernels/portable-math.js'
import type { Rows, Scalars } from '../../kernels/rows.js'
import { samplingScalars } from '../layout/exchange-layout.js'
import { LAST_SAMPLED, MASK_MISSED, ROW, SLOT } from '../mailbox/mailbox-layout.js'
import type { StepReader } from '../mailbox/step-buffer.js'
import { TokenFilters } from './filters.js'
import { TokenCounts } from './token-counts.js'

export class Sampler {
  readonly #kernels: KernelBackend
  readonly #step: StepReader
  readonly #vocab: number
  /** Byte offset of the weights. */
  readonly #weightsAt: number
  /** Adjusted logits, one row; and the same as scalars. */
  readonly #adjusted: Rows
  readonly #logits: Scalars
  readonly #weights: Scalars
  readonly #filters: TokenFilters
  /** By slot; made when a sequence with penalties first uses it. */
  readonly #counts: (TokenCounts | undefined)[]

  /** scratch: a byte offset in the kernels' memory, with room for twice samplingScalars(vocab). */
  constructor(kernels: KernelBackend, step: StepReader, vocab: number, slots: number, scratch: number) {
    this.#kernels = kernels
    this.#step = step
    this.#vocab = vocab
    this.#weightsAt = scratch + samplingScalars(vocab) * kernels.scalarBytes
    this.#adjusted = kernels.rows(scratch, vocab)
    const scalars = (at: number) => kernels.scalars.subarray(at / kernels.scalarBytes, at / kernels.scalarBytes + vocab)
    this.#logits = scalars(scratch)
    this.#weights = scalars(this.#weightsAt)
    this.#filters = new TokenFilters(vocab)
    this.#counts = Array.from({ length: slots })
  }

  /** The token after row t of the step, -1 if its logits (row `at`) are not finite, or MASK_MISSED. lastSampled: the row's own token if the row says LAST_SAMPLED. */
  sample(t: number, logits: Rows, at: number, lastSampled: number): number {
    const step = this.#step
    const slot = step.int(t, ROW.slot)
    const temperature = step.param(slot, SLOT.temperature)
    if (step.param(slot, SLOT.adjusted) === 0) {
      if (temperature === 0) return this.#kernels.argmax(logits, at, this.#vocab)
      return this.#kernels.sample(logits, at, this.#vocab, temperature, this.#uniform(t, slot), this.#weightsAt)
    }
    if (this.#kernels.argmax(logits, at, this.#vocab) < 0) return -1
    const constrained = step.param(slot, SLOT.constrained) !== 0
    if (constrained && !step.hasMask(slot)) return MASK_MISSED
    this.#logits.set(logits.row(at).subarray(0, this.#vocab))
    this.#bias(slot)
    if (step.param(slot, SLOT.penalized) !== 0) this.#penalize(t, slot, lastSampled)
    this.#suppress(t, slot)
    if (constrained) this.#mask(slot)
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
    return uniform(step.param(slot, SLOT.seedLow), step.param(slot, SLOT.seedHigh), step.param(slot, SLOT.choice), step.int(t, ROW.position) + 1)
  }

  #bias(slot: number): void {
    const count = this.#step.param(slot, SLOT.biases)
    for (let i = 0; i < count; i++) {
      const id = this.#step.biasId(slot, i)
      this.#logits[id] = (this.#logits[id] as number) + this.#step.biasValue(slot, i)
    }
  }

  /** Penalties for the tokens up to row t's own, which counts as well. */
  #penalize(t: number, slot: number, lastSampled: number): void {
    const step = this.#step
    const repetition = step.param(slot, SLOT.repetitionPenalty)
    const presence = step.param(slot, SLOT.presencePenalty)
    const frequency = step.param(slot, SLOT.frequencyPenalty)
    const given = step.int(t, ROW.token)
    const newest = given === LAST_SAMPLED ? lastSampled : given
    this.#counts[slot] ??= new TokenCounts()
    const seen = this.#counts[slot]
    const known = (position: number) => step.known(slot, position)
    seen.advance(step.param(slot, SLOT.serial), step.param(slot, SLOT.promptLength), step.int(t, ROW.position), newest, known)
    for (const [id, { output }] of seen.counts) {
      let value = this.#logits[id] as number
      value = value > 0 ? value / repetition : value * repetition
      if (output > 0) value = value - presence - frequency * output
      this.#logits[id] = value
    }
  }

  /** Excludes ids that would end the text too early. */
  #suppress(t: number, slot: number): void {
    const step = this.#step
    if (step.int(t, ROW.position) + 1 >= step.param(slot, SLOT.suppressBefore)) return
    const count = step.param(slot, SLOT.suppressed)
    for (let i = 0; i < count; i++) this.#logits[step.suppressedId(slot, i)] = Number.NEGATIVE_INFINITY
  }

  /** Excludes tokens that the slot's mask does not allow. */
  #mask(slot: number): void {
    for (let id = 0; id < this.#vocab; id += 32) {
      const bits = this.#step.mask(slot, id >> 5)
      if (bits === -1) continue
      const end = Math.min(id + 32, this.#vocab)
      if (bits === 0) this.#logits.fill(Number.NEGATIVE_INFINITY, id, end)
      else for (let i = id; i < end; i++) if (((bits >>> (i - id)) & 1) === 0) this.#logits[i] = Number.NEGATIVE_INFINITY
    }
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
