// Regions of a memory that grows at its end: first fit, neighbours joined. Pure logic.

interface Region {
  readonly start: number
  readonly end: number
}

export class Regions {
  readonly #start: number
  readonly #limit: number
  /** Ascending. */
  readonly #taken: Region[] = []

  /** Bytes start..limit-1; start a multiple of 64. */
  constructor(start: number, limit: number) {
    this.#start = start
    this.#limit = limit
  }

  /** Start of a region of `bytes`, a multiple of 64; undefined: there is no room in one piece. */
  take(bytes: number): number | undefined {
    const size = Math.ceil(bytes / 64) * 64
    let start = this.#start
    let at = 0
    for (; at < this.#taken.length; at++) {
      const next = this.#taken[at] as Region
      if (next.start - start >= size) break
      start = next.end
    }
    if (start + size > this.#limit) return undefined
    this.#taken.splice(at, 0, { start, end: start + size })
    return start
  }

  /** Gives a region back that `take` returned. */
  release(start: number): void {
    const at = this.#taken.findIndex((region) => region.start === start)
    if (at >= 0) this.#taken.splice(at, 1)
  }

  get takenBytes(): number {
    return this.#taken.reduce((sum, { start, end }) => sum + end - start, 0)
  }
}
