// Which tokens may come at a position of an automaton: a walk over the vocabulary's tree, remembered by position.
import type { Automaton } from './automaton.js'
import type { TokenTrie } from './token-trie.js'

export interface TokenMask {
  /** One bit for each token, [ceil(vocab / 32)]. */
  readonly bits: Int32Array
  readonly allowed: number
}

export class TokenMasks {
  readonly #automaton: Automaton
  readonly #trie: TokenTrie
  readonly #masks = new Map<number, TokenMask>()
  readonly #path: Int32Array

  constructor(automaton: Automaton, trie: TokenTrie) {
    this.#automaton = automaton
    this.#trie = trie
    this.#path = new Int32Array(trie.maxDepth + 1)
  }

  get bytes(): number {
    return this.#masks.size * 4 * Math.ceil(this.#trie.vocab / 32)
  }

  clear(): void {
    this.#masks.clear()
  }

  /** The position after a token, or -1: the token may not come. */
  after(position: number, bytes: Uint8Array): number {
    let at = position
    for (const byte of bytes) {
      if (at < 0) return at
      this.#automaton.know(at)
      at = this.#automaton.table[256 * at + byte] as number
    }
    return at
  }

  at(position: number): TokenMask {
    let mask = this.#masks.get(position)
    if (!mask) {
      mask = this.#walk(position)
      this.#masks.set(position, mask)
    }
    return mask
  }

  #walk(position: number): TokenMask {
    const automaton = this.#automaton
    const path = this.#path
    const { vocab, bytes, depths, ends, tokens, others } = this.#trie
    const bits = new Int32Array(Math.ceil(vocab / 32))
    let allowed = 0
    automaton.know(position)
    let table = automaton.table
    path[0] = position
    for (let node = 0; node < bytes.length; ) {
      const depth = depths[node] as number
      const next = table[256 * (path[depth] as number) + (bytes[node] as number)] as number
      if (next < 0) {
        node = ends[node] as number
        continue
      }
      for (let token = tokens[node] as number; token >= 0; token = others[token] as number) {
        bits[token >> 5] = (bits[token >> 5] as number) | (1 << (token & 31))
        allowed++
      }
      if (ends[node] !== node + 1) {
        automaton.know(next)
        table = automaton.table
        path[depth + 1] = next
      }
      node++
    }
    return { bits, allowed }
  }
}
