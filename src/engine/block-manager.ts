// Pages of the cache: who holds them, which are free, and which free ones still hold a prefix that can be reused.
// Pages are numbers; the ranks own the memory behind them. Pure logic.
//
// A full page is known by its chain: (the chain before it, its 64 tokens) -> a chain id that is never given twice. Keys are
// exact, so a hit can't be a collision. By the determinism contract a page's bits do not depend on who computed it.

interface KnownPage {
  readonly chain: number
  readonly key: string
}

export class BlockManager {
  readonly pages: number
  readonly #references: Uint32Array
  readonly #free: number[]
  /** Pages nobody holds whose prefix may be reused; the least recently used first (a Map keeps insertion order). */
  readonly #reusable = new Map<number, true>()
  readonly #known = new Map<number, KnownPage>()
  readonly #byKey = new Map<string, number>()
  #nextChain = 1

  constructor(pages: number) {
    this.pages = pages
    this.#references = new Uint32Array(pages)
    // Ascending numbers from the end, so that page 0 is given first.
    this.#free = Array.from({ length: pages }, (_, i) => pages - 1 - i)
  }

  /** Pages that can be taken: free ones, and those that only hold a reusable prefix. */
  get freePages(): number {
    return this.#free.length + this.#reusable.size
  }

  /** Pages nobody holds that a prefix can be found in. */
  get cachedPages(): number {
    return this.#reusable.size
  }

  /** A page with one reference, or undefined. The least recently used prefix is forgotten when no page is free. */
  take(): number | undefined {
    let page = this.#free.pop()
    if (page === undefined) {
      const oldest = this.#reusable.keys().next()
      if (oldest.done) return undefined
      page = oldest.value
      this.#reusable.delete(page)
      this.#forget(page)
    }
    this.#references[page] = 1
    return page
  }

  /** Takes a reference to the page that holds these tokens after the chain `parent` (0: from the start), if there is one. */
  reuse(parent: number, tokens: readonly number[]): { page: number; chain: number } | undefined {
    const page = this.#byKey.get(keyOf(parent, tokens))
    if (page === undefined) return undefined
    this.#references[page] = (this.#references[page] as number) + 1
    this.#reusable.delete(page)
    return { page, chain: (this.#known.get(page) as KnownPage).chain }
  }

  /** Makes a computed full page findable, and returns its chain. Another page may hold the same prefix already. */
  learn(page: number, parent: number, tokens: readonly number[]): number {
    const key = keyOf(parent, tokens)
    const other = this.#byKey.get(key)
    if (other !== undefined) return (this.#known.get(other) as KnownPage).chain
    const chain = this.#nextChain++
    this.#known.set(page, { chain, key })
    this.#byKey.set(key, page)
    return chain
  }

  /** Drops one reference to each page of a list and empties it. Its last pages are the first to be reused for other content. */
  release(pages: number[]): void {
    for (const page of pages.reverse()) {
      const left = (this.#references[page] as number) - 1
      this.#references[page] = left
      if (left > 0) continue
      if (this.#known.has(page)) this.#reusable.set(page, true)
      else this.#free.push(page)
    }
    pages.length = 0
  }

  #forget(page: number): void {
    const known = this.#known.get(page)
    if (!known) return
    this.#known.delete(page)
    this.#byKey.delete(known.key)
  }
}

function keyOf(parent: number, tokens: readonly number[]): string {
  return `${parent}:${tokens.join()}`
}
