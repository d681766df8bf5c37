// Draft tokens by prompt lookup: what followed the last n tokens when they last occurred before. Pure logic.
import type { Drafts } from './drafts.js'

export interface Speculation {
  /** Length of the n-gram that must recur, 1..16. */
  readonly ngram: number
  /** Maximum draft tokens of a step, 1..64. */
  readonly maxTokens: number
}

export class NgramDrafts implements Drafts {
  readonly #ngram: number
  readonly #maxTokens: number
  /** n-gram -> position after its latest occurrence. */
  readonly #after = new Map<string, number>()
  /** N-grams that end before this position are known. */
  #indexed: number
  drafted = 0
  accepted = 0

  constructor({ ngram, maxTokens }: Speculation) {
    this.#ngram = ngram
    this.#maxTokens = maxTokens
    this.#indexed = ngram
  }

  /** Up to `limit` tokens that may follow. `tokens` only ever grows between calls. */
  propose(tokens: readonly number[], limit: number): number[] {
    const n = this.#ngram
    const key = (end: number) => tokens.slice(end - n, end).join()
    // The n-gram at the end is looked up before it is known itself.
    for (; this.#indexed < tokens.length; this.#indexed++) this.#after.set(key(this.#indexed), this.#indexed)
    const start = tokens.length > n ? this.#after.get(key(tokens.length)) : undefined
    if (start === undefined) return []
    return tokens.slice(start, start + Math.min(this.#maxTokens, Math.max(0, limit)))
  }

  /** It looks at the newest token first. */
  restsAt(): boolean {
    return false
  }

  close(): void {}
}
