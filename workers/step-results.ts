// What a rank makes of gathered logits: sampled tokens, and scores. The same for every backend: it runs on the CPU over the exchange
// memory, so that all ranks know every token without another collective.
import type { KernelSpace } from '../kernels/backend.js'
import type { Rows } from '../kernels/rows.js'
import type { Exchange } from './exchange.js'
import { LAST_SAMPLED, ROW, ROW_FLAGS } from './layout.js'
import { sampleRow } from './sampler.js'
import type { StepView } from './step-view.js'

const WANTED = ROW_FLAGS.logits | ROW_FLAGS.sample | ROW_FLAGS.score

export class StepResults {
  readonly #rank: number
  readonly #ranks: number
  readonly #vocab: number
  readonly #step: StepView
  readonly #exchange: Exchange
  readonly #lastSampled: Int32Array

  constructor(rank: number, ranks: number, vocab: number, slots: number, step: StepView, exchange: Exchange) {
    this.#rank = rank
    this.#ranks = ranks
    this.#vocab = vocab
    this.#step = step
    this.#exchange = exchange
    this.#lastSampled = new Int32Array(slots)
  }

  /** Row t's logits are wanted. */
  wants(t: number): boolean {
    return (this.#step.int(t, ROW.flags) & WANTED) !== 0
  }

  /** The token of row t, given or sampled for its slot by the previous step. */
  token(t: number): number {
    const given = this.#step.int(t, ROW.token)
    return given === LAST_SAMPLED ? (this.#lastSampled[this.#step.int(t, ROW.slot)] as number) : given
  }

  /** After the gather: samples and scores what the rows of the step ask for. */
  take(tokens: number): void {
    const step = this.#step
    const logits = this.#exchange.logits[step.ring] as Rows
    for (let t = 0, at = 0; t < tokens; t++) {
      const flags = step.int(t, ROW.flags)
      if ((flags & WANTED) === 0) continue
      if ((flags & ROW_FLAGS.sample) !== 0) {
        // -1: not finite. The coordinator ends that request; a row that was scheduled ahead of it computes from token 0.
        const token = sampleRow(this.#exchange.space, step, t, logits, at, this.#vocab, this.#exchange.sampling)
        this.#lastSampled[step.int(t, ROW.slot)] = Math.max(0, token)
        if (this.#rank === 0) step.setSampled(t, token)
      }
      // Nothing in the ranks depends on a score, so they share the work.
      if ((flags & ROW_FLAGS.score) !== 0 && at % this.#ranks === this.#rank) this.#score(t, logits, at)
      at++
    }
  }

  #score(t: number, logits: Rows, at: number): void {
    const space: KernelSpace = this.#exchange.space
    this.#step.setSampled(t, space.argmax(logits, at, this.#vocab))
    this.#step.setScore(t, space.logProbability(logits, at, this.#vocab, this.#step.int(t, ROW.target)))
  }
}
