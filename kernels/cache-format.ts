// What a format of the key/value cache is: everything that any layer must know of it, in one record. cache-formats.ts has the table.
import type { WasmExports } from './wasm/exports.js'

/** Formats of the key/value cache: see docs/options.md. */
export type CacheFormat = 'f32' | 'bf16' | 'f16' | 'int8'

/** Cached tokens of a page. */
export const PAGE_TOKENS = 64

/** One row (a token) of a cache stream. */
export interface CacheRow {
  readonly format: CacheFormat
  /** Values of a row, and with padding to whole vectors: a multiple of 4. */
  readonly width: number
  readonly paddedWidth: number
  /** Scores are made of columns 0..keyWidth-1. */
  readonly keyWidth: number
  /** int8: columns from here on have a scale of their own; paddedWidth: none have. */
  readonly split: number
  readonly bytes: number
  /** int8: bytes from a row's start to its scale (the sum is behind it), and to the scale of its values. */
  readonly scaleAt: number
  readonly valueScaleAt: number
  /** int8: columns whose integers are summed: the keys, in whole groups of 4. */
  readonly sumWidth: number
}

/**
 * Attention of one unit (a cache stream and the heads it serves) over pages, geometry fixed at load. Pointers in bytes. A tile of rows
 * has the heads of its first row, then those of the next: one geometry for each number of rows.
 */
export interface UnitGeometry {
  /** Queries of the current rows, as loadQueries writes them. */
  readonly query: number
  /** Scratch [PAGE_TOKENS][lanes]. */
  readonly scores: number
  /** Scaled cache formats: scratch [PAGE_TOKENS][valueWidth]. Unused otherwise. */
  readonly values: number
  /** [3][lanes]: running maximum, running sum, scratch. */
  readonly state: number
  /** Of all rows of the tile, and of one row. */
  readonly heads: number
  readonly rowHeads: number
  /** heads rounded up to 4. */
  readonly lanes: number
  /** Keys and values are columns of a cached row; keys begin at column 0. */
  readonly row: CacheRow
  readonly valueOffset: number
  /** A multiple of 4. */
  readonly valueWidth: number
  /**
   * Second score terms: scalars for each token in their array, the position of this unit's first head, and heads of a row there: as many as
   * rowHeads, or that is a multiple of 4.
   */
  readonly sharedLanes: number
  readonly sharedOffset: number
  readonly sharedRowHeads: number
  readonly scale: number
  /**
   * Keys and values are sums over `rank` cached vectors with cached coefficients per head: key vector r lies r * keyWidth
   * after the first, value vector r lies r * valueStride after, and a row of coefficients has [2 * rank][lanes] scalars: of keys,
   * then of values. dots: scratch as large as scores. Undefined: keys and values are the columns themselves. Not for scaled cache formats,
   * nor for tiles of several rows.
   */
  readonly factors?: { readonly rank: number; readonly valueStride: number; readonly row: CacheRow; readonly dots: number } | undefined
}

/** Cached tokens of a page that the last row of a tile sees, if its first row sees `tokens`. */
export function mostRows({ heads, rowHeads }: UnitGeometry, tokens: number): number {
  return Math.min(PAGE_TOKENS, tokens + heads / rowHeads - 1)
}

/** The CPU's side of a format. Pointers are byte offsets into the memory of the exports. */
export interface CpuCacheFormat {
  /** Rounds a row, padding included, as the format stores it. The reference backend caches the result as float64. */
  readonly round: (values: Float64Array, row: CacheRow) => void
  /** Writes a row of float32 at src as a cached row at dst. */
  readonly write: (kernels: WasmExports, dst: number, src: number, row: CacheRow) => void
  /** Kernel that puts queries in the order, and the type, that scores need. */
  readonly loadQueries: 'transposeHeads' | 'quantizeHeads'
  /** out[t][lane] = query . keys of cached row t. */
  readonly dot: (kernels: WasmExports, query: number, page: number, row: CacheRow, out: number, lanes: number, tokens: number) => void
  /** One page of a unit's attention. shared: second score terms, with factors the page's coefficients; z: the first row's sums. */
  readonly attend: (kernels: WasmExports, unit: UnitGeometry, page: number, shared: number, z: number, tokens: number) => void
  /** Fills whole rows with random values, for timing. */
  readonly fillRandom: (bytes: Uint8Array, row: CacheRow) => void
}

/** The GPU's side: how WGSL stores scalars in words of 32 bits. */
export interface GpuCacheFormat {
  /** Scalars of a word. With 1, a word is a float32. */
  readonly perWord: 1 | 2
  /** Declares pack2(a, b): two float32 rounded to a word. */
  readonly pack: string
  /** Two float32 of a word. */
  readonly unpack: (word: string) => string
  /** The tensor-core kernels read it. */
  readonly tensorCores: boolean
  /** gpu.js kernels read it. */
  readonly gpuJs: boolean
  /** Word i of random values, for timing. */
  readonly randomWord: (i: number) => number
}

export interface CacheFormatRecord {
  /** For the documentation: what is stored, what it costs and where it runs. */
  readonly summary: string
  readonly scalarBytes: number
  /** Rows are integers with scales. Attention then needs scratch for a page's values, and keys and values of factors are refused. */
  readonly scaled: boolean
  /** Undefined: the CPU does not support the format. */
  readonly cpu: CpuCacheFormat | undefined
  /** Undefined: the GPU does not support the format. */
  readonly gpu: GpuCacheFormat | undefined
}
