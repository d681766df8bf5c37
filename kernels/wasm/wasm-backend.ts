// The WebAssembly backend: KernelBackend over the module's exports. Owns no memory.
import { readFileSync } from 'node:fs'
import type { CacheFormat, CacheRow, KernelBackend, UnitGeometry } from '../backend.js'
import { mostRows } from '../cache-format.js'
import { cpuCacheFormat } from '../cache-formats.js'
import { type PackedMatrix, TILE_ROWS } from '../packing.js'
import { log } from '../portable-math.js'
import { Rows } from '../rows.js'
import { WEIGHT_FORMATS } from '../weight-formats.js'
import type { WasmExports } from './exports.js'
import { hasDotInstruction } from './simd-level.js'
import { type WasmMemory, type WasmModule, WebAssembly } from './webassembly.js'

/** Compiles the module once; it crosses to worker threads by postMessage. Throws if the engine lacks WebAssembly SIMD. */
export function compileKernels(url: URL): WasmModule {
  return new WebAssembly.Module(readFileSync(url))
}

const DOT_INSTRUCTION = hasDotInstruction()

export class WasmBackend implements KernelBackend {
  readonly backend = 'wasm'
  readonly scalarBytes = 4
  readonly scalars: Float32Array
  /**
   * Bytes of weights and of cached rows. Not two fields: when one of those outgrows the engine's small integers (2^31), the shape of all
   * instances changes, and every compiled function that uses one is thrown away: 200 slow tokens of models/tiny.
   * Not private: a profile inherits from an instance, and reads them through it.
   */
  readonly counted = new Float64Array(2)
  readonly #k: WasmExports
  readonly #bytes: Uint8Array
  /** Whether integer products take the kernels that add dot products in one instruction. */
  readonly #dots: boolean

  constructor(module: WasmModule, memory: WasmMemory) {
    const abort = () => {
      throw new Error('a kernel called abort')
    }
    this.#k = new WebAssembly.Instance(module, { env: { memory, abort } }).exports as unknown as WasmExports
    this.#dots = DOT_INSTRUCTION && this.#k.addsDots(1000) !== 0
    this.scalars = new Float32Array(memory.buffer)
    this.#bytes = new Uint8Array(memory.buffer)
  }

  get weightBytesRead(): number {
    return this.counted[0] as number
  }

  get cacheBytesRead(): number {
    return this.counted[1] as number
  }

