// Reads and writes the cached rows of pages in the ranks' memories or on their devices, in the form of snapshots: by layer and stream,
// the same at every rank count. Knows layouts; no files.
import { bufferOf } from '../../../kernels/open-backend.js'
import { type CacheRows, cacheRows, rankHeads, streamsOf } from '../../../workers/layout/attention-plan.js'
import type { ModelLayout } from '../../../workers/layout/model-layout.js'
import { layoutPages, type PageLayout } from '../../../workers/layout/page-layout.js'
import { cachedShards, heldPage } from '../../../workers/layout/partition.js'
import type { RankLayout } from '../../../workers/layout/rank-layout.js'
import { type AttentionShape, PAGE_TOKENS, type Partition, type RunPlan } from '../../../workers/protocol.js'
import type { RankGroup } from '../ranks/rank-group.js'
import type { EngineMemories } from '../start-engine.js'

/** Rows of one layer: row after row of each stream, of the rope keys, and of the coefficients [2 * rank][heads]. */
export interface LayerRows {
  readonly streams: readonly Uint8Array[]
  readonly ropes: Uint8Array
  readonly coefficients: Uint8Array
}

/** Where a rank's rows of a layer lie. */
interface Place {
  readonly bytes: Uint8Array
  readonly layer: Pick<RankLayout['layers'][number], 'streams' | 'ropeStream' | 'coefficientStream'>
  /** Numbers of the pages there; negative: another rank has it. */
  readonly pages: readonly number[]
}

interface RankRows {
  readonly shards: readonly number[]
  readonly rows: CacheRows
}

type Copy = (memory: Uint8Array, file: Uint8Array) => void
const toFile: Copy = (memory, file) => file.set(memory)
const toMemory: Copy = (memory, file) => memory.set(file)

export abstract class CachedRows {
  readonly #a: AttentionShape
  protected readonly partition: Partition
  protected readonly ranks: readonly RankRows[]
  /** Bytes of a row, the same in every rank. */
  readonly #streamBytes: number
  readonly #ropeBytes: number
  /** Bytes of a coefficient; 0 if there are none. */
  readonly #scalar: number

