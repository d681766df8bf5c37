// The paged cache of one rank: addresses of pages and writes of rows. Page numbers are the coordinator's; a rank trusts them.
import type { CacheRow, KernelBackend } from '../../kernels/backend.js'
import type { Rows } from '../../kernels/rows.js'
import { PAGE_TOKENS } from '../protocol.js'

/** One stream: [pages][PAGE_TOKENS] rows at a byte offset of the rank's memory. */
export class CacheStream {
  readonly #kernels: KernelBackend
  readonly #ptr: number
  readonly row: CacheRow

  constructor(kernels: KernelBackend, ptr: number, row: CacheRow) {
    this.#kernels = kernels
    this.#ptr = ptr
    this.row = row
  }

  /** Byte offset of a page's first row. */
  page(page: number): number {
    return this.#ptr + page * PAGE_TOKENS * this.row.bytes
  }

  /** Copies the first `rows` cached rows of a page to another. */
  copy(from: number, to: number, rows: number): void {
    this.#kernels.copyBytes(this.page(to), this.page(from), rows * this.row.bytes)
  }

  /** Writes row t of src as the cached row `position` (counted in the sequence) of a page. */
  write(page: number, position: number, src: Rows, t: number): void {
    const dst = this.page(page) + (position % PAGE_TOKENS) * this.row.bytes
    this.#kernels.writeCacheRow(dst, src, t, this.row)
  }
}
