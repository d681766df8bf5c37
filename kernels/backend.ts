// The kernels that a rank calls, and the backends that implement them. One conformance suite (test/kernels/conformance.ts) runs on every
// implementation.
import type { CacheFormat, CacheRow, UnitGeometry } from './cache-format.js'
import type { PackedMatrix } from './packing.js'
import type { Rows, Scalars } from './rows.js'
import type { WasmMemory } from './wasm/webassembly.js'

export type { CacheFormat, CacheRow, UnitGeometry }

/** Where kernels run: WebAssembly, float64 JavaScript, or the GPU. */
export type BackendName = 'wasm' | 'reference' | 'gpu'
/** A memory that threads share; the coordinator creates and owns it. */
export type SharedMemory = WasmMemory | SharedArrayBuffer

/**
 * Kernels bound to one memory. Arguments of type Rows must lie in it. T is `tokens`, the number of rows.
 * Methods change only their destination; none allocates. The order of every sum: docs/determinism.md, rules 1 to 6.
 */
export interface KernelBackend {
  readonly backend: BackendName
  /** Bytes of an activation scalar: 4 (wasm) or 8 (reference). */
  readonly scalarBytes: number
  /** The whole memory as activation scalars. */
  readonly scalars: Scalars
  /** Bytes of packed weights that matmul has read; each call counts its matrix once. */
  readonly weightBytesRead: number
  /** Bytes of cached rows that attention has read. */
  readonly cacheBytesRead: number

  rows(ptr: number, width: number, stride?: number): Rows
  /** y[t][b] = w[b] x[t][b]. y has room for paddedRows(w.rows) a row; scratch: matmulScratchBytes. */
  matmul(w: PackedMatrix, x: Rows, y: Rows, tokens: number, scratch: number): void
  /** y[t] = weight * (x[t] / sqrt(mean(x[t]^2) + epsilon)); weight: n float32 at a byte offset. */
  rmsNorm(x: Rows, weight: number, y: Rows, n: number, tokens: number, epsilon: number): void
  /** The same in place for `heads` vectors of n scalars, `headStride` apart, which share the weight. */
  rmsNormHeads(x: Rows, headStride: number, heads: number, weight: number, n: number, tokens: number, epsilon: number): void
  /** Rotates `heads` vectors of 2 * half scalars, `headStride` scalars apart, in place; table: [T][cos half, sin half]. */
  rope(x: Rows, headStride: number, heads: number, half: number, table: Rows, tokens: number): void
  /** gate = silu(gate) * up over n scalars a row; n is a multiple of 4, row padding included. */
  swiglu(gate: Rows, up: Rows, n: number, tokens: number): void
  /** x[t] *= sigmoid(gate[t]) over n scalars a row; n is a multiple of 4, row padding included. */
  gateRows(x: Rows, gate: Rows, n: number, tokens: number): void
  /** dst[t][h] = sum over r of a[t][h][r] * b[t][r], r ascending. dst: heads of `width` scalars; a: [T, heads * rank]; b: [T, rank * width]. */
  combineFactors(dst: Rows, a: Rows, b: Rows, heads: number, rank: number, width: number, tokens: number): void
  /** dst[t] = (((s0 + s1) + s2) + s3) * factor, over 1..4 sources of equal stride. */
  sumPartials(dst: Rows, sources: readonly Rows[], n: number, tokens: number, factor: number): void
  /** x[t] += y[t]. */
  addRows(x: Rows, y: Rows, n: number, tokens: number): void
  /** x[t] += vector; vector: n float32 at a byte offset. */
  addVector(x: Rows, vector: number, n: number, tokens: number): void
  /** dst row 0 = row `row` of w. */
  gatherRow(w: PackedMatrix, row: number, dst: Rows): void

  /** Writes row t of src, rounded to the row's format, at a byte offset; zeros in the padding. */
  writeCacheRow(dst: number, src: Rows, t: number, row: CacheRow): void
  /** Copies cached rows within the memory. */
  copyBytes(dst: number, src: number, bytes: number): void
  /**
   * Prepares the queries of `rows` rows of src, from t on, for cached rows of a format: `heads` vectors of n scalars in each, `headStride`
   * apart, to [n][lanes] (int8: to integers and their scales, see queryScalars). Lanes without a head become 0.
   */
  loadQueries(dst: number, src: Rows, t: number, rows: number, headStride: number, heads: number, lanes: number, n: number, format: CacheFormat): void
  /** out[t][lane] = query . keys of cached row t; out: [tokens rounded up to 4][lanes], of which rows past the last mean nothing. */
  dotPage(query: number, page: number, row: CacheRow, out: number, lanes: number, tokens: number): void
  /** Clears a unit's state and the rows of z from t on ([heads][valueWidth], without gaps between rows). */
  beginAttention(unit: UnitGeometry, z: Rows, t: number): void
  /**
   * One page, of which the first row of the tile sees 1..64 tokens and each next row one more, up to the page's end. shared: byte
   * offset of the second score terms, 0 for none; with factors, of the page's coefficients.
   */
  attendPage(unit: UnitGeometry, page: number, shared: number, z: Rows, t: number, tokens: number): void
  /** Divides the rows of z from t on by the sums. */
  finishAttention(unit: UnitGeometry, z: Rows, t: number): void
  /**
   * dst[t][h] = (((w0 z0 + w1 z1) + w2 z2) + w3 z3) / (the same of the sums), wi = exp(mi - largest m): attention over parts of a row's
   * cached tokens, made one. z: of four shards, [T] rows of [heads][width] of equal stride, before finishAttention; width a multiple of 4.
   * toMax, toSum: scalars from a row of z to its [heads] maxima and sums; a sum of 0 says that the shard has no token of the row.
   */
  combinePartials(dst: Rows, z: readonly Rows[], toMax: number, toSum: number, heads: number, width: number, tokens: number): void

  /** Lowest id of the largest of n logits in row t, or -1 if they are not finite. */
  argmax(logits: Rows, t: number, n: number): number
  /** Logarithm of the softmax of row t at an id, float64; NaN if the logits are not finite. */
  logProbability(logits: Rows, t: number, n: number, id: number): number
  /**
   * Writes exp((logit - largest) / temperature) of row t to a byte offset with room for n + 4 scalars. Returns the lowest id of the
   * largest logit, or -1 if the logits are not finite.
   */
  softWeights(logits: Rows, t: number, n: number, temperature: number, weights: number): number
  /** Inverse CDF at u in [0, 1) over ids in ascending order, at temperature > 0; -1 if the logits are not finite. scratch: n + 4 scalars. */
  sample(logits: Rows, t: number, n: number, temperature: number, u: number, scratch: number): number
}

/** Bytes of scratch that matmul needs for `tokens` rows of k inputs. */
export function matmulScratchBytes(tokens: number, k: number): number {
  // int8 rounds its columns up to whole blocks of 32.
  return Math.ceil(tokens / 4) * Math.ceil(k / 32) * 32 * 16
}
