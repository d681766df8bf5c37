// Breaks streamed text between words at a terminal's width, and removes blanks at its beginning. Knows no terminal.

export class SoftWrap {
  readonly #width: number
  #column = 0
  /** Not written yet: the word may continue. */
  #word = ''
  #begun = false

  /** Infinity: no breaks, as for a file. */
  constructor(width: number) {
    this.#width = width
  }

  /** What can be written now. */
  push(text: string): string {
    let out = ''
    for (const character of text) {
      if (!this.#begun && /\s/.test(character)) continue
      this.#begun = true
      if (character === '\n') {
        out += `${this.#flushWord()}\n`
        this.#column = 0
      } else if (character === ' ') {
        out += this.#flushWord()
        // A blank at the edge would be written on the next line.
        if (this.#column < this.#width) {
          out += ' '
          this.#column++
        }
      } else this.#word += character
    }
    // Where nothing is broken nothing needs to wait.
    return this.#width === Number.POSITIVE_INFINITY ? out + this.#flushWord() : out
  }

  /** The rest. */
  flush(): string {
    return this.#flushWord()
  }

  #flushWord(): string {
    const word = this.#word
    if (word === '') return ''
    this.#word = ''
    const length = [...word].length
    const breaks = this.#column > 0 && this.#column + length > this.#width
    this.#column = (breaks ? 0 : this.#column) + length
    return breaks ? `\n${word}` : word
  }
}
