// What a client has got of each choice. After a replay begins, chunks are the same output from its start: what was delivered is cut off.
import type { IndexedChunk } from '../../engine/engine.js'

interface Count {
  tokens: number
  characters: number
}

export class Delivery {
  readonly #push: (chunk: IndexedChunk) => void
  readonly #delivered = new Map<number, Count>()
  /** Of the run at hand. */
  #seen = new Map<number, Count>()

  constructor(push: (chunk: IndexedChunk) => void) {
    this.#push = push
  }

  /** A run begins, the first or a replay. */
  begin(): void {
    this.#seen = new Map()
  }

  take(chunk: IndexedChunk): void {
    const { index, tokens, text, logprobs } = chunk
    const seen = this.#seen.get(index) ?? { tokens: 0, characters: 0 }
    const delivered = this.#delivered.get(index) ?? { tokens: 0, characters: 0 }
    const skip = Math.min(tokens.length, Math.max(0, delivered.tokens - seen.tokens))
    const skipText = Math.min(text.length, Math.max(0, delivered.characters - seen.characters))
    seen.tokens += tokens.length
    seen.characters += text.length
    this.#seen.set(index, seen)
    if (skip === tokens.length && skipText === text.length && tokens.length + text.length > 0) return
    this.#delivered.set(index, { tokens: Math.max(delivered.tokens, seen.tokens), characters: Math.max(delivered.characters, seen.characters) })
    this.#push({ index, tokens: tokens.slice(skip), text: text.slice(skipText), ...(logprobs && { logprobs: logprobs.slice(skip) }) })
  }
}
