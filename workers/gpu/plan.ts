// What a rank computes on its device, as numbers: where columns, regions of the cache, heads and tiles are. A pure function of the
// model's shape, the plan, the rank and the adapter's facts; it needs no device and no memory.
import type { GpuCacheFormat } from '../../kernels/cache-format.js'
import { gpuCacheFormat } from '../../kernels/cache-formats.js'
import type { AdapterFacts } from '../../kernels/gpu/adapter.js'
import { cacheBytes } from '../../kernels/gpu/wgsl/cache-rows.js'
import { CACHE_SLACK, type FlashShape } from '../../kernels/gpu/wgsl/flash-attention.js'
import { tileBytes } from '../../kernels/gpu/wgsl/packed-matmul.js'
import type { WeightFormat } from '../../kernels/weight-format.js'
import {
  type CacheRows,
  cacheRows,
  cacheWidth,
  isLocal,
  rankUnits,
  segmentHeads,
  shardHeads,
  streamRowWidth,
  streamsOf,
} from '../layout/attention-plan.js'
import { cut, part } from '../layout/cuts.js'
import type { ModelLayout } from '../layout/model-layout.js'
import type { RankLayout } from '../layout/rank-layout.js'
import { type AttentionShape, type ModelShape, PAGE_TOKENS, type RunPlan, SHARDS } from '../protocol.js'
import { type CacheRegions, planAttention, type TensorPlan } from './attention-plan.js'
import { type InputColumns, planInputColumns } from './input-columns.js'
import { chooseKernels, type KernelChoice } from './kernel-choice.js'
import { type GpuLayerPlan, planTiles, type TilePlan } from './tiles.js'

export class GpuPlan {
  readonly shape: ModelShape
  readonly a: AttentionShape
  readonly own: readonly number[]
  readonly ranks: number
  readonly weights: WeightFormat
  readonly kernels: KernelChoice
  /** 16-byte words of a column of packed weights. */
  readonly wordsPerColumn: number
  readonly format: GpuCacheFormat
  /** Rows of every buffer. */
  readonly stepRows: number
  readonly local: boolean
  readonly heads: number
  readonly headStart: number
  readonly lanes: number
  readonly streamCount: number
  /** Heads whose output this rank projects, from segmentStart on. */
  readonly segmentHeads: number
  readonly segmentStart: number
  readonly mlpWidth: number
  readonly vocab: number
  readonly columns: InputColumns
  readonly regions: CacheRegions
  /** Rows of the cache as the coordinator knows them. */
  readonly cacheRows: CacheRows
  readonly flash: FlashShape
  /** Attention on tensor cores. Undefined: the device has none that fit, the cache is not f16, or keys are sums of vectors. */
  readonly tensor: TensorPlan | undefined
  /** Scalars from one head's weighted sum to the next. */
  readonly contextWidth: number
  readonly absorbedWidth: number
  /** Rows whose parts are computed together. */
  readonly rowGroup: number
  readonly layers: readonly GpuLayerPlan[]
  readonly head: TilePlan['head']
  /** [4, segment heads]: for sumHeads. */
  readonly headPlaces: Float32Array
  /** [2, lanes]: for arrangeCoefficients. */
  readonly coefficientPlaces: Float32Array
  readonly shardedBytes: number
  readonly replicatedBytes: number
  /** Bytes of the cache that a row of a length reads, all layers. */
  readonly cacheBytesPerToken: number

