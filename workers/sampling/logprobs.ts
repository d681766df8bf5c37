// Log-probabilities of one token and of the most likely ones, in the model's own distribution, before any adjustment.
import type { KernelBackend } from '../../kernels/backend.js'
import type { Rows } from '../../kernels/rows.js'
import { MAX_LOGPROBS } from '../mailbox/mailbox-layout.js'
import type { StepReader } from '../mailbox/step-buffer.js'

export class Logprobs {
  readonly #kernels: KernelBackend
  readonly #step: StepReader
  readonly #vocab: number
  /** The most likely ids so far, in descending order; ties in ascending order of ids. */
  readonly #ids = new Int32Array(MAX_LOGPROBS)
  readonly #values = new Float64Array(MAX_LOGPROBS)

  constructor(kernels: KernelBackend, step: StepReader, vocab: number) {
    this.#kernels = kernels
    this.#step = step
    this.#vocab = vocab
  }

  /** Writes those of token `id` and of the `k` most likely tokens as row t's; row `at` of logits. NaN where logits are not finite. */
  leave(t: number, logits: Rows, at: number, id: number, k: number): void {
    const row = logits.row(at)
    const count = Math.min(k, this.#vocab)
    // The token's own is the same number as its score; logit - shift is the log-probability of the others.
    const own = this.#kernels.logProbability(logits, at, this.#vocab, id)
    const shift = (row[id] as number) - own
    this.#step.setLogprob(t, 0, own)
    let found = 0
    for (let i = 0; i < this.#vocab; i++) {
      const value = row[i] as number
      if (found === count && !(value > (this.#values[count - 1] as number))) continue
      let place = found < count ? found++ : count - 1
      while (place > 0 && value > (this.#values[place - 1] as number)) {
        this.#values[place] = this.#values[place - 1] as number
        this.#ids[place] = this.#ids[place - 1] as number
        place--
      }
      this.#values[place] = value
      this.#ids[place] = i
    }
    for (let i = 0; i < count; i++) {
      const other = this.#ids[i] as number
      this.#step.setLogprob(t, 1 + 2 * i, other)
      this.#step.setLogprob(t, 2 + 2 * i, other === id ? own : (this.#values[i] as number) - shift)
    }
  }
}