  constructor(a: AttentionShape, plan: RunPlan, layout: ModelLayout) {
    this.#a = a
    this.partition = plan.partition
    this.ranks = layout.ranks.map(({ shards }) => ({ shards, rows: cacheRows(a, shards, plan) }))
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
  async read(layer: number, pages: readonly number[], rows: number): Promise<LayerRows> {
    const sizes = this.sizes(rows)
    const out = {
      streams: Array.from({ length: sizes.streams }, () => new Uint8Array(sizes.stream)),
      ropes: new Uint8Array(sizes.ropes),
      coefficients: new Uint8Array(sizes.coefficients),
    }
    for (const rank of this.ranks.keys()) this.#copy(rank, await this.fetch(rank, layer, pagesOf(pages, rows)), rows, out, toFile)
    return out
  }

  /** Copies them into pages, on every rank that holds them. */
  async write(layer: number, pages: readonly number[], rows: number, from: LayerRows): Promise<void> {
    for (const rank of this.ranks.keys())
      await this.store(rank, layer, pagesOf(pages, rows), (place) => this.#copy(rank, place, rows, from, toMemory))
  }

  /** What holds the cache now. Another object: what was cached before is lost. */
  abstract readonly holder: object
  protected abstract fetch(rank: number, layer: number, pages: readonly number[]): Promise<Place>
  /** Lets `fill` write the pages' rows. */
  protected abstract store(rank: number, layer: number, pages: readonly number[], fill: (place: Place) => void): Promise<void>

  #copy(rank: number, { bytes, layer, pages }: Place, rows: number, data: LayerRows, copy: Copy): void {
    const { shards, rows: cachedRows } = this.ranks[rank] as RankRows
    const region = (file: Uint8Array, ptr: number, rowBytes: number) => {
      for (let first = 0; first < rows; first += PAGE_TOKENS) {
        const page = pages[first / PAGE_TOKENS] as number
        if (page < 0) continue
        const at = ptr + page * PAGE_TOKENS * rowBytes
        const length = Math.min(PAGE_TOKENS, rows - first) * rowBytes
        copy(bytes.subarray(at, at + length), file.subarray(first * rowBytes, first * rowBytes + length))
      }
    }
    const cached = cachedShards(this.partition, shards)
    for (const [i, stream] of streamsOf(this.#a, cached).entries())
      region(data.streams[stream] as Uint8Array, layer.streams[i] as number, this.#streamBytes)
    if (this.#ropeBytes > 0) region(data.ropes, layer.ropeStream, this.#ropeBytes)
    if (this.#a.factors) this.#coefficients(cached, cachedRows, bytes, layer.coefficientStream, pages, rows, data.coefficients, copy)
  }

  /** A rank has its own heads' coefficients, in lanes. */
  #coefficients(
    shards: readonly number[],
    { coefficients }: CacheRows,
    bytes: Uint8Array,
    ptr: number,
    pages: readonly number[],
    rows: number,
    file: Uint8Array,
    copy: Copy,
  ): void {
    const a = this.#a
    const vectors = 2 * (a.factors?.rank ?? 0)
    const { start, end } = rankHeads(a, shards)
    const length = (end - start) * this.#scalar
    for (let row = 0; row < rows; row++) {
      const page = pages[Math.floor(row / PAGE_TOKENS)] as number
      if (page < 0) continue
      const at = ptr + (page * PAGE_TOKENS + (row % PAGE_TOKENS)) * coefficients.bytes
      for (let v = 0; v < vectors; v++) {
        const memory = at + (v * coefficients.bytes) / vectors
        const inFile = ((row * vectors + v) * a.heads + start) * this.#scalar
        copy(bytes.subarray(memory, memory + length), file.subarray(inFile, inFile + length))
      }
    }
  }
}

function pagesOf(pages: readonly number[], rows: number): readonly number[] {
  return pages.slice(0, Math.ceil(rows / PAGE_TOKENS))
}

/** The rows of CPU ranks, whose memories outlive them. */
export class MemoryRows extends CachedRows {
  readonly holder: EngineMemories
  readonly #places: readonly { readonly bytes: Uint8Array; readonly layers: RankLayout['layers'] }[]

  constructor(a: AttentionShape, plan: RunPlan, layout: ModelLayout, memories: EngineMemories) {
    super(a, plan, layout)
    this.holder = memories
    this.#places = layout.ranks.map(({ layers }, i) => ({
      bytes: new Uint8Array(bufferOf(memories.ranks[i] as EngineMemories['ranks'][number])),
      layers,
    }))
  }

  protected async fetch(rank: number, layer: number, pages: readonly number[]): Promise<Place> {
    return this.#place(rank, layer, pages)
  }

  protected async store(rank: number, layer: number, pages: readonly number[], fill: (place: Place) => void): Promise<void> {
    fill(this.#place(rank, layer, pages))
  }

  #place(rank: number, layer: number, pages: readonly number[]): Place {
    const { bytes, layers } = this.#places[rank] as { bytes: Uint8Array; layers: RankLayout['layers'] }
    const { shards } = this.ranks[rank] as RankRows
    const held = pages.map((page) => heldPage(this.partition, shards, page))
    return { bytes, layer: layers[layer] as RankLayout['layers'][number], pages: held }
  }
}

/** The rows of GPU ranks: whole pages are read from the device and written to it. */
export class DeviceRows extends CachedRows {
  readonly #a: AttentionShape
  readonly #group: () => RankGroup

  /** group: the current ranks. After a restart they are others, and nothing is cached on their devices. */
  constructor(a: AttentionShape, plan: RunPlan, layout: ModelLayout, group: () => RankGroup) {
    super(a, plan, layout)
    this.#a = a
    this.#group = group
  }

  get holder(): RankGroup {
    return this.#group()
  }

  protected async fetch(rank: number, layer: number, pages: readonly number[]): Promise<Place> {
    return this.#place(rank, await this.#group().readCache(rank, layer, pages), pages.length)
  }

  protected async store(rank: number, layer: number, pages: readonly number[], fill: (place: Place) => void): Promise<void> {
    const place = this.#place(rank, new Uint8Array(this.#layoutOf(rank, pages.length).bytes), pages.length)
    fill(place)
    await this.#group().writeCache(rank, layer, pages, place.bytes)
  }

  #place(rank: number, bytes: Uint8Array, count: number): Place {
    return { bytes, layer: this.#layoutOf(rank, count), pages: Array.from({ length: count }, (_, i) => i) }
  }

  #layoutOf(rank: number, count: number): PageLayout {
    const { shards, rows } = this.ranks[rank] as RankRows
    return layoutPages(this.#a, shards, rows, count)
  }
}
