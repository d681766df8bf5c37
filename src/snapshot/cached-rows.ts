// The cached rows of pages in the ranks' memories, as a snapshot has them: by layer and stream, whatever the rank count. Knows layouts; no
// files.
import { bufferOf } from '../../kernels/open-space.js'
import { type CacheRows, cacheRows, rankHeads, streamsOf } from '../../workers/attention-plan.js'
import type { ModelLayout } from '../../workers/model-layout.js'
import { type AttentionShape, PAGE_TOKENS, type RunPlan } from '../../workers/protocol.js'
import type { RankLayout } from '../../workers/rank-layout.js'
import type { EngineMemories } from '../engine/start-engine.js'

/** Rows of one layer: row after row of each stream, of the rope keys, and of the coefficients [2 * rank][heads]. */
export interface LayerRows {
  readonly streams: readonly Uint8Array[]
  readonly ropes: Uint8Array
  readonly coefficients: Uint8Array
}

export class CachedRows {
  readonly #a: AttentionShape
  readonly #ranks: readonly { readonly layout: RankLayout; readonly rows: CacheRows; readonly bytes: Uint8Array }[]
  /** Bytes of a row, the same in every rank. */
  readonly #streamBytes: number
  readonly #ropeBytes: number
  /** Bytes of a coefficient; 0 if there are none. */
  readonly #scalar: number

  constructor(a: AttentionShape, plan: RunPlan, layout: ModelLayout, memories: EngineMemories) {
    this.#a = a
    this.#ranks = layout.ranks.map((rank, i) => ({
      layout: rank,
      rows: cacheRows(a, rank.shards, plan),
      bytes: new Uint8Array(bufferOf(memories.ranks[i] as EngineMemories['ranks'][number])),
    }))
    const { stream, rope, coefficients } = cacheRows(a, [0], plan)
    this.#streamBytes = stream.bytes
    this.#ropeBytes = rope.bytes
    this.#scalar = a.factors ? coefficients.bytes / coefficients.paddedWidth : 0
  }

  /** Bytes of `rows` rows of each array of LayerRows. */
  sizes(rows: number): { readonly streams: number; readonly stream: number; readonly ropes: number; readonly coefficients: number } {
    const { streams, factors, heads } = this.#a
    return {
      streams,
      stream: rows * this.#streamBytes,
      ropes: rows * this.#ropeBytes,
      coefficients: rows * 2 * (factors?.rank ?? 0) * heads * this.#scalar,
    }
  }

  /** Copies `rows` rows of a layer out of pages, from the first row of the first page on. */
  read(layer: number, pages: readonly number[], rows: number): LayerRows {
    const sizes = this.sizes(rows)
    const out = {
      streams: Array.from({ length: sizes.streams }, () => new Uint8Array(sizes.stream)),
      ropes: new Uint8Array(sizes.ropes),
      coefficients: new Uint8Array(sizes.coefficients),
    }
    this.#each(layer, pages, rows, out, (memory, file) => file.set(memory))
    return out
  }

  /** Copies them into pages, on every rank that holds them. */
  write(layer: number, pages: readonly number[], rows: number, from: LayerRows): void {
    this.#each(layer, pages, rows, from, (memory, file) => memory.set(file))
  }

  #each(layer: number, pages: readonly number[], rows: number, data: LayerRows, copy: (memory: Uint8Array, file: Uint8Array) => void): void {
    const a = this.#a
    const region = (bytes: Uint8Array, file: Uint8Array, ptr: number, rowBytes: number) => {
      for (let first = 0; first < rows; first += PAGE_TOKENS) {
        const at = ptr + (pages[first / PAGE_TOKENS] as number) * PAGE_TOKENS * rowBytes
        const length = Math.min(PAGE_TOKENS, rows - first) * rowBytes
        copy(bytes.subarray(at, at + length), file.subarray(first * rowBytes, first * rowBytes + length))
      }
    }
    for (const { layout, rows: cached, bytes } of this.#ranks) {
      const own = layout.layers[layer] as RankLayout['layers'][number]
      for (const [i, stream] of streamsOf(a, layout.shards).entries()) {
        region(bytes, data.streams[stream] as Uint8Array, own.streams[i] as number, this.#streamBytes)
      }
      if (this.#ropeBytes > 0) region(bytes, data.ropes, own.ropeStream, this.#ropeBytes)
      if (a.factors) this.#coefficients(layout, cached, bytes, own.coefficientStream, pages, rows, data.coefficients, copy)
    }
  }

  /** A rank has its own heads' coefficients, in lanes. */
  #coefficients(
    { shards }: RankLayout,
    { coefficients }: CacheRows,
    bytes: Uint8Array,
    ptr: number,
    pages: readonly number[],
    rows: number,
    file: Uint8Array,
    copy: (memory: Uint8Array, file: Uint8Array) => void,
  ): void {
    const a = this.#a
    const vectors = 2 * (a.factors?.rank ?? 0)
    const { start, end } = rankHeads(a, shards)
    const length = (end - start) * this.#scalar
    for (let row = 0; row < rows; row++) {
      const page = pages[Math.floor(row / PAGE_TOKENS)] as number
      const at = ptr + (page * PAGE_TOKENS + (row % PAGE_TOKENS)) * coefficients.bytes
      for (let v = 0; v < vectors; v++) {
        const memory = at + (v * coefficients.bytes) / vectors
        const inFile = ((row * vectors + v) * a.heads + start) * this.#scalar
        copy(bytes.subarray(memory, memory + length), file.subarray(inFile, inFile + length))
      }
    }
  }
}
