// Removes from a replayed output what the client has already received. A replay gives the same chunks from the start, cut at other places.
import type { IndexedChunk } from '../../engine/engine.js'

interface Amount {
  tokens: number
  characters: number
}

export class ReplayFilter {
  readonly #push: (chunk: IndexedChunk) => void
  /** What the client has received, by the index of the completion. */
  readonly #delivered = new Map<number, Amount>()
  /** What the current run has produced. */
  #produced = new Map<number, Amount>()

  constructor(push: (chunk: IndexedChunk) => void) {
    this.#push = push
  }

  /** A run begins: the first one, or a replay. */
  begin(): void {
    this.#produced = new Map()
  }

  take(chunk: IndexedChunk): void {
    const { index, tokens, text, logprobs } = chunk
    const produced = this.#produced.get(index) ?? { tokens: 0, characters: 0 }
    const delivered = this.#delivered.get(index) ?? { tokens: 0, characters: 0 }
    const skip = Math.min(tokens.length, Math.max(0, delivered.tokens - produced.tokens))
    const skipText = Math.min(text.length, Math.max(0, delivered.characters - produced.characters))
    produced.tokens += tokens.length
    produced.characters += text.length
    this.#produced.set(index, produced)
    if (skip === tokens.length && skipText === text.length && tokens.length + text.length > 0) return
    this.#delivered.set(index, {
      tokens: Math.max(delivered.tokens, produced.tokens),
      characters: Math.max(delivered.characters, produced.characters),
    })
    this.#push({ index, tokens: tokens.slice(skip), text: text.slice(skipText), ...(logprobs && { logprobs: logprobs.slice(skip) }) })
  }
}
