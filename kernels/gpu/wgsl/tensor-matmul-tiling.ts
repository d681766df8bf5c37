// Which tiling a product takes on a card, by its rows and outputs: measured on one H200 (bench/diagnostics/gpu-tensor-matmul.ts).
// The order of sums is the same in all (tensor-matmul.ts), so the choice may follow the number of rows.
import type { ProductTiling } from './tensor-matmul.js'
import { SIDE } from './tensor-matmul-shape.js'

const tiling = (rows: number, columns: number, down: number, across: number, helpers: number, steps: number): ProductTiling => ({
  rows,
  columns,
  down,
  across,
  helpers,
  steps,
  buffers: 1,
})

/** Multiprocessors of the card that this was measured on: fewer blocks leave some idle. */
const MULTIPROCESSORS = 132
/** Outputs from which blocks of 64 read faster than blocks of 32. */
const MANY_OUTPUTS = 32_768

/** A tiling for up to `rows` rows of activations; undefined: for any number. */
export interface TilingChoice {
  readonly rows: number | undefined
  readonly tiling: ProductTiling
}

/** What the tilings need of an adapter: threads of a workgroup, and bytes of its memory. */
export const PRODUCT_THREADS = 256
export const PRODUCT_STORAGE = 45_056

/** In ascending order of rows: a step takes the first one that has room for its rows. outputs: columns of all matrices of the product. pair: see tensorProduct. */
export function tilingsOf(outputs: number, pair: boolean): readonly TilingChoice[] {
  const few = outputs / SIDE <= MULTIPROCESSORS
  const one = few ? tiling(16, 16, 1, 1, 7, pair ? 16 : 32) : outputs < MANY_OUTPUTS ? tiling(16, 32, 1, 2, 6, 8) : tiling(16, 64, 1, 4, 4, 8)
  const some = few ? tiling(64, 32, 4, 1, 4, 8) : tiling(64, 64, 2, 2, 4, 4)
  return [
    { rows: 16, tiling: one },
    { rows: 64, tiling: some },
    { rows: undefined, tiling: tiling(128, 128, 4, 2, 0, 2) },
  ]
}
