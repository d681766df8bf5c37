// Heads, streams and units of a shard or a rank, and widths of cached rows: pure functions of the attention's shape. A shard owns what
// only it uses; what several shards use is stored once in each rank that needs it.
import type { CacheRow } from '../../kernels/cache-format.js'
import { cacheRow } from '../../kernels/cache-formats.js'
import { type AttentionShape, type AttentionUnit, type RankCount, type RunPlan, SHARDS } from '../protocol.js'
import { cachedShards } from './partition.js'

export interface HeadRange {
  readonly start: number
  readonly end: number
}

/** Shards that a rank carries. */
export function shardsOf(rank: number, ranks: RankCount): number[] {
  const each = SHARDS / ranks
  return Array.from({ length: each }, (_, i) => rank * each + i)
}

/** Scalars of a cached row of n values: rounded up to whole vectors. */
export function cacheWidth(n: number): number {
  return Math.ceil(n / 4) * 4
}

export function unitsOf(a: AttentionShape, shard: number): readonly AttentionUnit[] {
  const units = a.units[shard]
  if (!units) throw new RangeError(`shard ${shard} does not exist`)
  return units
}

/** Heads whose queries and outputs the shard projects. */
export function segmentHeads(a: AttentionShape, shard: number): HeadRange {
  return { start: a.headCuts[shard] as number, end: a.headCuts[shard + 1] as number }
}

/** Heads that attend in the shard. */
export function shardHeads(a: AttentionShape, shard: number): HeadRange {
  const units = unitsOf(a, shard)
  const first = units[0]
  const last = units.at(-1)
  if (first && last) return { start: first.headStart, end: last.headEnd }
  const { start } = segmentHeads(a, shard)
  return { start, end: start }
}

/** Heads that attend in any of these shards. */
export function rankHeads(a: AttentionShape, shards: readonly number[]): HeadRange {
  const ranges = shards.map((s) => shardHeads(a, s)).filter((r) => r.end > r.start)
  if (ranges.length === 0) return shardHeads(a, shards[0] as number)
  return { start: Math.min(...ranges.map((r) => r.start)), end: Math.max(...ranges.map((r) => r.end)) }
}

/** Every head attends in the shard that projects its queries and its output, so nothing is exchanged in between. */
export function isLocal(a: AttentionShape): boolean {
  return a.units.every((_, s) => {
    const attends = shardHeads(a, s)
    const projects = segmentHeads(a, s)
    return attends.start === projects.start && attends.end === projects.end
  })
}

/** Streams of these shards, ascending. */
export function streamsOf(a: AttentionShape, shards: readonly number[]): number[] {
  return [...new Set(shards.flatMap((s) => unitsOf(a, s).map((unit) => unit.stream)))].sort((x, y) => x - y)
}

/** Several shards use the stream: it is projected once in each rank that does. */
export function isShared(a: AttentionShape, stream: number): boolean {
  return a.units.filter((units) => units.some((unit) => unit.stream === stream)).length > 1
}

/** Streams that only this shard uses; it projects them. */
export function ownStreams(a: AttentionShape, shard: number): number[] {
  return streamsOf(a, [shard]).filter((stream) => !isShared(a, stream))
}

/** Streams of these shards that other shards use too; every rank that needs one projects it. */
export function sharedStreams(a: AttentionShape, shards: readonly number[]): number[] {
  return streamsOf(a, shards).filter((stream) => isShared(a, stream))
}

/** Units of a rank: its shards' units over the same stream are merged, so that a cached row is read once. */
export function rankUnits(a: AttentionShape, shards: readonly number[]): AttentionUnit[] {
  return streamsOf(a, shards).map((stream) => {
    const units = shards.flatMap((s) => unitsOf(a, s).filter((unit) => unit.stream === stream))
    return { stream, headStart: Math.min(...units.map((u) => u.headStart)), headEnd: Math.max(...units.map((u) => u.headEnd)) }
  })
}

/** Heads (rows of a tile times heads of a unit) that share a pass over cached rows: enough independent sums for the registers, in whole
 * pairs of vectors unless that takes more than MOST_TILE_HEADS. */
const TILE_HEADS = 16
const MOST_TILE_HEADS = 32

