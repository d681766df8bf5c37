// How products on tensor cores are laid out: 16 x 16 tiles of float16, the order of a sum over k, and the table of output blocks.
// A sum has one accumulator that goes through k in ascending order, 16 columns a step, whatever the tiling (design rule 7).

/** Side of a subgroup matrix. */
export const SIDE = 16
/** vec4<u32> of a 16 x 16 tile of float16. */
export const TILE_VECTORS = 32
/** Steps of 16 columns that k is padded to a multiple of. */
const STEP_MULTIPLE = 4

/** Steps of 16 columns of a sum over k columns, zeros past the last one: one accumulator takes them in ascending order. */
export function stepsOf(k: number): number {
  return Math.ceil(k / SIDE / STEP_MULTIPLE) * STEP_MULTIPLE
}

/** Tiles of 16 rows, as many as hold n. */
export function panels(n: number): number {
  return Math.ceil(n / SIDE)
}

/** vec4<u32> of a matrix of weights: [panels of 16 rows][steps of 16 columns][16 rows][16 columns] float16. */
export function weightVectors(rows: number, steps: number): number {
  return panels(rows) * steps * TILE_VECTORS
}

/** Vectors of a tile's place over its scale's: a panel has at least 128 vectors and 16 scales, so a scale's place follows from its row's. */
export const VECTORS_PER_SCALE = 8

/** Rows that tables of blocks are made of: `rows` of one matrix (of one shard, or head) that begin at a panel. Vectors are vec4<u32>. */
export interface TensorRows {
  /** First vector of the weights. */
  readonly w: number
  /** First vector of the activations, [panels of 16 rows][steps][parts][16 rows][16 columns] float16. */
  readonly x: number
  /** First of the activations' scales, one a row of activations. */
  readonly xScale: number
  /** First element of the outputs. */
  readonly y: number
  /** Rows of weights: columns of the outputs. */
  readonly rows: number
  /** Columns of the source of the activations: the first, and how many. For products that pack their row themselves. */
  readonly source?: { readonly from: number; readonly cols: number }
}

/** 1 / n as the bits of a float32: a quotient that a kernel need not compute. */
export function inverseBits(n: number): number {
  return new Uint32Array(Float32Array.of(1 / n).buffer)[0] as number
}

/** u32 of an entry of the table: w, x, y, rows, xScale, source's first column, its columns, bits of 1 / its columns. */
export const BLOCK_WORDS = 8

/** The table of blocks of `columns` outputs, one a workgroup. */
export function blockTable(matrices: readonly TensorRows[], columns: number, steps: number): Uint32Array {
  const entries = matrices.flatMap(({ w, x, xScale, y, rows, source }) =>
    Array.from({ length: Math.ceil(rows / columns) }, (_, b) => {
      const first = b * columns
      return [
        w + (first / SIDE) * steps * TILE_VECTORS,
        x,
        y + first,
        Math.min(columns, rows - first),
        xScale,
        source?.from ?? 0,
        source?.cols ?? 0,
        inverseBits(source?.cols ?? 1),
      ]
    }),
  )
  return Uint32Array.from(entries.flat())
}
