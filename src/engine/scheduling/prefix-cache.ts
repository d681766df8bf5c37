// What a sequence takes from cached prefixes and leaves to them: full pages are shared; rows of a page that is similar are copied.
// Pure logic over sequences and pages.
import { PAGE_TOKENS } from '../../../workers/protocol.js'
import type { PageAllocator } from './page-allocator.js'
import type { Sequence } from './sequence.js'

/** A copy of the first `rows` cached rows of one page to another, made before any row of the step. */
export interface PageCopy {
  readonly sequence: Sequence
  readonly from: number
  readonly to: number
  readonly rows: number
}

export class PrefixCache {
  readonly #allocator: PageAllocator
  readonly #maxCopies: number
  /** For the next step. */
  #copies: PageCopy[] = []

  /** maxCopies: of one step. */
  constructor(allocator: PageAllocator, maxCopies: number) {
    this.#allocator = allocator
    this.#maxCopies = maxCopies
  }

  /** Copies that are due in the next step; they are the step's from now on. */
  takeCopies(): PageCopy[] {
    return this.#copies.splice(0)
  }

  /**
   * Gives a sequence without pages those of its longest cached prefix, and a page with rows copied from the cached page that has most
   * in common with what follows. Sets its computed and scheduled positions.
   */
  reuse(sequence: Sequence): void {
    const { tokens, pages, chain, reusable, root } = sequence
    for (let i = 0; (i + 1) * PAGE_TOKENS <= reusable; i++) {
      const found = this.#allocator.reuse(chain.at(-1) ?? root, tokens.slice(i * PAGE_TOKENS, (i + 1) * PAGE_TOKENS))
      if (!found) break
      pages.push(found.page)
      chain.push(found.chain)
    }
    // Copied rows count as computed when the step that copies them has completed.
    sequence.computed = pages.length * PAGE_TOKENS
    sequence.scheduled = sequence.computed + this.#copyRows(sequence)
  }

  /** Caches the full pages that a sequence has computed since the last call. */
  cacheFullPages({ tokens, pages, chain, computed, root }: Sequence): void {
    for (let i = chain.length; (i + 1) * PAGE_TOKENS <= computed; i++) {
      const own = tokens.slice(i * PAGE_TOKENS, (i + 1) * PAGE_TOKENS)
      chain.push(this.#allocator.cacheFullPage(pages[i] as number, chain.at(-1) ?? root, own))
    }
  }

  /** Caches the computed rows after a sequence's last full page. */
  cachePartialPage({ tokens, pages, chain, computed, root }: Sequence): void {
    const page = pages[chain.length]
    const first = chain.length * PAGE_TOKENS
    if (page !== undefined && computed > first) this.#allocator.cachePartialPage(page, chain.at(-1) ?? root, tokens.slice(first, computed))
  }

  /** Drops the copies that are due and every cached prefix. Call when no page has references. */
  clear(): void {
    this.#copies.length = 0
    this.#allocator.evictAll()
  }

  /** Returns how many rows will be copied. */
  #copyRows(sequence: Sequence): number {
    const { tokens, pages, chain, computed, reusable, root } = sequence
    const wanted = tokens.slice(computed, Math.min(reusable, computed + PAGE_TOKENS))
    if (wanted.length === 0 || this.#copies.length >= this.#maxCopies) return 0
    const source = this.#allocator.longestMatch(chain.at(-1) ?? root, wanted)
    if (!source) return 0
    const page = this.#allocator.allocateExcept(source.page)
    if (page === undefined) return 0
    pages.push(page)
    this.#copies.push({ sequence, from: source.page, to: page, rows: source.rows })
    return source.rows
  }
}
