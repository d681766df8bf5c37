// Attention of a rank on its device, as numbers: groups of heads for each kernel, how contexts are cut into parts, and where each
// head's result lies. A pure function of the model's shape, the plan and the rank.
import { gpuCacheFormat } from '../../kernels/cache-formats.js'
import type { AdapterFacts } from '../../kernels/gpu/adapter.js'
import { type FlashShape, HEAD_GROUP } from '../../kernels/gpu/wgsl/flash-attention.js'
import {
  MAX_HEADS,
  packedValueWidth,
  planPromptRows,
  planTensorAttention,
  slotsOf,
  type TensorShape,
  type TensorTiling,
} from '../../kernels/gpu/wgsl/tensor-shape.js'
import { perShard } from '../collectives/exchange.js'
import { paddedQueryWidth } from '../layout/attention-geometry.js'
import { cacheWidth, contextWidth, rankUnits, streamsOf, unitsOf } from '../layout/attention-plan.js'
import { type AttentionShape, type AttentionUnit, type RunPlan, SHARDS } from '../protocol.js'

/** Workgroups of attention that keep a large device busy. */
const WORKGROUPS = 264
/** Parts of a row: gpu.js combines them one after another. */
const MAX_PARTS = 64
/** Bytes of the parts of one group of rows; on tensor cores, of one round of entries. */
const PART_BYTES = 256 << 20

/** Regions of a layer's cache, in elements. */
export interface CacheRegions {
  /** Elements of the region of one stream; streams begin at 0. */
  readonly stream: number
  /** Elements of a row of a stream. */
  readonly streamRow: number
  /** First element of the rope keys. */
  readonly rope: number
  /** First element of the coefficients. */
  readonly coefficients: number
  readonly all: number
}

/** Rows that one workgroup of attention on tensor cores computes, and how. */
export interface EntryPlan {
  readonly rows: number
  readonly tiling: TensorTiling
}

export interface TensorPlan {
  readonly shape: TensorShape
  /** One row alone, and several rows of a prompt: the same bits. */
  readonly single: EntryPlan
  readonly prompt: EntryPlan | undefined
  /** Slots of parts (groups x heads) that the buffers have room for. */
  readonly partSlots: number
}

/** Parts that a round's entries have room for each, in a step whose longest row has so many: steps with the same are encoded alike. */
export function roomForParts({ shape }: TensorPlan, parts: number): number {
  return Math.min(shape.parts, 2 ** Math.ceil(Math.log2(parts)))
}

/** Entries whose parts are computed together. */
export function entriesOfRound(plan: TensorPlan, { rows }: EntryPlan, parts: number): number {
  const { shape } = plan
  return Math.max(1, Math.floor(plan.partSlots / (roomForParts(plan, parts) * shape.groups.length * slotsOf(shape, rows))))
}

export interface AttentionPlan {
  /** Units of the rank, and the first head of each in the output. */
  readonly placed: readonly (AttentionUnit & { readonly out: number })[]
  readonly flash: FlashShape
  /** Attention on tensor cores. Undefined: the device has none that fit, the cache is not f16, or keys are sums of vectors. */
  readonly tensor: TensorPlan | undefined
  /** Scalars from one head's weighted sum to the next. */
  readonly contextWidth: number
  readonly absorbedWidth: number
  /** Rows whose parts are computed together. */
  readonly rowGroup: number
}

