// Pages of the cache: who holds them, which are free, and which free ones still hold a prefix that can be reused.
// Pages are numbers; the ranks own the memory behind them. Pure logic.
//
// A full page is known by its chain: (the chain before it, its 64 tokens) -> a chain id that is never given twice. Keys are
// exact, so a hit can't be a collision. By the determinism contract a page's bits do not depend on who computed it.
// A page that was left before it was full is known too, as a source of rows to copy: see similar.

interface KnownPage {
  /** 0 for a page that is not full. */
  readonly chain: number
  readonly parent: number
  readonly tokens: readonly number[]
}

/** Pages after one chain that are compared for common rows: the newest. */
const MOST_COMPARED = 32

export class BlockManager {
  readonly pages: number
  readonly #references: Uint32Array
  readonly #free: number[]
  /** Pages nobody holds whose prefix may be reused; the least recently used first (a Map keeps insertion order). */
  readonly #reusable = new Map<number, true>()
  readonly #known = new Map<number, KnownPage>()
  readonly #byKey = new Map<string, number>()
  /** The newest known pages by the chain before them. */
  readonly #children = new Map<number, Set<number>>()
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
    this.#byKey.set(key, page)
    this.#know(page, { chain, parent, tokens })
    return chain
  }

  /** Makes the computed rows of a page that is not full findable as a source of copies. Call before it is released. */
  learnPartial(page: number, parent: number, tokens: readonly number[]): void {
    this.#know(page, { chain: 0, parent, tokens })
  }

  /** The known page after a chain whose tokens begin with most of these, and how many. */
  similar(parent: number, tokens: readonly number[]): { page: number; rows: number } | undefined {
    let best: { page: number; rows: number } | undefined
    for (const page of this.#children.get(parent) ?? []) {
      const known = (this.#known.get(page) as KnownPage).tokens
      let rows = 0
      while (rows < tokens.length && known[rows] === tokens[rows]) rows++
      if (rows > 0 && rows >= (best?.rows ?? 0)) best = { page, rows }
    }
    return best
  }

  /** Takes a reference to a page that `similar` found: what it holds stays until it is released. */
  hold(page: number): void {
    this.#references[page] = (this.#references[page] as number) + 1
    this.#reusable.delete(page)
  }

  /** A page as `take` gives it, but not this one, whose prefix counts as just used. */
  takeOther(page: number): number | undefined {
    const free = this.#reusable.delete(page)
    const taken = this.take()
    if (free) this.#reusable.set(page, true)
    return taken
  }

  #know(page: number, known: KnownPage): void {
    this.#known.set(page, known)
    const siblings = this.#children.get(known.parent)
    if (!siblings) this.#children.set(known.parent, new Set([page]))
    else if (siblings.add(page).size > MOST_COMPARED) siblings.delete(siblings.values().next().value as number)
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

  /** No page holds a prefix any more. Call when nobody holds pages. */
  forgetAll(): void {
    for (const page of [...this.#reusable.keys()].reverse()) this.#free.push(page)
    this.#reusable.clear()
    this.#known.clear()
    this.#byKey.clear()
    this.#children.clear()
  }

  #forget(page: number): void {
    const known = this.#known.get(page)
    if (!known) return
    this.#known.delete(page)
    if (known.chain !== 0) this.#byKey.delete(keyOf(known.parent, known.tokens))
    const siblings = this.#children.get(known.parent)
    siblings?.delete(page)
    if (siblings?.size === 0) this.#children.delete(known.parent)
  }
}

function keyOf(parent: number, tokens: readonly number[]): string {
  return `${parent}:${tokens.join()}`
}