/**
 * Rows of a sequence that attend together, at most: a power of two. Heads of several rows have the sums of one row's; cached coefficients
 * are per head, and second score terms of several units lie side by side, so with those a row may be alone.
 */
export function tileRows(a: AttentionShape, shards: readonly number[], { partition }: Pick<RunPlan, 'partition'>): number {
  const attending = cachedShards(partition, shards)
  const heads = rankHeads(a, attending)
  const units = rankUnits(a, attending).map((unit) => unit.headEnd - unit.headStart)
  const apart = (count: number) => a.sharedRopeDim > 0 && count !== heads.end - heads.start && count % 4 !== 0
  if (a.factors || !units.every((count) => count > 0 && !apart(count)) || units.length === 0) return 1
  const fewest = Math.min(...units)
  let rows = 1
  while (rows * fewest < TILE_HEADS || (rows * fewest < MOST_TILE_HEADS && (rows * fewest) % 8 !== 0)) rows *= 2
  return rows
}

/** Scalars of a head's weighted sum of values. */
export function contextWidth(a: AttentionShape): number {
  return cacheWidth(a.stream.valueWidth)
}

/** Scalars of a cached row of a stream. Values are read in whole vectors, so the row has room for the last vector. */
export function streamRowWidth(a: AttentionShape): number {
  const { width, valueOffset, valueWidth } = a.stream
  const last = valueOffset + ((a.factors?.rank ?? 1) - 1) * valueWidth
  return cacheWidth(Math.max(width, last + cacheWidth(valueWidth)))
}

/** Scalars of a cached row of coefficients: for keys, then for values, `rank` vectors over a rank's heads. */
export function coefficientRowWidth(a: AttentionShape, shards: readonly number[]): number {
  const heads = rankHeads(a, shards)
  return a.factors ? 2 * a.factors.rank * cacheWidth(heads.end - heads.start) : 0
}

/** Rows of a rank's cache: of each stream, of the shared rope key, and of the coefficients. */
export interface CacheRows {
  readonly stream: CacheRow
  readonly rope: CacheRow
  readonly coefficients: CacheRow
}

/** What the form of a cached row depends on. */
export type CachePlan = Pick<RunPlan, 'backend' | 'cache' | 'partition'>

export function cacheRows(a: AttentionShape, shards: readonly number[], { backend, cache, partition }: CachePlan): CacheRows {
  const reference = backend === 'reference'
  const all = (width: number) => ({ width, paddedWidth: cacheWidth(width), keyWidth: width, valueOffset: 0 })
  const { width, keyWidth, valueOffset } = a.stream
  return {
    stream: cacheRow(reference, cache, { width, paddedWidth: streamRowWidth(a), keyWidth, valueOffset }),
    rope: cacheRow(reference, cache, all(a.sharedRopeDim)),
    coefficients: cacheRow(reference, cache, all(coefficientRowWidth(a, cachedShards(partition, shards)))),
  }
}

/** Of a sequence's tokens, the share of which a rank caches rows. */
function cachedShare(shards: readonly number[], { partition }: CachePlan): number {
  return partition === 'sequence' ? shards.length / SHARDS : 1
}

/** Bytes that a rank caches per token and layer, padding and scales included; cut along the sequence, on average over tokens. */
export function cachedBytes(a: AttentionShape, shards: readonly number[], plan: CachePlan): number {
  const { stream, rope, coefficients } = cacheRows(a, shards, plan)
  const streams = streamsOf(a, cachedShards(plan.partition, shards)).length
  return (streams * stream.bytes + rope.bytes + coefficients.bytes) * cachedShare(shards, plan)
}

/** Values that a rank caches per token and layer; cut along the sequence, on average over tokens. */
export function cachedValues(a: AttentionShape, shards: readonly number[], plan: CachePlan): number {
  const cached = cachedShards(plan.partition, shards)
  const heads = rankHeads(a, cached)
  const coefficients = a.factors ? 2 * a.factors.rank * (heads.end - heads.start) : 0
  return (streamsOf(a, cached).length * a.stream.width + a.sharedRopeDim + coefficients) * cachedShare(shards, plan)
}