/** stepRows: rows of every buffer. heads: the rank's first query head, how many, and lanes of cached coefficients. */
export function planAttention(
  a: AttentionShape,
  own: readonly number[],
  run: RunPlan,
  adapter: AdapterFacts,
  regions: CacheRegions,
  stepRows: number,
  heads: { readonly start: number; readonly count: number; readonly lanes: number },
): AttentionPlan {
  const streams = streamsOf(a, own)
  const units = rankUnits(a, own)
  const queryStride = a.absorbed ? cacheWidth(a.stream.keyWidth) : paddedQueryWidth(a)
  const paddedWidth = paddedQueryWidth(a)
  const mostHeads = (of: readonly AttentionUnit[]) => Math.max(1, ...of.map((unit) => unit.headEnd - unit.headStart))
  const maxHeads = mostHeads(units)
  const allShards = perShard((s) => s)
  const streamHeads = mostHeads(rankUnits(a, allShards))
  const widths = {
    keyWidth: a.stream.keyWidth,
    keyOffset: 0,
    valueOffset: a.stream.valueOffset,
    rowWidth: regions.streamRow,
    ropeDim: a.sharedRopeDim,
    ropeRowWidth: cacheWidth(a.sharedRopeDim),
  }
  const onTensorCores =
    adapter.tensorCores && gpuCacheFormat(run.cache).tensorCores && !a.factors
      ? planTensorAttention({ ...widths, valueWidth: a.stream.valueWidth }, maxHeads, adapter.workgroupStorage, streamHeads)
      : undefined
  const groupHeads = onTensorCores?.groupHeads ?? 1
  const rowHeads = Math.min(groupHeads, maxHeads)
  let unitHeads = 0
  const placed = units.map((unit) => {
    const out = unitHeads
    unitHeads += Math.ceil((unit.headEnd - unit.headStart) / groupHeads) * groupHeads
    return { ...unit, out }
  })
  const absorbedWidth = unitHeads * cacheWidth(a.stream.keyWidth)
  const groups = placed.flatMap(({ stream, headStart, headEnd, out }) =>
    Array.from({ length: Math.ceil((headEnd - headStart) / HEAD_GROUP) }, (_, g) => {
      const firstHead = headStart + g * HEAD_GROUP
      const local = firstHead - heads.start
      return {
        region: streams.indexOf(stream) * regions.stream,
        query: a.absorbed ? (out + g * HEAD_GROUP) * queryStride : local * queryStride,
        ropeQuery: local * paddedWidth + cacheWidth(a.nopeDim),
        out: out + g * HEAD_GROUP,
        lane: local,
        heads: Math.min(HEAD_GROUP, headEnd - firstHead),
      }
    }),
  )
  // As many parts as keep the device of a rank with one shard busy: the same at every rank count, for a row's bits depend on it.
  const groupsOf = (s: number, size: number) => unitsOf(a, s).reduce((sum, u) => sum + Math.ceil((u.headEnd - u.headStart) / size), 0)
  const partsFor = (size: number, max: number) => {
    const shardGroups = Math.max(1, ...Array.from({ length: SHARDS }, (_, s) => groupsOf(s, size)))
    return Math.max(1, Math.min(max, Math.ceil(WORKGROUPS / shardGroups), run.pagesPerSlot))
  }
  const flash: FlashShape = {
    format: gpuCacheFormat(run.cache),
    groups,
    queryWidth: a.absorbed ? absorbedWidth : heads.count * paddedWidth,
    queryStride,
    ropeWidth: heads.count * paddedWidth,
    ropeStride: paddedWidth,
    ...widths,
    valueWidth: contextWidth(a),
    ropeRegion: regions.rope,
    factors: a.factors && { rank: a.factors.rank, valueStride: a.stream.valueWidth, region: regions.coefficients, lanes: heads.lanes },
    scale: a.scale,
    outHeads: Math.max(1, unitHeads),
    parts: partsFor(HEAD_GROUP, MAX_PARTS),
  }
  const tensorShape: TensorShape = {
    ...flash,
    valueWidth: a.stream.valueWidth,
    groupHeads,
    rowHeads,
    queryRows: stepRows,
    groups: placed.flatMap(({ stream, headStart, headEnd }) =>
      Array.from({ length: Math.ceil((headEnd - headStart) / groupHeads) }, () => ({ region: streams.indexOf(stream) * regions.stream })),
    ),
    slots: placed.flatMap(({ headStart, headEnd, out }) =>
      Array.from({ length: Math.ceil((headEnd - headStart) / groupHeads) * rowHeads }, (_, n) => {
        const i = Math.floor(n / rowHeads) * groupHeads + (n % rowHeads)
        const local = headStart + i - heads.start
        if (headStart + i >= headEnd) return undefined
        return { query: a.absorbed ? (out + i) * queryStride : local * paddedWidth, rope: local * paddedWidth + cacheWidth(a.nopeDim) }
      }),
    ),
  }
  const planTensor = (planned: NonNullable<typeof onTensorCores>): TensorPlan => {
    const shape = { ...tensorShape, parts: partsFor(MAX_HEADS, planned.workgroups) }
    const prompt = planPromptRows(shape, rowHeads, planned.tiling, adapter.workgroupStorage)
    const fewest = shape.parts * shape.groups.length * slotsOf(shape, prompt?.rows ?? 1)
    const partSlots = Math.max(fewest, Math.floor(PART_BYTES / packedValueWidth(shape.valueWidth) / 4))
    return { shape, single: { rows: 1, tiling: planned.tiling }, prompt, partSlots }
  }
  const tensor = onTensorCores && planTensor(onTensorCores)
  const width = tensor ? packedValueWidth(a.stream.valueWidth) : contextWidth(a)
  // Offsets of buffers are multiples of 256 bytes: those of 16 rows are.
  const fewestRows = 16
  const partBytes = flash.parts * flash.outHeads * width * 4
  const rowGroup = Math.max(fewestRows, Math.floor(PART_BYTES / partBytes / fewestRows) * fewestRows)
  return { placed, flash, tensor, contextWidth: width, absorbedWidth, rowGroup }
}
