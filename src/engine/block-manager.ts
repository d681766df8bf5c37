// Which pages of the cache are free. Pages are numbers; the ranks own the memory behind them.

export class BlockManager {
  readonly #free: number[]
  readonly pages: number

  constructor(pages: number) {
    this.pages = pages
    // Ascending numbers from the end, so that page 0 is given first.
    this.#free = Array.from({ length: pages }, (_, i) => pages - 1 - i)
  }

  get freePages(): number {
    return this.#free.length
  }

  /** A free page, or undefined. */
  take(): number | undefined {
    return this.#free.pop()
  }

  /** Takes back all pages of a list and empties it. */
  release(pages: number[]): void {
    this.#free.push(...pages.reverse())
    pages.length = 0
  }
}
