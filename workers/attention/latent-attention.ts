// Absorbed attention over cached latents, for the units of one rank: cache writes, then row by row, page by page.
// The queries are in latent space already; what comes out is the weighted sum of latents per head.
import type { CacheFormat, KernelSpace, UnitGeometry } from '../../kernels/backend.js'
import type { Rows } from '../../kernels/rows.js'
import { CacheStream } from '../kv-cache.js'
import { ROW } from '../layout.js'
import { cacheWidth, type RankLayout, unitOf } from '../model-layout.js'
import { type ModelShape, PAGE_TOKENS } from '../protocol.js'
import type { StepView } from '../step-view.js'

interface UnitWork {
  readonly geometry: UnitGeometry
  /** [T, latentDim], normed */
  readonly latent: Rows
  /** [T, heads * latentDim] */
  readonly absorbed: Rows
  /** [T, heads * cacheWidth(latentDim)] */
  readonly context: Rows
}

export class LatentAttentionRunner {
  readonly units: readonly UnitWork[]
  readonly #space: KernelSpace
  readonly #format: CacheFormat
  readonly #queryWidth: number
  readonly #ropeDim: number
  readonly #latentDim: number
  readonly #lanes: number
  readonly #heads: number
  readonly #ropeQuery: number
  readonly #ropeScores: number
  readonly #ropeQueries: Rows
  readonly #ropeKey: Rows
  readonly #layers: readonly { readonly streams: readonly CacheStream[]; readonly rope: CacheStream }[]

  constructor(space: KernelSpace, format: CacheFormat, shape: ModelShape, layout: RankLayout, queries: Rows, ropeKey: Rows) {
    const a = shape.attention
    this.#space = space
    this.#format = format
    this.#queryWidth = a.nopeDim + a.ropeDim
    this.#ropeDim = a.ropeDim
    this.#latentDim = a.latentDim
    this.#heads = layout.headEnd - layout.headStart
    this.#lanes = cacheWidth(this.#heads)
    this.#ropeQuery = layout.ropeQuery
    this.#ropeScores = layout.ropeScores
    this.#ropeQueries = queries.columns(layout.headStart * this.#queryWidth + a.nopeDim, this.#heads * this.#queryWidth - a.nopeDim)
    this.#ropeKey = ropeKey
    const width = cacheWidth(a.latentDim)
    this.units = layout.units.map((u) => {
      const unit = unitOf(shape, u.shard)
      const heads = unit.headEnd - unit.headStart
      return {
        latent: space.rows(u.latent, a.latentDim),
        absorbed: space.rows(u.absorbed, heads * a.latentDim),
        context: space.rows(u.context, heads * width),
        geometry: {
          query: u.query,
          scores: u.scores,
          state: u.state,
          heads,
          lanes: cacheWidth(heads),
          rowWidth: width,
          keyOffset: 0,
          keyWidth: a.latentDim,
          valueOffset: 0,
          valueWidth: width,
          sharedLanes: this.#lanes,
          sharedOffset: unit.headStart - layout.headStart,
          scale: a.scale,
        },
      }
    })
    this.#layers = layout.layers.map((layer) => ({
      streams: layer.streams.map((ptr) => new CacheStream(space, format, ptr, a.latentDim)),
      rope: new CacheStream(space, format, layer.ropeStream, a.ropeDim),
    }))
  }

  /** Writes the step's latents and rope keys to the cache of a layer, before any row attends. */
  writeCache(layer: number, step: StepView, tokens: number): void {
    const cache = this.#layers[layer]
    if (!cache) throw new RangeError(`no layer ${layer}`)
    for (let t = 0; t < tokens; t++) {
      const position = step.int(t, ROW.position)
      const page = step.page(step.int(t, ROW.slot), Math.floor(position / PAGE_TOKENS))
      for (let u = 0; u < this.units.length; u++) cache.streams[u]?.write(page, position, (this.units[u] as UnitWork).latent, t)
      cache.rope.write(page, position, this.#ropeKey, t)
    }
  }

  /** Every row attends to the positions up to its own; results in each unit's context. */
  attend(layer: number, step: StepView, tokens: number): void {
    const cache = this.#layers[layer]
    if (!cache) throw new RangeError(`no layer ${layer}`)
    const space = this.#space
    for (let t = 0; t < tokens; t++) {
      space.transposeHeads(this.#ropeQuery, this.#ropeQueries, t, this.#queryWidth, this.#heads, this.#lanes, this.#ropeDim)
      for (let u = 0; u < this.units.length; u++) {
        const { geometry, absorbed, context } = this.units[u] as UnitWork
        space.transposeHeads(geometry.query, absorbed, t, this.#latentDim, geometry.heads, geometry.lanes, this.#latentDim)
        space.beginAttention(geometry, context, t)
      }
      const slot = step.int(t, ROW.slot)
      const length = step.int(t, ROW.position) + 1
      for (let i = 0; i * PAGE_TOKENS < length; i++) {
        const page = step.page(slot, i)
        const valid = Math.min(PAGE_TOKENS, length - i * PAGE_TOKENS)
        // The rope key is one stream: its scores are computed once for all units of the rank (design rule 5).
        space.dotPage(this.#ropeQuery, cache.rope.page(page), cache.rope.rowWidth, this.#ropeDim, this.#ropeScores, this.#lanes, valid, this.#format)
        for (let u = 0; u < this.units.length; u++) {
          const { geometry, context } = this.units[u] as UnitWork
          space.attendPage(geometry, (cache.streams[u] as CacheStream).page(page), this.#ropeScores, context, t, valid, this.#format)
        }
      }
      for (let u = 0; u < this.units.length; u++) {
        const { geometry, context } = this.units[u] as UnitWork
        space.finishAttention(geometry, context, t)
      }
    }
  }
}
