// The paged cache of one rank: addresses of pages and writes of rows. Page numbers are the coordinator's; a rank trusts them.
import type { CacheFormat, KernelSpace } from '../kernels/backend.js'
import type { Rows } from '../kernels/rows.js'
import { PAGE_TOKENS } from './protocol.js'

/** One stream: [pages][PAGE_TOKENS][rowWidth] at a byte offset of the rank's memory. */
export class CacheStream {
  readonly #space: KernelSpace
  readonly #format: CacheFormat
  readonly #ptr: number
  readonly #width: number
  /** Scalars of a cached row, padding included. */
  readonly rowWidth: number
  readonly #rowBytes: number

  constructor(space: KernelSpace, format: CacheFormat, ptr: number, width: number, rowWidth: number) {
    this.#space = space
    this.#format = format
    this.#ptr = ptr
    this.#width = width
    this.rowWidth = rowWidth
    this.#rowBytes = rowWidth * space.cacheScalarBytes(format)
  }

  /** Byte offset of a page's first row. */
  page(page: number): number {
    return this.#ptr + page * PAGE_TOKENS * this.#rowBytes
  }

  /** Copies the first `rows` cached rows of a page to another. */
  copy(from: number, to: number, rows: number): void {
    this.#space.copyBytes(this.page(to), this.page(from), rows * this.#rowBytes)
  }

  /** Writes row t of src as the cached row `position` (counted in the sequence) of a page. */
  write(page: number, position: number, src: Rows, t: number): void {
    const dst = this.page(page) + (position % PAGE_TOKENS) * this.#rowBytes
    this.#space.writeCacheRow(dst, src, t, this.#width, this.rowWidth, this.#format)
  }
}