  constructor(shape: ModelShape, plan: RunPlan, layout: ModelLayout, rank: number, adapter: AdapterFacts) {
    const mine = layout.ranks[rank] as RankLayout
    const a = shape.attention
    const own = mine.shards
    this.shape = shape
    this.a = a
    this.own = own
    this.ranks = plan.ranks
    this.weights = plan.weights
    this.wordsPerColumn = tileBytes(plan.weights, 1) / 16
    this.format = gpuCacheFormat(plan.cache)
    // Planes of a buffer begin at multiples of 256 bytes, as offsets must.
    this.stepRows = Math.ceil(plan.stepRows / 64) * 64
    this.local = isLocal(a)
    this.headStart = mine.headStart
    this.heads = mine.headEnd - mine.headStart
    this.lanes = cacheWidth(this.heads)
    const streams = streamsOf(a, own)
    this.streamCount = streams.length
    const first = own[0] as number
    const last = own.at(-1) as number
    this.segmentStart = segmentHeads(a, first).start
    this.segmentHeads = segmentHeads(a, last).end - this.segmentStart
    this.mlpWidth = Math.max(...own.map((s) => part(shape.intermediate, s)))
    this.vocab = cut(shape.vocab, last + 1) - cut(shape.vocab, first)

    this.columns = planInputColumns(a, own)

    this.cacheRows = cacheRows(a, own, plan)
    const rows = plan.pages * PAGE_TOKENS
    const streamRow = streamRowWidth(a)
    const rope = streams.length * rows * streamRow
    const coefficientRegion = rope + rows * cacheWidth(a.sharedRopeDim)
    const coefficientRow = a.factors ? 2 * a.factors.rank * this.lanes : 0
    this.regions = {
      stream: rows * streamRow,
      streamRow,
      rope,
      coefficients: coefficientRegion,
      all: coefficientRegion + rows * coefficientRow + CACHE_SLACK,
    }

    const units = rankUnits(a, own)
    const attention = planAttention(a, own, plan, adapter, this.regions, this.stepRows, {
      start: this.headStart,
      count: this.heads,
      lanes: this.lanes,
    })
    this.flash = attention.flash
    this.tensor = attention.tensor
    this.contextWidth = attention.contextWidth
    this.absorbedWidth = attention.absorbedWidth
    this.rowGroup = attention.rowGroup
    const { placed } = attention
    this.kernels = chooseKernels(plan, adapter, attention.tensor !== undefined)
    const { columns, contextWidth, stepRows, headStart, segmentStart, mlpWidth } = this
    const geometry = { shape, own, columns, contextWidth, stepRows, headStart, segmentStart, mlpWidth, layout: this.kernels.products }
    const tiles = planTiles(geometry, placed, layout, mine)
    this.layers = tiles.layers
    this.head = tiles.head
    this.shardedBytes = tiles.shardedBytes
    this.replicatedBytes = tiles.replicatedBytes

    this.headPlaces = this.#headPlaces(placed)
    this.coefficientPlaces = this.#coefficientPlaces()
    const scalar = cacheBytes(this.format)
    this.cacheBytesPerToken = shape.layers * scalar * (units.length * streamRow + cacheWidth(a.sharedRopeDim) + coefficientRow)
  }

  /** Where sumHeads finds each head of the segments: in the values of each shard, or in the context of a model that does not absorb. */
  #headPlaces(placed: readonly { stream: number; headStart: number; headEnd: number; out: number }[]): Float32Array {
    const { a } = this
    const places = new Float32Array(Math.max(1, this.segmentHeads) * SHARDS).fill(-1)
    for (let i = 0; i < this.segmentHeads; i++) {
      const head = this.segmentStart + i
      if (!a.absorbed) {
        const unit = placed.find((u) => head >= u.headStart && head < u.headEnd)
        if (unit) places[i * SHARDS] = (unit.out + head - unit.headStart) * this.contextWidth
        continue
      }
      for (let s = 0; s < SHARDS; s++) {
        const { start, end } = shardHeads(a, s)
        if (head >= start && head < end) places[i * SHARDS + s] = (head - start) * a.valueDim
      }
    }
    return places
  }

  #coefficientPlaces(): Float32Array {
    const { a, own } = this
    const places = new Float32Array(this.lanes * 2).fill(-1)
    if (!a.factors) return places
    for (const [index, s] of own.entries()) {
      const { start, end } = shardHeads(a, s)
      for (let head = start; head < end; head++) {
        const lane = head - this.headStart
        places[2 * lane] = (this.columns.coefficients[index] as number) + head - start
        places[2 * lane + 1] = end - start
      }
    }
    return places
  }

  /** The largest number of parts of a row. */
  get parts(): number {
    return this.tensor?.shape.parts ?? this.flash.parts
  }

  /** Pages of a part and parts of a row that attends to `length` tokens: a function of the length alone. */
  partsOf(length: number): { readonly pages: number; readonly parts: number } {
    const all = Math.ceil(length / PAGE_TOKENS)
    const pages = Math.max(Math.ceil(all / this.parts), this.tensor ? partPages(all) : 1)
    return { pages, parts: Math.ceil(all / pages) }
  }
}

/** Pages of a part on tensor cores where more parts are possible: what parts leave in memory is read once more for each. */
function partPages(all: number): number {
  return all <= 16 ? 1 : all <= 32 ? 4 : 8
}
