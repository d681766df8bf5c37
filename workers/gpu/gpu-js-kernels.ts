// The kernel set in gpu.js: for devices that cannot run the WGSL one, or on request. Weights and cache are float32. Tokens are written
// to the cache by copies, since a gpu.js kernel always writes its whole output.
/// <reference types="@webgpu/types" />
import { normalize, normalizeGroups, sumSquares } from '../../kernels/gpu/elementwise.js'
import {
  placeProducts,
  scoreFactors,
  scoreTokens,
  scoreTokensWithRope,
  softmaxStates,
  sumFactors,
  sumValues,
  tileProducts,
} from '../../kernels/gpu/portable-kernels.js'
import type { Command, Dispatch, ProgramParts, RowCopies, RowSet, Shaped, StepSize } from '../../kernels/gpu/program.js'
import { TILE_ROWS } from '../../kernels/packing.js'
import { cacheWidth } from '../layout/attention-plan.js'
import { PAGE_TOKENS } from '../protocol.js'
import type { GpuBuffers } from './buffers.js'
import type { CacheWrite, KernelSet, Product, RmsNorm, StepTables } from './kernel-set.js'
import type { GpuPlan } from './plan.js'
import type { Tile } from './weights.js'

/** Norms up to this width are one dispatch; longer ones sum squares in so many parts first. */
const SHORT_NORM = 256
const CHUNKS = 32
/** Bytes of the scores of one group of rows. */
const SCORE_BYTES = 128 << 20

export class GpuJsKernels implements KernelSet {
  readonly #program: ProgramParts
  readonly #plan: GpuPlan
  readonly #b: GpuBuffers
  readonly #tables: StepTables
  readonly #squares: Shaped
  /** By width: layers share them. */
  readonly #normed = new Map<number, Shaped>()
  readonly #products = new Map<number, Shaped>()
  readonly #heads: Shaped
  readonly #rowGroup: number
  readonly #tokens: number
  readonly #scores: Shaped
  readonly #states: Shaped

  constructor(program: ProgramParts, plan: GpuPlan, buffers: GpuBuffers, tables: StepTables, contextTokens: number) {
    this.#program = program
    this.#plan = plan
    this.#b = buffers
    this.#tables = tables
    this.#squares = program.tensor(CHUNKS, plan.stepRows)
    this.#heads = { buffer: program.upload(headTable(plan)), dims: [4, plan.flash.outHeads] }
    this.#tokens = Math.ceil(contextTokens / PAGE_TOKENS) * PAGE_TOKENS
    const rowBytes = this.#tokens * plan.flash.outHeads * 4
    // 16 rows are a multiple of 256 bytes, as offsets of outputs must be.
    this.#rowGroup = Math.min(plan.stepRows, Math.max(16, Math.floor(SCORE_BYTES / rowBytes / 16) * 16))
    this.#scores = program.tensor(this.#tokens, plan.flash.outHeads, this.#rowGroup)
    this.#states = program.tensor(2, plan.flash.outHeads, this.#rowGroup)
  }

  async argmax(): Promise<Dispatch[]> {
    return []
  }

