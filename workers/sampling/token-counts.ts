// How often each token occurs in the sequence of a slot, for penalties. Kept from row to row: a row adds its own token instead of
// counting the whole sequence again.

interface Occurrences {
  /** In prompt and output. */
  all: number
  output: number
}

export class TokenCounts {
  /** Of which sequence: see SLOT.serial. */
  #serial = -1
  /** Tokens of positions 0..length-1, all counted. */
  readonly #tokens: number[] = []
  readonly #counts = new Map<number, Occurrences>()
  #promptLength = 0

  /**
   * Counts the tokens of positions 0..last of a sequence. `known(p)` is the token of a position before `last`; `newest` is the one of
   * `last`. Positions from `last` on that were counted before are forgotten: they were drafts, or are sampled again. Positions before
   * it must hold the tokens that were counted: each output token has a row that samples, so a wrong draft is always forgotten first.
   */
  advance(serial: number, promptLength: number, last: number, newest: number, known: (position: number) => number): void {
    if (serial !== this.#serial) {
      this.#serial = serial
      this.#promptLength = promptLength
      this.#tokens.length = 0
      this.#counts.clear()
    }
    while (this.#tokens.length > last) this.#remove()
    while (this.#tokens.length < last) this.#add(known(this.#tokens.length))
    this.#add(newest)
  }

  /** Token id -> how often it occurs; only tokens that do. */
  get counts(): ReadonlyMap<number, Readonly<Occurrences>> {
    return this.#counts
  }

  #add(id: number): void {
    const counts = this.#counts.get(id)
    const output = this.#tokens.length >= this.#promptLength ? 1 : 0
    this.#tokens.push(id)
    if (!counts) {
      this.#counts.set(id, { all: 1, output })
      return
    }
    counts.all++
    counts.output += output
  }

  #remove(): void {
    const id = this.#tokens.pop() as number
    const counts = this.#counts.get(id) as Occurrences
    if (this.#tokens.length >= this.#promptLength) counts.output--
    if (--counts.all === 0) this.#counts.delete(id)
  }
}