  #count(what: 0 | 1, bytes: number): void {
    this.counted[what] = (this.counted[what] as number) + bytes
  }

  rows(ptr: number, width: number, stride = width): Rows {
    return new Rows(this.scalars, ptr, width, stride)
  }

  matmul(w: PackedMatrix, x: Rows, y: Rows, tokens: number, scratch: number): void {
    const { matmul, dotMatmul, tileRows } = WEIGHT_FORMATS[w.format]
    this.#k[this.#dots && dotMatmul ? dotMatmul : matmul](
      w.ptr,
      Math.ceil(w.rows / tileRows),
      w.cols,
      x.ptr,
      x.strideBytes,
      y.ptr,
      y.strideBytes,
      tokens,
      w.batch,
      w.batchBytes,
      w.inStride * 4,
      w.outStride * 4,
      scratch,
    )
    this.#count(0, w.bytes)
  }

  rmsNorm(x: Rows, weight: number, y: Rows, n: number, tokens: number, epsilon: number): void {
    this.#k.rmsNorm(x.ptr, x.strideBytes, weight, y.ptr, y.strideBytes, n, tokens, epsilon)
  }

  rmsNormHeads(x: Rows, headStride: number, heads: number, weight: number, n: number, tokens: number, epsilon: number): void {
    for (let h = 0; h < heads; h++) {
      const at = x.ptr + h * headStride * 4
      this.#k.rmsNorm(at, x.strideBytes, weight, at, x.strideBytes, n, tokens, epsilon)
    }
  }

  rope(x: Rows, headStride: number, heads: number, half: number, table: Rows, tokens: number): void {
    this.#k.rope(x.ptr, x.strideBytes, headStride * 4, heads, half, table.ptr, tokens)
  }

  swiglu(gate: Rows, up: Rows, n: number, tokens: number): void {
    this.#k.swiglu(gate.ptr, up.ptr, gate.strideBytes, n, tokens)
  }

  gateRows(x: Rows, gate: Rows, n: number, tokens: number): void {
    this.#k.gateRows(x.ptr, x.strideBytes, gate.ptr, gate.strideBytes, n, tokens)
  }

  combineFactors(dst: Rows, a: Rows, b: Rows, heads: number, rank: number, width: number, tokens: number): void {
    this.#k.combineFactors(dst.ptr, dst.strideBytes, a.ptr, a.strideBytes, b.ptr, b.strideBytes, heads, rank, width, tokens)
  }

  sumPartials(dst: Rows, sources: readonly Rows[], n: number, tokens: number, factor: number): void {
    const first = sources[0] as Rows
    const b = sources[1] ?? first
    const c = sources[2] ?? first
    const d = sources[3] ?? first
    this.#k.sumPartials(dst.ptr, dst.strideBytes, first.ptr, b.ptr, c.ptr, d.ptr, sources.length, first.strideBytes, n, tokens, factor)
  }

  addRows(x: Rows, y: Rows, n: number, tokens: number): void {
    this.#k.addRows(x.ptr, x.strideBytes, y.ptr, y.strideBytes, n, tokens)
  }

  addVector(x: Rows, vector: number, n: number, tokens: number): void {
    this.#k.addRows(x.ptr, x.strideBytes, vector, 0, n, tokens)
  }

  gatherRow(w: PackedMatrix, row: number, dst: Rows): void {
    const { gatherRow, blockBytes } = WEIGHT_FORMATS[w.format]
    if (!gatherRow) throw new RangeError(`a row of ${w.format} weights cannot be gathered`)
    const tile = w.ptr + (row >> 5) * w.cols * blockBytes
    this.#k[gatherRow](tile, row % TILE_ROWS, w.cols, dst.ptr)
  }

  writeCacheRow(dst: number, src: Rows, t: number, row: CacheRow): void {
    cpuCacheFormat(row.format).write(this.#k, dst, src.ptr + t * src.strideBytes, row)
  }

  copyBytes(dst: number, src: number, bytes: number): void {
    this.#bytes.copyWithin(dst, src, src + bytes)
  }

  loadQueries(
    dst: number,
    src: Rows,
    t: number,
    rows: number,
    headStride: number,
    heads: number,
    lanes: number,
    n: number,
    format: CacheFormat,
  ): void {
    this.#k[cpuCacheFormat(format).loadQueries](dst, src.ptr + t * src.strideBytes, headStride * 4, heads, lanes, n, rows, src.strideBytes)
  }

  dotPage(query: number, page: number, row: CacheRow, out: number, lanes: number, tokens: number): void {
    cpuCacheFormat(row.format).dot(this.#k, query, page, row, out, lanes, tokens)
    this.#count(1, row.bytes * tokens)
  }

  beginAttention(unit: UnitGeometry, z: Rows, t: number): void {
    this.#k.beginAttention(unit.state, unit.lanes, z.ptr + t * z.strideBytes, unit.valueWidth * 4, unit.heads, unit.valueWidth)
  }

  attendPage(unit: UnitGeometry, page: number, shared: number, z: Rows, t: number, tokens: number): void {
    cpuCacheFormat(unit.row.format).attend(this.#k, unit, page, shared, z.ptr + t * z.strideBytes, tokens)
    this.#count(1, (unit.row.bytes + (unit.factors?.row.bytes ?? 0)) * mostRows(unit, tokens))
  }

  finishAttention(unit: UnitGeometry, z: Rows, t: number): void {
    this.#k.finishAttention(z.ptr + t * z.strideBytes, unit.valueWidth * 4, unit.state + unit.lanes * 4, unit.valueWidth, unit.heads)
  }

  combinePartials(dst: Rows, z: readonly Rows[], toMax: number, toSum: number, heads: number, width: number, tokens: number): void {
    const [a, b, c, d] = z as readonly [Rows, Rows, Rows, Rows]
    const { ptr, strideBytes } = dst
    this.#k.combinePartials(ptr, strideBytes, a.ptr, b.ptr, c.ptr, d.ptr, a.strideBytes, toMax * 4, toSum * 4, heads, width, tokens)
  }

  argmax(logits: Rows, t: number, n: number): number {
    return this.#k.argmax(logits.ptr + t * logits.strideBytes, n)
  }

  logProbability(logits: Rows, t: number, n: number, id: number): number {
    const top = this.argmax(logits, t, n)
    if (top < 0) return Number.NaN
    const row = logits.row(t)
    const max = row[top] as number
    return (row[id] as number) - max - log(this.#k.sumOfExponentials(logits.ptr + t * logits.strideBytes, n, max))
  }

  softWeights(logits: Rows, t: number, n: number, temperature: number, weights: number): number {
    return this.#k.softWeights(logits.ptr + t * logits.strideBytes, n, 1 / temperature, weights)
  }

  sample(logits: Rows, t: number, n: number, temperature: number, u: number, scratch: number): number {
    return this.#k.sampleCategorical(logits.ptr + t * logits.strideBytes, n, 1 / temperature, u, scratch)
  }
}
