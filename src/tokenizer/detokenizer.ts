// Text as it grows, token by token: never half a UTF-8 character, and the pieces join to the whole decode.
import type { Tokenizer } from './tokenizer.js'

const REPLACEMENT = '\ufffd'

export class Detokenizer {
  readonly #tokenizer: Tokenizer | undefined
  readonly #ids: number[] = []
  /** Ids before this one are printed; from #context on they are decoded again, since a decode may depend on the ids before. */
  #printed = 0
  #context = 0

  constructor(tokenizer: Tokenizer | undefined) {
    this.#tokenizer = tokenizer
  }

  /** The text that this token completes; empty while a character is still open, or without a tokenizer. */
  push(id: number): string {
    if (!this.#tokenizer) return ''
    this.#ids.push(id)
    const text = this.#pending(this.#tokenizer)
    if (text === '' || text.endsWith(REPLACEMENT)) return ''
    this.#advance()
    return text
  }

  /** What is left at the end: an unfinished character becomes U+FFFD. */
  flush(): string {
    if (!this.#tokenizer) return ''
    const text = this.#pending(this.#tokenizer)
    this.#advance()
    return text
  }

  #pending(tokenizer: Tokenizer): string {
    const before = tokenizer.decode(this.#ids.slice(this.#context, this.#printed))
    return tokenizer.decode(this.#ids.slice(this.#context)).slice(before.length)
  }

  #advance(): void {
    this.#context = this.#printed
    this.#printed = this.#ids.length
  }
}
