// Single tokens as answers with log-probabilities show them. A decoder gives text, in which a token that is part of a character becomes U+FFFD; the
// bytes of consecutive tokens always join to the bytes of their text.
import type { Tokenizer } from './tokenizer-interface.js'

/** A token as it looks in a text. */
export interface TokenPiece {
  /** UTF-8; empty for special tokens, which leave no text, and for ids without a token. */
  readonly bytes: Uint8Array
  /** How a special token is written. */
  readonly special?: string
}

const NONE: TokenPiece = { bytes: new Uint8Array() }

/** Looks pieces up by id. Without a tokenizer every piece is empty. */
export class TokenPieces {
  readonly #tokenizer: Tokenizer | undefined
  readonly #specials: ReadonlyMap<number, string>

  constructor(tokenizer: Tokenizer | undefined) {
    this.#tokenizer = tokenizer
    const texts = tokenizer?.controlTokens ?? []
    this.#specials = new Map(texts.flatMap((text) => idOf(tokenizer, text).map((id) => [id, text] as const)))
  }

  piece(id: number): TokenPiece {
    if (!this.#tokenizer) return NONE
    const special = this.#specials.get(id)
    return special === undefined ? { bytes: this.#tokenizer.bytesOf(id) } : { bytes: NONE.bytes, special }
  }
}

function idOf(tokenizer: Tokenizer | undefined, text: string): number[] {
  const id = tokenizer?.controlId(text)
  return id === undefined ? [] : [id]
}
