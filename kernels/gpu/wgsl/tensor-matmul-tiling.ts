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

/** Multiprocessors of the card that this was measured on: fewer blocks leave some idle, a few more make some work twice as long. */
const MULTIPROCESSORS = 132
/** Outputs from which blocks of 64 read faster than blocks of 32. */
const MANY_OUTPUTS = 32_768
/** Columns of a block of 512 threads, where one for each multiprocessor holds all outputs. */
const WIDE = { least: 128, most: 160, subgroups: 16 }

/** A tiling for up to `rows` rows of activations; undefined: for any number. */
export interface TilingChoice {
  readonly rows: number | undefined
  readonly tiling: ProductTiling
}

/** What the tilings need of an adapter: threads of a workgroup, and bytes of its memory. */
export const PRODUCT_THREADS = 512
export const PRODUCT_STORAGE = 48_128

/** For 17 to 64 rows; at a tie the first one is taken. */
const SOME: readonly ProductTiling[] = [
  tiling(64, 16, 4, 1, 4, 8),
  tiling(64, 48, 2, 3, 2, 8),
  tiling(64, 64, 2, 4, 0, 4),
  tiling(64, 96, 2, 3, 2, 4),
  tiling(64, 160, 2, 5, 6, 4),
]

/** Blocks that each multiprocessor has at most. */
function rounds(matrices: readonly number[], columns: number): number {
  return Math.ceil(matrices.reduce((sum, rows) => sum + Math.ceil(rows / columns), 0) / MULTIPROCESSORS)
}

/** Activations of 64 rows take as long to bring as weights of about 32 columns. */
function someRows(matrices: readonly number[]): ProductTiling {
  const cost = ({ columns }: ProductTiling) => rounds(matrices, columns) * (columns + 32)
  return SOME.reduce((best, other) => (cost(other) < cost(best) ? other : best))
}

function fewRows(matrices: readonly number[], pair: boolean): ProductTiling {
  const outputs = matrices.reduce((a, b) => a + b, 0)
  if (outputs / SIDE <= MULTIPROCESSORS) return tiling(16, 16, 1, 1, 7, pair ? 16 : 32)
  const columns = Math.ceil(outputs / SIDE / MULTIPROCESSORS) * SIDE
  if (columns >= WIDE.least && columns <= WIDE.most && rounds(matrices, columns) === 1)
    return tiling(16, columns, 1, columns / SIDE, WIDE.subgroups - columns / SIDE, pair ? 4 : 8)
  return outputs < MANY_OUTPUTS ? tiling(16, 32, 1, 2, 6, 8) : tiling(16, 64, 1, 4, 4, 8)
}

/**
 * In ascending order of rows: a step takes the first one that has room for its rows. matrices: outputs of each matrix of the product. pair:
 * see tensorProduct.
 */
export function tilingsOf(matrices: readonly number[], pair: boolean): readonly TilingChoice[] {
  return [
    { rows: 16, tiling: fewRows(matrices, pair) },
    { rows: 64, tiling: pair ? tiling(64, 64, 2, 2, 4, 4) : someRows(matrices) },
    { rows: undefined, tiling: tiling(128, 128, 4, 2, 0, 2) },
  ]
}
