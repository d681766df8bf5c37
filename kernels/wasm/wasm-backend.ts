// The WebAssembly backend: the module's exports behind KernelBackend. Owns no memory.
import { readFileSync } from 'node:fs'
import type { CacheFormat, CacheRow, KernelBackend, UnitGeometry } from '../backend.js'
import { INT8_TILE_ROWS } from '../int8-packing.js'
import { type PackedMatrix, TILE_ROWS } from '../packing.js'
import { log } from '../portable-math.js'
import { Rows } from '../rows.js'
import { type WasmMemory, type WasmModule, WebAssembly } from './webassembly.js'

type Kernel = (...args: number[]) => number

interface Exports {
  matmulF32: Kernel
  matmulBf16: Kernel
  matmulInt8: Kernel
  rmsNorm: Kernel
  rope: Kernel
  swiglu: Kernel
  gateRows: Kernel
  combineFactors: Kernel
  sumPartials: Kernel
  addRows: Kernel
  gatherRowF32: Kernel
  gatherRowBf16: Kernel
  cacheRowF32: Kernel
  cacheRowBf16: Kernel
  cacheRowInt8: Kernel
  transposeHeads: Kernel
  quantizeHeads: Kernel
  dotF32: Kernel
  dotBf16: Kernel
  dotInt8: Kernel
  beginAttention: Kernel
  attendF32: Kernel
  attendBf16: Kernel
  attendInt8: Kernel
  attendFactorsF32: Kernel
  attendFactorsBf16: Kernel
  finishAttention: Kernel
  argmax: Kernel
  sumOfExponentials: Kernel
  sampleCategorical: Kernel
  softWeights: Kernel
}

/** Compiles the module once; it crosses to worker threads by postMessage. Throws if the engine lacks WebAssembly SIMD. */
export function compileKernels(url: URL): WasmModule {
  return new WebAssembly.Module(readFileSync(url))
}

export class WasmBackend implements KernelBackend {
  readonly backend = 'wasm'
  readonly scalarBytes = 4
  readonly scalars: Float32Array
  weightBytesRead = 0
  cacheBytesRead = 0
  readonly #k: Exports
  readonly #bytes: Uint8Array

  constructor(module: WasmModule, memory: WasmMemory) {
    const abort = () => {
      throw new Error('a kernel called abort')
    }
    this.#k = new WebAssembly.Instance(module, { env: { memory, abort } }).exports as unknown as Exports
    this.scalars = new Float32Array(memory.buffer)
    this.#bytes = new Uint8Array(memory.buffer)
  }

  rows(ptr: number, width: number, stride = width): Rows {
    return new Rows(this.scalars, ptr, width, stride)
  }

