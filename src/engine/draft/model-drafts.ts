// Drafts of one sequence by a draft model: how many, when, and when not to ask at all. Knows the model as a function.
import type { Drafts } from '../scheduling/drafts.js'

export interface DraftSource {
  /** Most tokens of a proposal. */
  readonly maxTokens: number
  /** Calls `done` once, later, with up to `count` tokens after `tokens`. Returns what stops it. */
  guess(tokens: readonly number[], count: number, done: (guesses: readonly number[]) => void): () => void
}

/** Length of a first proposal: with the token before it a step has six rows, which float kernels compute at once. */
const FIRST_LENGTH = 5
/** Most tokens that are generated without drafts after drafts were wrong again and again. */
const LONGEST_REST = 64

export class ModelDrafts implements Drafts {
  readonly #source: DraftSource
  drafted = 0
  accepted = 0
  /** Length of the next proposal: a step of twice as many rows as the last if all was right, else one more than was right. */
  #length: number
  /** What `drafted` and `accepted` were before the last proposal. */
  #before = { drafted: 0, accepted: 0 }
  /** Proposals in a row of which nothing was right. */
  #misses = 0
  #restUntil = 0
  /** Length of the sequence that the last proposal follows. */
  #asked = -1
  /** Undefined: it is being made. */
  #guesses: readonly number[] | undefined
  #stop = () => {}

  constructor(source: DraftSource) {
    this.#source = source
    this.#length = Math.min(FIRST_LENGTH, source.maxTokens)
  }

  propose(tokens: readonly number[], limit: number): readonly number[] | undefined {
    if (tokens.length === this.#asked) return this.#guesses?.slice(0, Math.max(0, limit))
    if (limit <= 0) return []
    if (this.#asked >= 0) this.#learn(tokens.length)
    if (tokens.length < this.#restUntil) return []
    this.#asked = tokens.length
    this.#before = { drafted: this.drafted, accepted: this.accepted }
    this.#guesses = undefined
    this.#stop = this.#source.guess(tokens, Math.min(this.#length, limit), (guesses) => {
      this.#guesses = guesses
    })
    return undefined
  }

  restsAt(length: number): boolean {
    return length < this.#restUntil
  }

  /** Stops what is being made. */
  close(): void {
    this.#stop()
  }

  /** From what became of the last proposal. */
  #learn(length: number): void {
    const drafted = this.drafted - this.#before.drafted
    const accepted = this.accepted - this.#before.accepted
    this.#asked = -1
    if (accepted > 0) {
      this.#misses = 0
      this.#length = Math.min(this.#source.maxTokens, accepted === drafted ? 2 * drafted + 1 : accepted + 1)
      return
    }
    this.#length = Math.max(1, this.#length >> 1)
    this.#restUntil = length + Math.min(LONGEST_REST, 2 ** this.#misses++ - 1)
  }
}
