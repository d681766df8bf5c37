// Texts that are followed token by token under a grammar. One of these serves all texts of its grammar, which share what was found out about it.
import { Automaton } from './automaton.js'
import type { GrammarSource } from './matcher-messages.js'
import { Network } from './network.js'
import { type TagFormat, tagNetwork } from './tag-network.js'
import { type TokenMask, TokenMasks } from './token-masks.js'
import type { TokenTrie } from './token-trie.js'
import { Refused } from './unsupported.js'

/** Of an automaton, each with 1 KiB; beyond it a new one is begun, and texts are followed from their beginnings. */
const MAX_POSITIONS = 65_536

/** Throws Refused for a grammar that cannot be read. */
export function networkOf({ kind, text }: GrammarSource): { readonly network: Network; readonly start: number } {
  if (kind === 'tag') return tagNetwork(JSON.parse(text) as TagFormat)
  const network = new Network()
  const start = network.addGrammar(text)
  network.finish()
  return { network, start }
}

/** One text. */
export interface FollowedText {
  readonly tokens: number[]
  matcher: { readonly automaton: Automaton; readonly masks: TokenMasks }
  position: number
}

export class GrammarMatcher {
  readonly #network: Network
  readonly #start: number
  readonly #trie: TokenTrie
  readonly #bytesOf: (id: number) => Uint8Array
  readonly #maxPositions: number
  #newest: FollowedText['matcher']

  /** Throws Refused. */
  constructor(source: GrammarSource, trie: TokenTrie, bytesOf: (id: number) => Uint8Array, maxPositions = MAX_POSITIONS) {
    const { network, start } = networkOf(source)
    this.#network = network
    this.#start = start
    this.#trie = trie
    this.#bytesOf = bytesOf
    this.#maxPositions = maxPositions
    this.#newest = this.#fresh()
  }

  #fresh(): FollowedText['matcher'] {
    const automaton = new Automaton(this.#network, this.#start)
    return { automaton, masks: new TokenMasks(automaton, this.#trie) }
  }

  get maskBytes(): number {
    return this.#newest.masks.bytes
  }

  forgetMasks(): void {
    this.#newest.masks.clear()
  }

  /** A text that has these tokens already. Throws Refused. */
  follow(tokens: readonly number[]): FollowedText {
    if (this.#newest.automaton.positions > this.#maxPositions) this.#newest = this.#fresh()
    const text: FollowedText = { tokens: [], matcher: this.#newest, position: this.#newest.automaton.start }
    for (const token of tokens) this.#step(text, token)
    return text
  }

  /** Throws Refused for a token that is not allowed. */
  accept(text: FollowedText, token: number): void {
    this.#step(text, token)
    if (text.matcher.automaton.positions <= this.#maxPositions) return
    const { matcher, position } = this.follow(text.tokens)
    text.matcher = matcher
    text.position = position
  }

  #step(text: FollowedText, token: number): void {
    const next = text.matcher.masks.after(text.position, this.#bytesOf(token))
    if (next < 0) throw new Refused(`token ${token} is not allowed`)
    text.position = next
    text.tokens.push(token)
  }

  /** The tokens that may follow; the text may end: whether one of those that end it may. */
  next({ matcher, position }: FollowedText): TokenMask & { readonly mayEnd: boolean } {
    const { bits, allowed } = matcher.masks.at(position)
    return { bits, allowed, mayEnd: matcher.automaton.ends(position) }
  }
}
