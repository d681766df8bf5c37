// Text as it grows, token by token: never half a UTF-8 character, and the pieces join to the whole decode.
import type { Tokenizer } from './tokenizer-interface.js'

const REPLACEMENT = '\ufffd'
/** Tokens of the prompt that are decoded before an answer: a decoder may drop the first space of a text, and an answer is no beginning. */
const CONTEXT_TOKENS = 4

export class Detokenizer {
  readonly #tokenizer: Tokenizer | undefined
  readonly #ids: number[]
  readonly #specialText: (id: number) => string | undefined
  /** Ids before this one are printed; from #context on they are decoded again, since a decode may depend on the ids before. */
  #printed: number
  #context = 0

  /**
   * `prompt`: the token ids before the text; only the last few matter. `specialText`: how a special token is written, undefined for
   * other tokens; without it special tokens are left out.
   */
  constructor(tokenizer: Tokenizer | undefined, prompt: readonly number[] = [], specialText: (id: number) => string | undefined = () => undefined) {
    this.#specialText = specialText
    this.#tokenizer = tokenizer
    this.#ids = tokenizer ? prompt.slice(-CONTEXT_TOKENS) : []
    this.#printed = this.#ids.length
  }

  /** The text that this token completes; empty while a character is still open (at most 3 bytes), or without a tokenizer. */
  push(id: number): string {
    if (!this.#tokenizer) return ''
    const special = this.#specialText(id)
    if (special !== undefined) {
      const before = this.flush()
      this.#ids.push(id)
      this.#advance()
      return `${before}${special}`
    }
    this.#ids.push(id)
    const text = this.#pending(this.#tokenizer)
    if (text === '' || (text.endsWith(REPLACEMENT) && this.#isOpen(this.#tokenizer))) return ''
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

  /** The bytes that are not printed end inside a character that further bytes could complete. */
  #isOpen(tokenizer: Tokenizer): boolean {
    const bytes = this.#ids.slice(this.#printed).flatMap((id) => [...tokenizer.bytesOf(id)])
    for (let length = 1; length <= Math.min(3, bytes.length); length++) {
      const lead = bytes[bytes.length - length] as number
      if (lead >= 0x80 && lead < 0xc0) continue
      return length < (lead >= 0xf5 ? 0 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 0)
    }
    return false
  }

  #advance(): void {
    this.#context = this.#printed
    this.#printed = this.#ids.length
  }
}
