// The exchange memory as one rank uses it: the slots of every collective as rows, and which of them make each sum.
import type { KernelBackend } from '../../kernels/backend.js'
import type { Rows } from '../../kernels/rows.js'
import { queryWidth } from '../layout/attention-geometry.js'
import { segmentHeads, shardHeads } from '../layout/attention-plan.js'
import { cut, part } from '../layout/cuts.js'
import type { ExchangeLayout } from '../layout/exchange-layout.js'
import { combinedWidth, partialColumns, preparedColumns } from '../layout/prepared-layout.js'
import { type ModelShape, SHARDS } from '../protocol.js'

/** Heads of one segment of the attention projection with the same contributors: columns of a sum and its sources. */
export interface PartialSum {
  readonly to: Rows
  readonly from: readonly Rows[]
  readonly width: number
}

export interface Exchange {
  readonly kernels: KernelBackend
  /** The next three where the cache is cut along the sequence. */
  readonly prepared: readonly Rows[]
  readonly partial: readonly Rows[]
  readonly combined: readonly Rows[]
  readonly queryA: readonly Rows[]
  readonly queryB: readonly Rows[]
  readonly attention: readonly Rows[]
  readonly attentionOut: readonly Rows[]
  readonly mlp: readonly Rows[]
  /** By own shard. */
  readonly segments: readonly Rows[]
  readonly partialSums: readonly (readonly PartialSum[])[]
  readonly reduced: Rows
  readonly logits: readonly Rows[]
  /** By ring index and shard: that shard's columns. */
  readonly logitParts: readonly (readonly Rows[])[]
  readonly sampling: number
}

export function perShard<T>(of: (shard: number) => T): T[] {
  return Array.from({ length: SHARDS }, (_, s) => of(s))
}

export function openExchange(shape: ModelShape, layout: ExchangeLayout, kernels: KernelBackend, rank: number, own: readonly number[]): Exchange {
  const a = shape.attention
  const pointer = (list: readonly number[], i: number) => {
    const ptr = list[i]
    if (ptr === undefined) throw new RangeError(`no exchange slot ${i}`)
    return ptr
  }
  const attentionStride = a.heads * a.valueDim
  const attention = perShard((s) => {
    const { start, end } = shardHeads(a, s)
    return kernels.rows(pointer(layout.attention, s), (end - start) * a.valueDim, attentionStride)
  })
  const wholeSegment = kernels.rows(pointer(layout.segments, rank), attentionStride)
  const segmentCount = (s: number) => segmentHeads(a, s).end - segmentHeads(a, s).start
  const logits = layout.logits.map((ptr) => kernels.rows(ptr, shape.vocab))
  const slots = (list: readonly number[], width: (shard: number) => number) => perShard((s) => kernels.rows(pointer(list, s), width(s)))
  return {
    kernels,
    prepared: slots(layout.prepared, (s) => preparedColumns(a, s).width),
    partial: slots(layout.partial, () => partialColumns(a).width),
    combined: slots(layout.combined, (s) => combinedWidth(a, s)),
    queryA: perShard((s) => kernels.rows(pointer(layout.queryA, s), part(a.queryRank, s))),
    queryB: perShard((s) => kernels.rows(pointer(layout.queryB, s), segmentCount(s) * queryWidth(a))),
    attention,
    attentionOut: perShard((s) => kernels.rows(pointer(layout.attentionOut, s), shape.embed)),
    mlp: perShard((s) => kernels.rows(pointer(layout.mlp, s), shape.embed)),
    segments: own.map((s) => wholeSegment.columns(0, segmentCount(s) * a.valueDim)),
    partialSums: own.map((s) => partialSums(shape, s, attention, wholeSegment)),
    reduced: kernels.rows(pointer(layout.reduced, rank), shape.embed),
    logits,
    logitParts: logits.map((rows) => perShard((s) => rows.columns(cut(shape.vocab, s), part(shape.vocab, s)))),
    sampling: pointer(layout.sampling, rank),
  }
}

/** Segment s's heads in runs that the same shards serve: each run is one sum, over shards in ascending order. */
function partialSums(shape: ModelShape, s: number, attention: readonly Rows[], segment: Rows): PartialSum[] {
  const a = shape.attention
  const ranges = perShard((i) => shardHeads(a, i))
  const serving = (head: number) => ranges.flatMap(({ start, end }, i) => (head >= start && head < end ? [i] : []))
  const sums: PartialSum[] = []
  const { start, end } = segmentHeads(a, s)
  for (let head = start; head < end; ) {
    const by = serving(head)
    let next = head + 1
    while (next < end && serving(next).join() === by.join()) next++
    const width = (next - head) * a.valueDim
    sums.push({
      to: segment.columns((head - start) * a.valueDim, width),
      from: by.map((i) => (attention[i] as Rows).columns((head - shardHeads(a, i).start) * a.valueDim, width)),
      width,
    })
    head = next
  }
  return sums
}