  async product({ label, weights, tiles, x, y, rowSet = 'step', norm }: Product): Promise<Dispatch[]> {
    if (tiles.length === 0) return []
    const program = this.#program
    const { stepRows } = this.#plan
    const dispatches: Dispatch[] = []
    let input = x
    if (norm) {
      input = this.#shared(this.#normed, norm.weight.dims[0] as number)
      dispatches.push(...(await this.#norm(x, norm, input, rowSet)))
    }
    const columns = tiles.flatMap(({ word, x: first, k }) => [word / this.#plan.wordsPerColumn, first, k])
    const table = { buffer: program.upload(Float32Array.from(columns)), dims: [3, tiles.length] }
    const w = { buffer: weights.buffer, dims: [TILE_ROWS, Math.floor(weights.buffer.size / (TILE_ROWS * 4))] }
    const products = { ...this.#shared(this.#products, TILE_ROWS * tiles.length), dims: [TILE_ROWS, tiles.length, stepRows] }
    const k = Math.max(...tiles.map((tile) => tile.k))
    dispatches.push(await program.gpuJs(label, tileProducts, { k }, [w, table, input], products, [TILE_ROWS, tiles.length, 'rows'], rowSet))
    const [width = 0, rows = 0] = y.dims
    for (const [plane, places] of placesOf(tiles, width, rows)) {
      const map = { buffer: program.upload(places), dims: [2, width] }
      const out = { ...y, offset: plane * width * rows * 4 }
      dispatches.push(await program.gpuJs('place products', placeProducts, {}, [products, map], out, [width, 'rows'], rowSet))
    }
    return dispatches
  }

  #shared(buffers: Map<number, Shaped>, width: number): Shaped {
    const made = buffers.get(width) ?? this.#program.tensor(width, this.#plan.stepRows)
    buffers.set(width, made)
    return made
  }

  /** Of x's first columns, as many as the norm's weight has. */
  async #norm(x: Shaped, { weight, epsilon }: RmsNorm, out: Shaped, rowSet: RowSet): Promise<Dispatch[]> {
    const program = this.#program
    const n = weight.dims[0] as number
    if (n <= SHORT_NORM) {
      return [await program.gpuJs('norm', normalizeGroups, { n, offset: 0, epsilon }, [x, { ...weight, dims: [n, 1] }], out, [n, 1, 'rows'], rowSet)]
    }
    const each = Math.ceil(n / CHUNKS)
    return [
      await program.gpuJs('sum of squares', sumSquares, { n, offset: 0, each }, [x], this.#squares, [CHUNKS, 'rows'], rowSet),
      await program.gpuJs('norm', normalize, { n, offset: 0, chunks: CHUNKS, epsilon }, [x, this.#squares, weight], out, [n, 'rows'], rowSet),
    ]
  }

  async writeCache(cache: GPUBuffer, writes: readonly CacheWrite[]): Promise<RowCopies[]> {
    const record = (encoder: GPUCommandEncoder, step: StepSize) => {
      for (let t = 0; t < step.rows; t++) {
        const row = this.#tables.cacheRow(t)
        for (const { x, rows: w } of writes) {
          for (let plane = 0; plane < w.planes; plane++) {
            const from = (t * w.xStride + plane * w.width) * 4
            const to = (w.region + plane * w.regionStride + row * w.rowWidth) * 4
            encoder.copyBufferToBuffer(x.buffer, from, cache, to, w.width * 4)
          }
        }
      }
    }
    return [{ label: 'write to cache', origin: 'copy', record }]
  }

  async attend(cache: GPUBuffer): Promise<Command[]> {
    const { a, flash, regions, stepRows, lanes } = this.#plan
    if (flash.groups.length === 0) return []
    const program = this.#program
    const b = this.#b
    const queries = a.absorbed ? b.absorbed : b.queries
    const cached = (at: number, width: number): Shaped => ({ buffer: cache, offset: at * 4, dims: [width, regions.stream / regions.streamRow] })
    const stream = { buffer: cache, dims: [regions.streamRow, Math.max(1, this.#plan.streamCount) * (regions.stream / regions.streamRow)] }
    const ropes = cached(regions.rope, cacheWidth(a.sharedRopeDim))
    const factors = cached(regions.coefficients, 2 * (a.factors?.rank ?? 0) * lanes)
    const places = [this.#tables.pageTable, this.#tables.rowTable, this.#heads]
    const dispatches: Dispatch[] = []
    for (let first = 0; first < stepRows; first += this.#rowGroup) {
      const rowsOf = (n: number) => Math.max(0, Math.min(this.#rowGroup, n - first))
      const add = (dispatch: Dispatch) => dispatches.push({ ...dispatch, groups: (step) => dispatch.groups({ ...step, rows: rowsOf(step.rows) }) })
      const common = { firstRow: first, tokens: this.#tokens }
      const keys = { ...common, keyWidth: flash.keyWidth, scale: flash.scale }
      const vectors = a.factors && { rank: a.factors.rank, lanes }
      const tokensByHeads = [this.#tokens, flash.outHeads, 'rows'] as const
      if (vectors)
        add(
          await program.gpuJs('attention', scoreFactors, { ...keys, ...vectors }, [queries, stream, ...places, factors], this.#scores, tokensByHeads),
        )
      else if (a.sharedRopeDim > 0) {
        const args = [queries, stream, ...places, b.queries, ropes]
        add(await program.gpuJs('attention', scoreTokensWithRope, { ...keys, ropeDim: a.sharedRopeDim }, args, this.#scores, tokensByHeads))
      } else add(await program.gpuJs('attention', scoreTokens, keys, [queries, stream, ...places], this.#scores, tokensByHeads))
      add(await program.gpuJs('softmax', softmaxStates, common, [this.#scores, this.#tables.rowTable], this.#states, [2, flash.outHeads, 'rows']))
      const out = { ...b.context, offset: first * flash.outHeads * flash.valueWidth * 4 }
      const values = { ...common, valueWidth: a.stream.valueWidth, valueOffset: flash.valueOffset }
      const args = [this.#scores, this.#states, stream, ...places]
      const size = [flash.valueWidth, flash.outHeads, 'rows'] as const
      if (vectors) {
        const strides = { ...values, ...vectors, valueStride: a.stream.valueWidth }
        add(await program.gpuJs('weighted sums', sumFactors, strides, [...args, factors], out, size))
      } else add(await program.gpuJs('weighted sums', sumValues, values, args, out, size))
    }
    return dispatches
  }
}

/** [4, heads]: of each head of the output, first row of its stream, first columns of its queries, lane. */
function headTable({ flash, regions }: GpuPlan): Float32Array {
  const table = new Float32Array(flash.outHeads * 4)
  for (const group of flash.groups) {
    for (let i = 0; i < group.heads; i++) {
      const facts = [group.region / regions.streamRow, group.query + i * flash.queryStride, group.ropeQuery + i * flash.ropeStride, group.lane + i]
      table.set(facts, (group.out + i) * 4)
    }
  }
  return table
}

/** By plane of y: for each column its tile and the row of the tile; -1: no tile writes the column. */
function placesOf(tiles: readonly Tile[], width: number, rows: number): Map<number, Float32Array> {
  const planes = new Map<number, Float32Array>()
  for (const [tile, { y, rows: valid }] of tiles.entries()) {
    for (let i = 0; i < valid; i++) {
      const plane = Math.floor((y + i) / (width * rows))
      const places = planes.get(plane) ?? Float32Array.from({ length: 2 * width }, () => -1)
      const column = (y + i) % (width * rows)
      places[2 * column] = tile
      places[2 * column + 1] = i
      planes.set(plane, places)
    }
  }
  return planes
}
