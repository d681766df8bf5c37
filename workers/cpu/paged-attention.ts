// Attention over the paged cache, for the units of one rank: cache writes, then tile by tile (rows that follow each other in a
// sequence), page by page. Queries are in the streams' space already; what comes out is the weighted sum of a stream's values per head.
import type { KernelBackend, UnitGeometry } from '../../kernels/backend.js'
import type { Rows } from '../../kernels/rows.js'
import { queryWidth } from '../layout/attention-geometry.js'
import { type CacheRows, cacheWidth, contextWidth, tileRows } from '../layout/attention-plan.js'
import { heldPage } from '../layout/partition.js'
import type { RankLayout } from '../layout/rank-layout.js'
import { COPY, ROW } from '../mailbox/mailbox-layout.js'
import type { StepReader } from '../mailbox/step-buffer.js'
import { type AttentionShape, PAGE_TOKENS, type RunPlan } from '../protocol.js'
import { CacheStream } from './kv-cache.js'

export interface UnitWork {
  readonly headStart: number
  readonly headEnd: number
  /** Index into the rank's streams. */
  readonly stream: number
  /** By rows of the tile, less one. */
  readonly geometry: readonly UnitGeometry[]
  /** [T, ...]: the first head's query in the stream's space, and scalars from one head to the next. */
  readonly queries: Rows
  readonly queryStride: number
  /** [T, heads * contextWidth] */
  readonly context: Rows
  /** [T, 2 * lanes]: maxima and sums of a part of the pages; unused if all are attended at once. */
  readonly parts: Rows
}

/** What a step writes to the cache, [T, width] each. */
export interface CacheInputs {
  readonly streams: readonly Rows[]
  /** The rope key that all heads share; unused when the shape has none. */
  readonly ropeKey: Rows
  /** Unused without factors. */
  readonly coefficients: Rows
}

interface LayerCache {
  readonly streams: readonly CacheStream[]
  readonly rope: CacheStream
  readonly coefficients: CacheStream
}

export class PagedAttention {
  readonly units: readonly UnitWork[]
  readonly #kernels: KernelBackend
  readonly #rows: CacheRows
  readonly #a: AttentionShape
  readonly #inputs: CacheInputs
  readonly #queryWidth: number
  readonly #heads: number
  /** Rows of a tile at most. */
  readonly #tileRows: number
  readonly #ropeQuery: number
  readonly #ropeScores: number
  /** From the rank's first head's rope columns on. */
  readonly #ropeQueries: Rows
  readonly #layers: readonly LayerCache[]
  readonly #held: (page: number) => number

