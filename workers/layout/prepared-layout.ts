// What a shard gives to all ranks before attention, and gets from them after, where the cache is cut along the sequence: columns of the
// exchange slots. Pure functions of the attention's shape.
import { type AttentionShape, type AttentionUnit, SHARDS } from '../protocol.js'
import { queryWidth } from './attention-geometry.js'
import { cacheWidth, contextWidth, type HeadRange, rankUnits, shardHeads, streamsOf, unitsOf } from './attention-plan.js'

/** Columns of a shard's row of prepared values. Widths in scalars. */
export interface PreparedColumns {
  /** Heads whose queries are here: every head is in the row of the first shard that attends with it. */
  readonly heads: HeadRange
  /** Before it: queries in the streams' space of the shard's heads, if they are taken there. */
  readonly queries: number
  /** First column of a head's query that is here, and how many there are: rotated ones if the others are absorbed. */
  readonly queryStart: number
  readonly queryWidth: number
  /** Streams that are not projected by every rank; each is in the row of the first shard that uses it. */
  readonly streams: readonly number[]
  readonly stream: number
  /** [2 * rank][heads of the shard] */
  readonly coefficients: number
  readonly width: number
}

export function preparedColumns(a: AttentionShape, shard: number): PreparedColumns {
  const { start, end } = shardHeads(a, shard)
  const earlier = Array.from({ length: shard }, (_, s) => shardHeads(a, s))
  const isFirst = (head: number) => !earlier.some((other) => head >= other.start && head < other.end)
  const own = Array.from({ length: end - start }, (_, i) => start + i).filter(isFirst)
  const heads = { start: own[0] ?? start, end: (own.at(-1) ?? start - 1) + 1 }
  const rotated = a.sharedRopeDim > 0 ? a.ropeDim : 0
  const [queryStart, width] = a.absorbed ? [a.nopeDim, rotated] : [0, queryWidth(a)]
  const usedBy = (stream: number) => a.units.flatMap((units, s) => (units.some((unit) => unit.stream === stream) ? [s] : []))
  const streams = streamsOf(a, [shard]).filter((stream) => usedBy(stream).length < SHARDS && usedBy(stream)[0] === shard)
  const queries = a.absorbed ? (end - start) * a.stream.keyWidth : 0
  const stream = queries + (heads.end - heads.start) * width
  const coefficients = stream + streams.length * a.stream.width
  const total = coefficients + (a.factors ? 2 * a.factors.rank * (end - start) : 0)
  return { heads, queries, queryStart, queryWidth: width, streams, stream, coefficients, width: total }
}

/** Columns of one unit in a row of partial attention. Widths in scalars. */
export interface PartialColumns {
  readonly unit: AttentionUnit
  /** [heads][contextWidth], not divided by the sums */
  readonly context: number
  /** [2 * lanes]: maxima of the heads, then sums */
  readonly state: number
  readonly lanes: number
}

/** By unit, in the order of rankUnits over all shards. */
export function partialColumns(a: AttentionShape): { readonly units: readonly PartialColumns[]; readonly width: number } {
  let width = 0
  const take = (n: number) => {
    const at = width
    width += n
    return at
  }
  const all = Array.from({ length: SHARDS }, (_, s) => s)
  const units = rankUnits(a, all).map((unit) => {
    const heads = unit.headEnd - unit.headStart
    const lanes = cacheWidth(heads)
    return { unit, context: take(heads * contextWidth(a)), state: take(2 * lanes), lanes }
  })
  return { units, width }
}

/** Columns of one of a shard's own units: in the row of partials, and in the shard's row of combined sums. */
export interface OwnUnit {
  readonly heads: number
  readonly from: PartialColumns
  readonly firstHead: number
  readonly to: number
}

export function ownUnits(a: AttentionShape, shard: number): readonly OwnUnit[] {
  const { units } = partialColumns(a)
  const { start } = shardHeads(a, shard)
  return unitsOf(a, shard).map((own) => {
    const from = units.find(({ unit }) => unit.stream === own.stream)
    if (!from) throw new RangeError(`no rank attends over stream ${own.stream}`)
    return { heads: own.headEnd - own.headStart, from, firstHead: own.headStart - from.unit.headStart, to: (own.headStart - start) * contextWidth(a) }
  })
}

/** Scalars of a shard's row of combined sums. */
export function combinedWidth(a: AttentionShape, shard: number): number {
  const { start, end } = shardHeads(a, shard)
  return (end - start) * contextWidth(a)
}
