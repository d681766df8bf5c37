// Stop strings in text that grows piece by piece: what may be shown, and whether a stop string has come. Knows no tokens.

export class StopStrings {
  readonly #stops: readonly string[]
  readonly #longest: number
  /** Not shown yet: it may be the beginning of a stop string. */
  #held = ''

  constructor(stops: readonly string[]) {
    this.#stops = stops
    this.#longest = Math.max(0, ...stops.map((stop) => stop.length))
  }

  /** What a piece lets be shown, and the stop string that it completes: the one that begins first, of those the longest. */
  push(piece: string): { readonly text: string; readonly stop: string | undefined } {
    const text = this.#held + piece
    let at = -1
    let stop: string | undefined
    for (const candidate of this.#stops) {
      const found = text.indexOf(candidate)
      if (found < 0 || (at >= 0 && (found > at || (found === at && candidate.length <= (stop?.length ?? 0))))) continue
      at = found
      stop = candidate
    }
    if (stop !== undefined) {
      this.#held = ''
      return { text: text.slice(0, at), stop }
    }
    const keep = this.#open(text)
    this.#held = text.slice(text.length - keep)
    return { text: text.slice(0, text.length - keep), stop: undefined }
  }

  /** What was held back, at the end. */
  flush(): string {
    const rest = this.#held
    this.#held = ''
    return rest
  }

  /** Length of the longest end of a text that begins a stop string. */
  #open(text: string): number {
    for (let length = Math.min(this.#longest - 1, text.length); length > 0; length--) {
      const end = text.slice(text.length - length)
      if (this.#stops.some((stop) => stop.length > length && stop.startsWith(end))) return length
    }
    return 0
  }
}
