// Pages of the cache: how often each is referenced, which are free, and which free ones still hold a prefix that can be reused.
// Pages are numbers; the ranks own the memory behind them. Pure logic.
//
// A full page is cached under its chain: (the chain before it, its 64 tokens) -> a chain id that is never given twice. Keys are
// exact, so a hit can't be a collision. By the determinism contract a page's bits do not depend on who computed it.
// A page that was released before it was full is cached too, as a source of rows to copy: see longestMatch.

interface CachedPage {
  /** 0 for a page that is not full. */
  readonly chain: number
  readonly parent: number
  readonly tokens: readonly number[]
}

/** How many pages after one chain are compared for common rows: the newest. */
const MAX_COMPARED = 32

export class PageAllocator {
  readonly pages: number
  /** The page of index i of a sequence has a number that is i modulo this. */
  readonly classes: number
  readonly #references: Uint32Array
  /** By class. */
  readonly #free: readonly number[][]
  /** By class: pages without references whose prefix may be reused; the least recently used first (a Map keeps insertion order). */
  readonly #reusable: readonly Map<number, true>[]
  readonly #cached = new Map<number, CachedPage>()
  readonly #byKey = new Map<string, number>()
  /** The newest cached pages by the chain before them. */
  readonly #children = new Map<number, Set<number>>()
  #nextChain = 1

  /** `pages` is a multiple of `classes`. */
  constructor(pages: number, classes = 1) {
    this.pages = pages
    this.classes = classes
    this.#references = new Uint32Array(pages)
    // In descending order, since pages are popped: the lowest page is given first.
    this.#free = Array.from({ length: classes }, (_, c) => Array.from({ length: pages / classes }, (_, i) => pages - classes * (i + 1) + c))
    this.#reusable = this.#free.map(() => new Map())
  }

  /** Pages that can be allocated: free ones, and those that only hold a reusable prefix. */
  get freePages(): number {
    return this.#free.reduce((sum, free, c) => sum + free.length + this.#reusableOf(c).size, 0)
  }

  /** Those that can be the page of index i of a sequence. */
  freeFor(i: number): number {
    const c = i % this.classes
    return (this.#free[c] as number[]).length + this.#reusableOf(c).size
  }

  /** Pages without references that hold a reusable prefix. */
  get cachedPages(): number {
    return this.#reusable.reduce((sum, { size }) => sum + size, 0)
  }

  /** A page with one reference, for index i of a sequence; undefined: none is free. The least recently used prefix is evicted when none is. */
  allocate(i: number): number | undefined {
    const c = i % this.classes
    let page = (this.#free[c] as number[]).pop()
    if (page === undefined) {
      const oldest = this.#reusableOf(c).keys().next()
      if (oldest.done) return undefined
      page = oldest.value
      this.#reusableOf(page).delete(page)
      this.#evict(page)
    }
    this.#references[page] = 1
    return page
  }

  /** Adds a reference to the page that holds these tokens after the chain `parent` (0 or less: from the start, of the model alone or with an adapter), if there is one. */
  reuse(parent: number, tokens: readonly number[]): { page: number; chain: number } | undefined {
    const page = this.#byKey.get(keyOf(parent, tokens))
    if (page === undefined) return undefined
    this.#references[page] = (this.#references[page] as number) + 1
    this.#reusableOf(page).delete(page)
    return { page, chain: (this.#cached.get(page) as CachedPage).chain }
  }

  /** Caches a computed full page, and returns its chain. Another page may hold the same prefix already. */
  cacheFullPage(page: number, parent: number, tokens: readonly number[]): number {
    const key = keyOf(parent, tokens)
    const other = this.#byKey.get(key)
    if (other !== undefined) return (this.#cached.get(other) as CachedPage).chain
    const chain = this.#nextChain++
    this.#byKey.set(key, page)
    this.#cache(page, { chain, parent, tokens })
    return chain
  }

  /** Caches the computed rows of a page that is not full, as a source of copies. Call before it is released. */
  cachePartialPage(page: number, parent: number, tokens: readonly number[]): void {
    this.#cache(page, { chain: 0, parent, tokens })
  }

  /** The cached page after a chain that has the longest prefix in common with these tokens, and its length. */
  longestMatch(parent: number, tokens: readonly number[]): { page: number; rows: number } | undefined {
    let best: { page: number; rows: number } | undefined
    for (const page of this.#children.get(parent) ?? []) {
      const own = (this.#cached.get(page) as CachedPage).tokens
      let rows = 0
      while (rows < tokens.length && own[rows] === tokens[rows]) rows++
      if (rows > 0 && rows >= (best?.rows ?? 0)) best = { page, rows }
    }
    return best
  }

  /** Adds a reference to a page that longestMatch found: its rows stay until it is released. */
  retain(page: number): void {
    this.#references[page] = (this.#references[page] as number) + 1
    this.#reusableOf(page).delete(page)
  }

  /** A page as `allocate` gives it for the index of this one, but not this one, whose prefix counts as just used. */
  allocateExcept(page: number): number | undefined {
    const free = this.#reusableOf(page).delete(page)
    const taken = this.allocate(page)
    if (free) this.#reusableOf(page).set(page, true)
    return taken
  }

  #reusableOf(page: number): Map<number, true> {
    return this.#reusable[page % this.classes] as Map<number, true>
  }

  #cache(page: number, cached: CachedPage): void {
    this.#cached.set(page, cached)
    const siblings = this.#children.get(cached.parent)
    if (!siblings) this.#children.set(cached.parent, new Set([page]))
    else if (siblings.add(page).size > MAX_COMPARED) siblings.delete(siblings.values().next().value as number)
  }

  /** Removes one reference from each page of a list and empties the list. Its last pages are the first to be reused for other content. */
  release(pages: number[]): void {
    for (const page of pages.reverse()) {
      const left = (this.#references[page] as number) - 1
      this.#references[page] = left
      if (left > 0) continue
      if (this.#cached.has(page)) this.#reusableOf(page).set(page, true)
      else this.#freeOf(page).push(page)
    }
    pages.length = 0
  }

  /** Evicts every prefix. Call when no page has references. */
  evictAll(): void {
    for (const reusable of this.#reusable) {
      for (const page of [...reusable.keys()].reverse()) this.#freeOf(page).push(page)
      reusable.clear()
    }
    this.#cached.clear()
    this.#byKey.clear()
    this.#children.clear()
  }

  #freeOf(page: number): number[] {
    return this.#free[page % this.classes] as number[]
  }

  #evict(page: number): void {
    const cached = this.#cached.get(page)
    if (!cached) return
    this.#cached.delete(page)
    if (cached.chain !== 0) this.#byKey.delete(keyOf(cached.parent, cached.tokens))
    const siblings = this.#children.get(cached.parent)
    siblings?.delete(page)
    if (siblings?.size === 0) this.#children.delete(cached.parent)
  }
}

function keyOf(parent: number, tokens: readonly number[]): string {
  return `${parent}:${tokens.join()}`
}
