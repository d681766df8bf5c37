// Cosines and sines of positions as steps ask for them again: to compute those of a prompt's thousand rows in every step takes milliseconds.
import { PAGE_TOKENS } from '../protocol.js'
import type { TokenInputs } from '../token-inputs.js'

/** Pages that are kept; positions after them are computed each time. */
const MAX_PAGES = 512

export class RopeTable {
  readonly #tokens: TokenInputs
  readonly #width: number
  readonly #pages: (Float32Array | undefined)[] = []

  /** width: scalars of a row, cosines and sines. */
  constructor(tokens: TokenInputs, width: number) {
    this.#tokens = tokens
    this.#width = width
  }

  /** Writes a position's row to row t of `to`. */
  write(position: number, to: Float32Array, t: number): void {
    const width = this.#width
    const page = Math.floor(position / PAGE_TOKENS)
    if (page >= MAX_PAGES) {
      this.#tokens.rope(position, to.subarray(t * width))
      return
    }
    this.#pages[page] ??= this.#compute(page)
    const at = (position % PAGE_TOKENS) * width
    to.set((this.#pages[page] as Float32Array).subarray(at, at + width), t * width)
  }

  #compute(page: number): Float32Array {
    const rows = new Float32Array(PAGE_TOKENS * this.#width)
    for (let i = 0; i < PAGE_TOKENS; i++) this.#tokens.rope(page * PAGE_TOKENS + i, rows.subarray(i * this.#width))
    return rows
  }
}
