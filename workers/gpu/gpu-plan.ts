// What a rank computes on its device, as numbers: where columns, regions of the cache, heads and tiles are. A pure function of the
// model's shape, the plan and the rank; no device is needed to know it.
import type { SharedMemory } from '../../kernels/backend.js'
import type { AdapterFacts, DeviceShortage } from '../../kernels/gpu/adapter.js'
import { DeviceMemory } from '../../kernels/gpu/context.js'
import { cacheBytes, type GpuCacheFormat, PAGE } from '../../kernels/gpu/wgsl/cache-rows.js'
import { CACHE_SLACK, type FlashShape, HEAD_GROUP } from '../../kernels/gpu/wgsl/flash-attention.js'
import { tileBytes } from '../../kernels/gpu/wgsl/packed-matmul.js'
import { packedValueWidth, planTensorAttention, type TensorShape, type TensorTiling } from '../../kernels/gpu/wgsl/tensor-attention.js'
import type { WeightFormat } from '../../kernels/packing.js'
import {
  cacheWidth,
  contextWidth,
  isLocal,
  ownStreams,
  rankHeads,
  rankUnits,
  segmentHeads,
  shardHeads,
  sharedStreams,
  streamRowWidth,
  streamsOf,
  unitsOf,
} from '../attention-plan.js'
import { cut, part } from '../cuts.js'
import type { ModelLayout } from '../model-layout.js'
import { type AttentionShape, type ModelShape, type RunPlan, SHARDS } from '../protocol.js'
import type { RankLayout } from '../rank-layout.js'
import type { ShardLayout } from '../shard-layout.js'
import { WeightBuffer } from './gpu-weights.js'

type Tiles = readonly (readonly number[])[]

export interface GpuLayerPlan {
  readonly buffer: WeightBuffer
  readonly tiles: {
    readonly inputs: Tiles
    readonly queryB: Tiles
    readonly keyUp: Tiles
    readonly valueUp: Tiles
    readonly attentionOut: Tiles
    readonly gateUp: Tiles
    readonly down: Tiles
  }
}

/** What the WGSL kernels need of a workgroup: threads, and bytes of memory. */
const WGSL_THREADS = 256
const WGSL_STORAGE = 16_384
/** Workgroups of attention that keep a large device busy. */
const WORKGROUPS = 264
/** Of a row: gpu.js combines them one after another. */
const MOST_PARTS = 64
/** Bytes of the parts of one group of rows. */
const PART_BYTES = 128 << 20

export class GpuPlan {
  readonly shape: ModelShape
  readonly a: AttentionShape
  readonly own: readonly number[]
  readonly weights: WeightFormat
  /** gpu.js versions in the place of WGSL kernels. */
  readonly portable: boolean
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
  /** First columns in `inputs`, what is made of the normed residual; and its width. */
  readonly columns: {
    readonly queryA: number
    readonly streams: number
    readonly ropeKey: number
    readonly gate: number
    readonly queryB: number
    readonly coefficients: readonly number[]
    readonly width: number
  }
  /** Elements: of a stream's region and row, and first ones of the others. */
  readonly regions: {
    readonly stream: number
    readonly streamRow: number
    readonly rope: number
    readonly coefficients: number
    readonly all: number
  }
  readonly flash: FlashShape
  /** Attention on tensor cores; undefined: the device has none that fit, or the cache is not f16, or keys are sums of vectors. */
  readonly tensor: { readonly shape: TensorShape; readonly tiling: TensorTiling } | undefined
  /** Scalars from one head's weighted sum to the next. */
  readonly contextWidth: number
  readonly absorbedWidth: number
  /** Rows whose parts are computed together. */
  readonly rowGroup: number
  readonly layers: readonly GpuLayerPlan[]
  readonly head: { readonly buffer: WeightBuffer; readonly tiles: Tiles }
  /** [4, segment heads]: for sumHeads. */
  readonly headPlaces: Float32Array
  /** [2, lanes]: for arrangeCoefficients. */
  readonly coefficientPlaces: Float32Array
  readonly shardedBytes: number
  readonly replicatedBytes: number
  /** Bytes of the cache that a row of a length reads, all layers. */
  readonly cacheBytesPerToken: number

