// Samples tokens and computes scores from gathered logits. The same for every backend: it runs on the CPU over the exchange memory, so
// that all ranks know every token without another collective.
import type { KernelBackend } from '../../kernels/backend.js'
import type { Rows } from '../../kernels/rows.js'
import type { Exchange } from '../collectives/exchange.js'
import { LAST_SAMPLED, ROW, ROW_FLAGS, SLOT } from '../mailbox/mailbox-layout.js'
import type { StepReader } from '../mailbox/step-buffer.js'
import type { RunPlan } from '../protocol.js'
import { Logprobs } from './logprobs.js'
import { Sampler } from './sampler.js'

const WANTED = ROW_FLAGS.logits | ROW_FLAGS.sample | ROW_FLAGS.score | ROW_FLAGS.logprobs | ROW_FLAGS.observed

export class StepResults {
  readonly #rank: number
  readonly #ranks: number
  readonly #vocab: number
  readonly #step: StepReader
  readonly #exchange: Exchange
  readonly #lastSampled: Int32Array
  readonly #sampler: Sampler
  readonly #logprobs: Logprobs

  constructor(rank: number, { ranks, slots }: Pick<RunPlan, 'ranks' | 'slots'>, vocab: number, step: StepReader, exchange: Exchange) {
    this.#rank = rank
    this.#ranks = ranks
    this.#vocab = vocab
    this.#step = step
    this.#exchange = exchange
    this.#lastSampled = new Int32Array(slots)
    this.#sampler = new Sampler(exchange.kernels, step, vocab, slots, exchange.sampling)
    this.#logprobs = new Logprobs(exchange.kernels, step, vocab)
  }

  /** Row t's logits are wanted. */
  wants(t: number): boolean {
    return (this.#step.int(t, ROW.flags) & WANTED) !== 0
  }

  /** Row t wants no more of its logits than the id of the largest: it samples greedily, without adjustments, and nothing else. */
  wantsLargest(t: number): boolean {
    const step = this.#step
    if ((step.int(t, ROW.flags) & WANTED) !== ROW_FLAGS.sample) return false
    const slot = step.int(t, ROW.slot)
    return step.param(slot, SLOT.adjusted) === 0 && step.param(slot, SLOT.temperature) === 0
  }

  /** The token of row t: given, or sampled for its slot by the previous step. */
  token(t: number): number {
    const given = this.#step.int(t, ROW.token)
    return given === LAST_SAMPLED ? (this.#lastSampled[this.#step.int(t, ROW.slot)] as number) : given
  }

  /**
   * Call after the gather: samples and scores the rows of the step that want it. largest: by wanted row, the id of the largest logit (-1:
   * not finite) where it is known already; the logits of these rows are not read.
   */
  take(tokens: number, largest: readonly (number | undefined)[] = []): void {
    const step = this.#step
    const logits = this.#exchange.logits[step.ring] as Rows
    for (let t = 0, at = 0; t < tokens; t++) {
      const flags = step.int(t, ROW.flags)
      if ((flags & WANTED) === 0) continue
      if ((flags & ROW_FLAGS.sample) !== 0) {
        // -1: not finite. The coordinator ends that request; a row of it that was scheduled ahead computes token 0.
        const slot = step.int(t, ROW.slot)
        const token = largest[at] ?? this.#sampler.sample(t, logits, at, this.#lastSampled[slot] as number)
        this.#lastSampled[slot] = Math.max(0, token)
        if (this.#rank === 0) step.setSampled(t, token)
      }
      // No rank needs another's scores, so they share the work.
      if (at % this.#ranks === this.#rank) {
        if ((flags & ROW_FLAGS.score) !== 0) this.#score(t, logits, at)
        if ((flags & ROW_FLAGS.logprobs) !== 0) this.#leaveLogprobs(t, flags, logits, at)
      }
      at++
    }
  }

  #leaveLogprobs(t: number, flags: number, logits: Rows, at: number): void {
    const slot = this.#step.int(t, ROW.slot)
    const id = (flags & ROW_FLAGS.sample) !== 0 ? (this.#lastSampled[slot] as number) : this.#step.int(t, ROW.target)
    this.#logprobs.leave(t, logits, at, id, this.#step.param(slot, SLOT.logprobs))
  }

  #score(t: number, logits: Rows, at: number): void {
    const kernels: KernelBackend = this.#exchange.kernels
    this.#step.setSampled(t, kernels.argmax(logits, at, this.#vocab))
    this.#step.setScore(t, kernels.logProbability(logits, at, this.#vocab, this.#step.int(t, ROW.target)))
  }
}