  matmul(w: PackedMatrix, x: Rows, y: Rows, tokens: number, scratch: number): void {
    const run = w.format === 'int8' ? this.#k.matmulInt8 : w.format === 'bf16' ? this.#k.matmulBf16 : this.#k.matmulF32
    run(
      w.ptr,
      Math.ceil(w.rows / (w.format === 'int8' ? INT8_TILE_ROWS : TILE_ROWS)),
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
    this.weightBytesRead += w.bytes
  }

  rmsNorm(x: Rows, weight: number, y: Rows, n: number, tokens: number, epsilon: number): void {
    this.#k.rmsNorm(x.ptr, x.strideBytes, weight, y.ptr, y.strideBytes, n, tokens, epsilon)
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

  gatherRow(w: PackedMatrix, row: number, dst: Rows): void {
    const bf16 = w.format === 'bf16'
    const tile = w.ptr + (row >> 5) * w.cols * TILE_ROWS * (bf16 ? 2 : 4)
    ;(bf16 ? this.#k.gatherRowBf16 : this.#k.gatherRowF32)(tile, row & 31, w.cols, dst.ptr)
  }

  writeCacheRow(dst: number, src: Rows, t: number, row: CacheRow): void {
    const from = src.ptr + t * src.strideBytes
    if (row.format === 'int8') this.#k.cacheRowInt8(dst, from, row.width, row.paddedWidth, row.sumWidth, row.split)
    else (row.format === 'bf16' ? this.#k.cacheRowBf16 : this.#k.cacheRowF32)(dst, from, row.width, row.paddedWidth)
  }

  copyBytes(dst: number, src: number, bytes: number): void {
    this.#bytes.copyWithin(dst, src, src + bytes)
  }

  loadQueries(dst: number, src: Rows, t: number, headStride: number, heads: number, lanes: number, n: number, format: CacheFormat): void {
    const load = format === 'int8' ? this.#k.quantizeHeads : this.#k.transposeHeads
    load(dst, src.ptr + t * src.strideBytes, headStride * 4, heads, lanes, n)
  }

  dotPage(query: number, page: number, row: CacheRow, out: number, lanes: number, tokens: number): void {
    const { format, bytes, keyWidth } = row
    if (format === 'int8') this.#k.dotInt8(query, page, bytes, row.scaleAt, Math.ceil(keyWidth / 4), out, lanes, tokens)
    else (format === 'bf16' ? this.#k.dotBf16 : this.#k.dotF32)(query, page, bytes, keyWidth, out, lanes, tokens)
    this.cacheBytesRead += bytes * tokens
  }

  beginAttention(unit: UnitGeometry, z: Rows, t: number): void {
    this.#k.beginAttention(unit.state, unit.lanes, z.ptr + t * z.strideBytes, unit.valueWidth * 4, unit.heads, unit.valueWidth)
  }

  attendPage(unit: UnitGeometry, page: number, shared: number, z: Rows, t: number, tokens: number): void {
    const { row, factors } = unit
    if (factors) return this.#attendFactors(unit, factors, page, shared, z, t, tokens)
    if (row.format === 'int8') return this.#attendInt8(unit, page, shared, z, t, tokens)
    const bf16 = row.format === 'bf16'
    ;(bf16 ? this.#k.attendBf16 : this.#k.attendF32)(
      unit.query,
      page,
      row.keyWidth,
      page + unit.valueOffset * (bf16 ? 2 : 4),
      unit.valueWidth,
      row.bytes,
      shared === 0 ? 0 : shared + unit.sharedOffset * 4,
      unit.sharedLanes * 4,
      unit.scale,
      unit.scores,
      unit.state,
      z.ptr + t * z.strideBytes,
      unit.valueWidth * 4,
      unit.heads,
      unit.lanes,
      tokens,
    )
    this.cacheBytesRead += row.bytes * tokens
  }

  #attendInt8(unit: UnitGeometry, page: number, shared: number, z: Rows, t: number, tokens: number): void {
    const { row } = unit
    this.#k.attendInt8(
      unit.query,
      page,
      row.keyWidth,
      page + unit.valueOffset,
      unit.valueWidth,
      row.bytes,
      row.scaleAt,
      row.valueScaleAt,
      shared === 0 ? 0 : shared + unit.sharedOffset * 4,
      unit.sharedLanes * 4,
      unit.scale,
      unit.values,
      unit.scores,
      unit.state,
      z.ptr + t * z.strideBytes,
      unit.valueWidth * 4,
      unit.heads,
      unit.lanes,
      tokens,
    )
    this.cacheBytesRead += row.bytes * tokens
  }

  #attendFactors(
    unit: UnitGeometry,
    factors: NonNullable<UnitGeometry['factors']>,
    page: number,
    coefficients: number,
    z: Rows,
    t: number,
    tokens: number,
  ): void {
    const { row } = unit
    const bf16 = row.format === 'bf16'
    const bytes = bf16 ? 2 : 4
    ;(bf16 ? this.#k.attendFactorsBf16 : this.#k.attendFactorsF32)(
      unit.query,
      page,
      row.keyWidth,
      page + unit.valueOffset * bytes,
      unit.valueWidth,
      factors.valueStride * bytes,
      row.bytes,
      factors.rank,
      coefficients,
      factors.row.bytes,
      unit.scale,
      factors.dots,
      unit.scores,
      unit.state,
      z.ptr + t * z.strideBytes,
      unit.valueWidth * 4,
      unit.heads,
      unit.lanes,
      tokens,
    )
    this.cacheBytesRead += (row.bytes + factors.row.bytes) * tokens
  }

  finishAttention(unit: UnitGeometry, z: Rows, t: number): void {
    this.#k.finishAttention(z.ptr + t * z.strideBytes, unit.valueWidth * 4, unit.state + unit.lanes * 4, unit.valueWidth, unit.heads)
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