  constructor(
    shape: ModelShape,
    plan: RunPlan,
    layout: ModelLayout,
    rank: number,
    memories: { shards: readonly SharedMemory[]; rank: SharedMemory },
    adapter: AdapterFacts,
  ) {
    const mine = layout.ranks[rank] as RankLayout
    const a = shape.attention
    const { embed } = shape
    const own = mine.shards
    this.shape = shape
    this.a = a
    this.own = own
    this.weights = plan.weights
    this.wordsPerColumn = tileBytes(plan.weights, 1) / 16
    this.portable = plan.gpu?.kernels === 'gpu.js' || adapter.workgroupThreads < WGSL_THREADS || adapter.workgroupStorage < WGSL_STORAGE
    if (this.portable && (plan.cache !== 'f32' || plan.weights === 'int8')) {
      const lacks = `${adapter.workgroupThreads} threads and ${adapter.workgroupStorage} bytes a workgroup`
      throw new Error(`gpu.js kernels (this adapter has ${lacks}) need an f32 cache and f32 or bf16 weights, not ${plan.cache} and ${plan.weights}`)
    }
    this.format = plan.cache
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

    const shared = sharedStreams(a, own)
    const ownCount = own.reduce((sum, s) => sum + ownStreams(a, s).length, 0)
    if (ownCount > 0 && shared.length > 0) throw new RangeError('streams that are partly shared')
    const { width } = a.stream
    const fromLatent = a.queryRank > 0 && !a.factors
    const queryRows = a.factors ? a.factors.queryRank : a.nopeDim + a.ropeDim
    let end = a.queryRank
    const take = (n: number) => {
      const at = end
      end += n
      return at
    }
    const streamsAt = take(streams.length * width)
    const ropeKey = take(a.sharedRopeDim)
    const gate = take(a.gated ? this.segmentHeads * a.valueDim : 0)
    const queryBAt = take(fromLatent ? 0 : a.heads * queryRows)
    const headsOf = (s: number) => shardHeads(a, s).end - shardHeads(a, s).start
    const coefficients = own.map((s) => take(a.factors ? 2 * a.factors.rank * headsOf(s) : 0))
    this.columns = { queryA: 0, streams: streamsAt, ropeKey, gate, queryB: queryBAt, coefficients, width: end }

    const rows = plan.pages * PAGE
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

    // Query heads by unit: first column of absorbed queries, first head of the output.
    const units = rankUnits(a, own)
    const queryStride = a.absorbed ? cacheWidth(a.stream.keyWidth) : cacheWidth(a.nopeDim) + cacheWidth(a.ropeDim)
    const paddedWidth = cacheWidth(a.nopeDim) + cacheWidth(a.ropeDim)
    const mostHeads = Math.max(1, ...units.map((unit) => unit.headEnd - unit.headStart))
    const widths = {
      keyWidth: a.stream.keyWidth,
      keyOffset: 0,
      valueOffset: a.stream.valueOffset,
      rowWidth: streamRow,
      ropeDim: a.sharedRopeDim,
      ropeRowWidth: cacheWidth(a.sharedRopeDim),
    }
    const onTensorCores =
      adapter.tensorCores && plan.cache === 'f16' && !a.factors
        ? planTensorAttention({ ...widths, valueWidth: a.stream.valueWidth }, mostHeads, adapter.workgroupStorage)
        : undefined
    const groupHeads = onTensorCores?.groupHeads ?? 1
    let unitHeads = 0
    const placed = units.map((unit) => {
      const out = unitHeads
      unitHeads += Math.ceil((unit.headEnd - unit.headStart) / groupHeads) * groupHeads
      return { ...unit, out }
    })
    this.absorbedWidth = unitHeads * cacheWidth(a.stream.keyWidth)
    const groups = placed.flatMap(({ stream, headStart, headEnd, out }) =>
      Array.from({ length: Math.ceil((headEnd - headStart) / HEAD_GROUP) }, (_, g) => {
        const firstHead = headStart + g * HEAD_GROUP
        const local = firstHead - this.headStart
        return {
          region: streams.indexOf(stream) * this.regions.stream,
          query: a.absorbed ? (out + g * HEAD_GROUP) * queryStride : local * queryStride,
          ropeQuery: local * paddedWidth + cacheWidth(a.nopeDim),
          out: out + g * HEAD_GROUP,
          lane: local,
          heads: Math.min(HEAD_GROUP, headEnd - firstHead),
        }
      }),
    )
    // As many parts as keep the device of a rank with one shard busy: the same at every rank count, for a row's bits depend on it.
    const groupsOf = (s: number, heads: number) => unitsOf(a, s).reduce((sum, u) => sum + Math.ceil((u.headEnd - u.headStart) / heads), 0)
    const partsFor = (heads: number, most: number) => {
      const shardGroups = Math.max(1, ...Array.from({ length: SHARDS }, (_, s) => groupsOf(s, heads)))
      return Math.max(1, Math.min(most, Math.ceil(WORKGROUPS / shardGroups), plan.pagesPerSlot))
    }
    this.flash = {
      format: this.format,
      groups,
      queryWidth: a.absorbed ? this.absorbedWidth : this.heads * paddedWidth,
      queryStride,
      ropeWidth: this.heads * paddedWidth,
      ropeStride: paddedWidth,
      ...widths,
      valueWidth: contextWidth(a),
      ropeRegion: rope,
      factors: a.factors && { rank: a.factors.rank, valueStride: a.stream.valueWidth, region: coefficientRegion, lanes: this.lanes },
      scale: a.scale,
      outHeads: Math.max(1, unitHeads),
      parts: partsFor(HEAD_GROUP, MOST_PARTS),
    }
    const tensorShape: TensorShape = {
      ...this.flash,
      valueWidth: a.stream.valueWidth,
      groupHeads,
      groups: placed.flatMap(({ stream, headStart, headEnd, out }) =>
        Array.from({ length: Math.ceil((headEnd - headStart) / groupHeads) }, (_, g) => ({
          region: streams.indexOf(stream) * this.regions.stream,
          slot: out + g * groupHeads,
        })),
      ),
      slots: placed.flatMap(({ headStart, headEnd, out }) =>
        Array.from({ length: Math.ceil((headEnd - headStart) / groupHeads) * groupHeads }, (_, i) => {
          const local = headStart + i - this.headStart
          if (headStart + i >= headEnd) return undefined
          return { query: a.absorbed ? (out + i) * queryStride : local * paddedWidth, rope: local * paddedWidth + cacheWidth(a.nopeDim) }
        }),
      ),
    }
    this.tensor = onTensorCores && {
      shape: { ...tensorShape, parts: partsFor(onTensorCores.groupHeads, onTensorCores.workgroups) },
      tiling: onTensorCores.tiling,
    }
    this.contextWidth = this.tensor ? packedValueWidth(a.stream.valueWidth) : contextWidth(a)
    // A row's parts on tensor cores are whole blocks of 256 bytes, as offsets of buffers must be; gpu.js's need 16 rows for that.
    const fewestRows = this.tensor ? 1 : 16
    const partBytes = this.parts * this.flash.outHeads * this.contextWidth * 4
    this.rowGroup = Math.max(fewestRows, Math.floor(PART_BYTES / partBytes / fewestRows) * fewestRows)

    const shards = layout.shards
    const keyPad = cacheWidth(a.stream.keyWidth)
    const pad = this.contextWidth
    const T = this.stepRows
    const placedOf = (stream: number, head: number) => placed.find((u) => u.stream === stream && head >= u.headStart && head < u.headEnd)
    let sharded = 0
    let replicated = mine.weightBytes
    this.layers = mine.layers.map((rankLayer, i) => {
      const buffer = new WeightBuffer()
      const layer = (s: number) => (shards[s] as ShardLayout).layers[i] as ShardLayout['layers'][number]
      const memory = (s: number) => memories.shards[s] as SharedMemory
      const put = (matrix: ReturnType<typeof layer>['queryA'], s: number) => {
        buffer.place(matrix, memory(s))
        if (own.includes(s)) sharded += matrix.bytes
        else replicated += matrix.bytes
        return matrix
      }
      const inputs: number[][] = []
      const queryB: number[][] = []
      const every = Array.from({ length: SHARDS }, (_, s) => s)
      if (a.queryRank > 0) for (const s of every) inputs.push(...buffer.tiles(put(layer(s).queryA, s), 0, cut(a.queryRank, s)))
      let at = streamsAt
      for (const s of own) {
        inputs.push(...buffer.tiles(put(layer(s).streams, s), 0, at))
        at += layer(s).streams.rows
      }
      buffer.place(rankLayer.shared, memories.rank)
      // Shared streams, then the rope key: as the columns are.
      inputs.push(...buffer.tiles(rankLayer.shared, 0, at))
      const range = rankHeads(a, own)
      for (const s of every) {
        const { start, end: stop } = segmentHeads(a, s)
        if (stop <= range.start || start >= range.end || stop === start) continue
        const matrix = put(layer(s).queryB, s)
        if (fromLatent) queryB.push(...buffer.tiles(matrix, a.queryNormed ? 0 : this.columns.queryA, start * queryRows))
        else inputs.push(...buffer.tiles(matrix, 0, queryBAt + start * queryRows))
      }
      const keyUp: number[][] = []
      const valueUp: number[][] = []
      const attentionOut: number[][] = []
      const gateUp: number[][] = []
      const down: number[][] = []
      for (const [index, s] of own.entries()) {
        const segment = segmentHeads(a, s)
        if (a.gated) inputs.push(...buffer.tiles(put(layer(s).outputGate, s), 0, gate + (segment.start - this.segmentStart) * a.valueDim))
        if (a.factors) inputs.push(...buffer.tiles(put(layer(s).coefficients, s), 0, coefficients[index] as number))
        if (a.absorbed) {
          const { start } = shardHeads(a, s)
          const [up, out] = [put(layer(s).keyUp, s), put(layer(s).valueUp, s)]
          for (const unit of unitsOf(a, s)) {
            for (let head = unit.headStart; head < unit.headEnd; head++) {
              const where = placedOf(unit.stream, head)
              if (!where) throw new RangeError(`no unit has head ${head}`)
              const place = where.out + head - where.headStart
              const b = head - start
              keyUp.push(...buffer.tilesOf(up, b, (head - this.headStart) * paddedWidth, place * keyPad))
              valueUp.push(...buffer.tilesOf(out, b, place * pad, s * T * a.heads * a.valueDim + b * a.valueDim))
            }
          }
        }
        attentionOut.push(...buffer.tiles(put(layer(s).attentionOut, s), (segment.start - this.segmentStart) * a.valueDim, s * T * embed))
        gateUp.push(...buffer.tiles(put(layer(s).gateUp, s), 0, index * 2 * this.mlpWidth, this.mlpWidth))
        down.push(...buffer.tiles(put(layer(s).down, s), index * this.mlpWidth, s * T * embed))
      }
      return { buffer, tiles: { inputs, queryB, keyUp, valueUp, attentionOut, gateUp, down } }
    })
    const headBuffer = new WeightBuffer()
    const headTiles: number[][] = []
    for (const s of own) {
      const { head } = shards[s] as ShardLayout
      headBuffer.place(head, memories.shards[s] as SharedMemory)
      sharded += head.bytes
      headTiles.push(...headBuffer.tiles(head, 0, cut(shape.vocab, s) - cut(shape.vocab, first)))
    }
    this.head = { buffer: headBuffer, tiles: headTiles }
    this.shardedBytes = sharded
    this.replicatedBytes = replicated

    this.headPlaces = this.#headPlaces(placed)
    this.coefficientPlaces = this.#coefficientPlaces()
    const scalar = this.format === 'f32' ? 4 : 2
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

  /** Throws DeviceMemory for a layer whose cache or weights are more than the largest buffer. */
  checkBuffers(largest: number): void {
    const cache = this.regions.all * cacheBytes(this.format)
    const fitsTokens = Math.floor(largest / this.#layerBytesPerToken / PAGE) * PAGE
    if (cache > largest) throw new DeviceMemory({ what: 'the cache of a layer is one buffer', askedBytes: cache, hadBytes: largest, fitsTokens })
    const weights = Math.max(this.head.buffer.bytes, ...this.layers.map((layer) => layer.buffer.bytes))
    const askedBytes = this.portable && this.weights === 'bf16' ? 2 * weights : weights
    if (askedBytes > largest)
      throw new DeviceMemory({ what: 'the weights of a layer are one buffer', askedBytes, hadBytes: largest, fitsTokens: undefined })
  }

  /** What a device lacks that had room for so many bytes of buffers (0: it is not known), when what comes next did not fit. */
  shortage(what: string, hadBytes: number): DeviceShortage {
    const cache = this.layers.length * this.regions.all * cacheBytes(this.format)
    const weights = this.layers.reduce((sum, layer) => sum + layer.buffer.bytes, this.head.buffer.bytes)
    // Weights come after the cache: what they lack, the cache would have to give.
    const left = hadBytes === 0 ? 0 : hadBytes - weights
    const fits = Math.floor(left / this.layers.length / this.#layerBytesPerToken / PAGE) * PAGE
    return { what: `no room for the ${what}`, askedBytes: cache + weights, hadBytes, fitsTokens: fits > 0 ? fits : undefined }
  }

  get #layerBytesPerToken(): number {
    return (this.regions.all * cacheBytes(this.format)) / (this.regions.stream / this.regions.streamRow)
  }

  /** Most parts of a row. */
  get parts(): number {
    return this.tensor?.shape.parts ?? this.flash.parts
  }

  /** Pages of a part and parts of a row that attends to `length` tokens: a function of the length alone. */
  partsOf(length: number): { readonly pages: number; readonly parts: number } {
    const all = Math.ceil(length / PAGE)
    const pages = Math.ceil(all / this.parts)
    return { pages, parts: Math.ceil(all / pages) }
  }
}