  constructor(kernels: KernelBackend, rows: CacheRows, a: AttentionShape, plan: RunPlan, layout: RankLayout, queries: Rows, inputs: CacheInputs) {
    this.#kernels = kernels
    this.#rows = rows
    this.#a = a
    this.#inputs = inputs
    this.#queryWidth = queryWidth(a)
    this.#heads = layout.attendEnd - layout.attendStart
    this.#held = (page) => heldPage(plan.partition, layout.shards, page)
    this.#tileRows = tileRows(a, layout.shards, plan)
    this.#ropeQuery = layout.ropeQuery
    this.#ropeScores = layout.ropeScores
    const firstRope = layout.attendStart * this.#queryWidth + a.nopeDim
    this.#ropeQueries = queries.columns(firstRope, queries.width - firstRope)
    this.units = layout.units.map(({ unit, stream, absorbed, context, query, scores, values, dots, state, parts }) => {
      const { headStart, headEnd } = unit
      const heads = headEnd - headStart
      const first = headStart * this.#queryWidth
      return {
        headStart,
        headEnd,
        stream,
        queries: a.absorbed ? kernels.rows(absorbed, heads * a.stream.keyWidth) : queries.columns(first, queries.width - first),
        queryStride: a.absorbed ? a.stream.keyWidth : this.#queryWidth,
        context: kernels.rows(context, heads * contextWidth(a)),
        parts: kernels.rows(parts, 2 * cacheWidth(heads)),
        geometry: Array.from({ length: this.#tileRows }, (_, more) => ({
          query,
          scores,
          values,
          state,
          heads: (more + 1) * heads,
          rowHeads: heads,
          lanes: cacheWidth((more + 1) * heads),
          row: rows.stream,
          valueOffset: a.stream.valueOffset,
          valueWidth: contextWidth(a),
          sharedLanes: cacheWidth((more + 1) * this.#heads),
          sharedOffset: headStart - layout.attendStart,
          sharedRowHeads: this.#heads,
          scale: a.scale,
          factors: a.factors && { rank: a.factors.rank, valueStride: a.stream.valueWidth, row: rows.coefficients, dots },
        })),
      }
    })
    this.#layers = layout.layers.map((layer) => ({
      streams: layer.streams.map((ptr) => new CacheStream(kernels, ptr, rows.stream)),
      rope: new CacheStream(kernels, layer.ropeStream, rows.rope),
      coefficients: new CacheStream(kernels, layer.coefficientStream, rows.coefficients),
    }))
  }

  /** Makes the step's copies of cached rows, in all layers, before any row is written. */
  copyPages(step: StepReader): void {
    for (let i = 0; i < step.copies; i++) {
      const from = this.#held(step.copy(i, COPY.from))
      const to = this.#held(step.copy(i, COPY.to))
      if (to < 0) continue
      const rows = step.copy(i, COPY.rows)
      for (let l = 0; l < this.#layers.length; l++) {
        const { streams, rope, coefficients } = this.#layer(l)
        for (let k = 0; k < streams.length; k++) (streams[k] as CacheStream).copy(from, to, rows)
        rope.copy(from, to, rows)
        coefficients.copy(from, to, rows)
      }
    }
  }

  /** The rank holds the page that row t is cached in. */
  holds(step: StepReader, t: number): boolean {
    return this.#held(step.page(step.int(t, ROW.slot), Math.floor(step.int(t, ROW.position) / PAGE_TOKENS))) >= 0
  }

  /** Writes the step's inputs to the cache of a layer, before any row attends. */
  writeCache(layer: number, step: StepReader, tokens: number): void {
    const cache = this.#layer(layer)
    const { streams, ropeKey, coefficients } = this.#inputs
    for (let t = 0; t < tokens; t++) {
      const position = step.int(t, ROW.position)
      const page = this.#held(step.page(step.int(t, ROW.slot), Math.floor(position / PAGE_TOKENS)))
      if (page < 0) continue
      for (let i = 0; i < streams.length; i++) (cache.streams[i] as CacheStream).write(page, position, streams[i] as Rows, t)
      if (this.#a.sharedRopeDim > 0) cache.rope.write(page, position, ropeKey, t)
      if (this.#a.factors) cache.coefficients.write(page, position, coefficients, t)
    }
  }

  /**
   * Every row attends to the positions up to its own; results in each unit's context. With another stride than 1, to every stride-th page
   * from `first` on; then the sums stay undivided, and each unit's parts have the maxima and sums.
   */
  attend(layer: number, step: StepReader, tokens: number, first = 0, stride = 1): void {
    const cache = this.#layer(layer)
    const kernels = this.#kernels
    const ropeDim = this.#a.sharedRopeDim
    const { format } = this.#rows.stream
    for (let t = 0, rows = 0; t < tokens; t += rows) {
      rows = this.#rowsFrom(step, t, tokens)
      if (ropeDim > 0)
        kernels.loadQueries(
          this.#ropeQuery,
          this.#ropeQueries,
          t,
          rows,
          this.#queryWidth,
          this.#heads,
          cacheWidth(rows * this.#heads),
          ropeDim,
          format,
        )
      for (let u = 0; u < this.units.length; u++) {
        const { geometry, queries, queryStride, context } = this.units[u] as UnitWork
        const unit = geometry[rows - 1] as UnitGeometry
        kernels.loadQueries(unit.query, queries, t, rows, queryStride, unit.rowHeads, unit.lanes, unit.row.keyWidth, format)
        kernels.beginAttention(unit, context, t)
      }
      const slot = step.int(t, ROW.slot)
      const length = step.int(t, ROW.position) + 1
      for (let i = first; i * PAGE_TOKENS < length; i += stride)
        this.#attendPage(cache, this.#held(step.page(slot, i)), t, rows, Math.min(PAGE_TOKENS, length - i * PAGE_TOKENS))
      for (let u = 0; u < this.units.length; u++) {
        const { geometry, context, parts } = this.units[u] as UnitWork
        const unit = geometry[rows - 1] as UnitGeometry
        if (stride === 1) kernels.finishAttention(unit, context, t)
        else this.#keepParts(unit, parts, t, rows)
      }
    }
  }

  /** The maxima and sums of a tile, row by row. */
  #keepParts({ state, lanes, rowHeads }: UnitGeometry, parts: Rows, t: number, rows: number): void {
    const { scalarBytes } = this.#kernels
    const bytes = rowHeads * scalarBytes
    const sums = cacheWidth(rowHeads) * scalarBytes
    for (let r = 0; r < rows; r++) {
      const to = parts.ptr + (t + r) * parts.strideBytes
      this.#kernels.copyBytes(to, state + r * bytes, bytes)
      this.#kernels.copyBytes(to + sums, state + lanes * scalarBytes + r * bytes, bytes)
    }
  }

  /** Rows of the tile that begins with row t: they follow each other in one sequence, and lie in one page. */
  #rowsFrom(step: StepReader, t: number, tokens: number): number {
    const slot = step.int(t, ROW.slot)
    const position = step.int(t, ROW.position)
    const most = Math.min(this.#tileRows, tokens - t, PAGE_TOKENS - (position % PAGE_TOKENS))
    let rows = 1
    while (rows < most && step.int(t + rows, ROW.slot) === slot && step.int(t + rows, ROW.position) === position + rows) rows++
    return rows
  }

  /** valid: cached rows of the page that row t sees. */
  #attendPage(cache: LayerCache, page: number, t: number, rows: number, valid: number): void {
    const kernels = this.#kernels
    const ropeDim = this.#a.sharedRopeDim
    const most = Math.min(PAGE_TOKENS, valid + rows - 1)
    // The shared rope key is one stream: its scores are computed once for all units of the rank (docs/determinism.md, rule 5).
    if (ropeDim > 0) kernels.dotPage(this.#ropeQuery, cache.rope.page(page), cache.rope.row, this.#ropeScores, cacheWidth(rows * this.#heads), most)
    const second = this.#a.factors ? cache.coefficients.page(page) : ropeDim > 0 ? this.#ropeScores : 0
    for (let u = 0; u < this.units.length; u++) {
      const { geometry, context, stream } = this.units[u] as UnitWork
      kernels.attendPage(geometry[rows - 1] as UnitGeometry, (cache.streams[stream] as CacheStream).page(page), second, context, t, valid)
    }
  }

  #layer(layer: number): LayerCache {
    return this.#layers[layer] as LayerCache
  }
}
