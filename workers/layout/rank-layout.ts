// Addresses in a rank's memory: norms, replicated rows, activations, and the rank's part of the cache.
import { matmulScratchBytes } from '../../kernels/backend.js'
import { CACHE_FORMATS, queryScalars } from '../../kernels/cache-formats.js'
import { scalarBytes } from '../../kernels/open-backend.js'
import { type PackedMatrix, packedBytes, paddedRows } from '../../kernels/packing.js'
import { type AttentionUnit, type ModelShape, PAGE_TOKENS, type RunPlan } from '../protocol.js'
import { Arena, bufferRows } from './arena.js'
import { queryWidth } from './attention-geometry.js'
import {
  cacheRows,
  cacheWidth,
  coefficientRowWidth,
  contextWidth,
  ownStreams,
  rankHeads,
  rankUnits,
  shardsOf,
  sharedStreams,
  streamsOf,
  tileRows,
} from './attention-plan.js'
import { cachedShards, heldPages } from './partition.js'

export interface RankLayer {
  /** Pointers to float32 vectors. */
  readonly inputNorm: number
  readonly mlpNorm: number
  /** [queryRank] */
  readonly queryNorm: number
  /** [nope + rope] */
  readonly headNorm: number
  /** [normWidth], indexed as the rank's streams. */
  readonly streamNorms: readonly number[]
  /** [heads * (nope + rope)] */
  readonly queryBias: number
  /** [width], indexed as the rank's streams. */
  readonly streamBiases: readonly number[]
  /** [shared streams * width + sharedRopeDim, embed]: projection of the streams that several shards use, and of the rope key. */
  readonly shared: PackedMatrix
  /** Byte offset of each cache stream: [pages][PAGE_TOKENS] rows. */
  readonly streams: readonly number[]
  /** [pages][PAGE_TOKENS] rows */
  readonly ropeStream: number
  /** [pages][PAGE_TOKENS] rows */
  readonly coefficientStream: number
}

/** A cache stream of a rank, and the shard that projects it. Undefined: the rank projects it, or another does. */
export interface RankStream {
  readonly stream: number
  /** Another rank projects it (cut along the sequence). */
  readonly foreign: boolean
  readonly shard: number | undefined
  /** First row of its projection; unused for a stream of another rank. */
  readonly row: number
  /** [T, width]. 0 for a stream that the rank projects: it stays in the output of the projection. */
  readonly rows: number
}

/** Pointers of one unit's operands in a rank's memory. */
export interface UnitBuffers {
  readonly unit: AttentionUnit
  /** Index into the rank's streams. */
  readonly stream: number
  /** [T, heads * keyWidth]; queries in the stream's space. */
  readonly absorbed: number
  /** [T, heads * contextWidth] */
  readonly context: number
  readonly query: number
  readonly scores: number
  /** Scaled cache formats: scratch for a page's values. */
  readonly values: number
  /** A second scratch as large, for factors. */
  readonly dots: number
  readonly state: number
  /** [T, 2 * lanes]: maxima and sums; 0 where a rank attends over all of a row's pages. */
  readonly parts: number
}

export interface RankLayout {
  readonly shards: readonly number[]
  readonly layers: readonly RankLayer[]
  readonly finalNorm: number
  /** Bytes of weights that every rank holds itself. */
  readonly weightBytes: number
  readonly streams: readonly RankStream[]
  readonly units: readonly UnitBuffers[]
  /** Heads headStart..headEnd-1 are those of its shards' units: it finishes their queries, and takes their outputs on. */
  readonly headStart: number
  readonly headEnd: number
  /** Its units attend with the heads attendStart..attendEnd-1: the same ones, or all of them if the cache is cut along the sequence. */
  readonly attendStart: number
  readonly attendEnd: number
  /** [T, embed] */
  readonly residual: number
  readonly normed: number
  readonly delta: number
  /** [T, queryRank] */
  readonly queryLatent: number
  /** [T, heads * (nope + rope)] */
  readonly queries: number
  /** [T, heads * factors.queryRank] */
  readonly queryCoefficients: number
  /** [T, coefficientRowWidth] */
  readonly coefficients: number
  /** [T, paddedRows(shared.rows)] */
  readonly shared: number
  /** [T, ropeDim]: cos half, sin half */
  readonly ropeTable: number
  readonly ropeQuery: number
  readonly ropeScores: number
  readonly matmul: number
  readonly cacheBytes: number
  readonly bytes: number
}

export function layoutRank(shape: ModelShape, plan: RunPlan, rank: number): RankLayout {
  const { attention: a, embed } = shape
  const arena = new Arena()
  const shards = shardsOf(rank, plan.ranks)
  const cachedBy = cachedShards(plan.partition, shards)
  const streams = streamsOf(a, cachedBy)
  const shared = sharedStreams(a, shards)
  const vector = (n: number) => arena.take(n * 4)
  const sharedRows = shared.length * a.stream.width + a.sharedRopeDim
  const weights = Array.from({ length: shape.layers }, () => {
    const bytes = packedBytes(sharedRows, embed, plan.weights)
    return {
      inputNorm: vector(embed),
      mlpNorm: vector(embed),
      queryNorm: vector(a.queryRank),
      headNorm: vector(a.headNormed ? queryWidth(a) : 0),
      streamNorms: streams.map(() => vector(a.stream.normWidth)),
      queryBias: vector(a.biased ? a.heads * queryWidth(a) : 0),
      streamBiases: streams.map(() => vector(a.biased ? a.stream.width : 0)),
      shared: {
        ptr: arena.take(bytes),
        rows: sharedRows,
        cols: embed,
        format: plan.weights,
        batch: 1,
        batchBytes: bytes,
        inStride: 0,
        outStride: 0,
        bytes,
      },
    }
  })
  const finalNorm = vector(embed)
  const weightBytes = arena.bytes

  const rows = bufferRows(plan)
  const size = scalarBytes(plan.backend)
  const buffer = (width: number) => arena.take(rows * width * size)
  const scalars = (n: number) => arena.take(n * size)
  const heads = rankHeads(a, shards)
  const attends = rankHeads(a, cachedBy)
  const tile = tileRows(a, shards, plan)
  const lanes = cacheWidth(tile * (attends.end - attends.start))
  const owner = (stream: number) => shards.find((s) => ownStreams(a, s).includes(stream))
  const projected = streamsOf(a, shards)
  const buffers = {
    streams: streams.map((stream): RankStream => {
      const shard = owner(stream)
      const index = shard === undefined ? shared.indexOf(stream) : ownStreams(a, shard).indexOf(stream)
      const foreign = !projected.includes(stream)
      return { stream, shard, foreign, row: index * a.stream.width, rows: shard === undefined && !foreign ? 0 : buffer(a.stream.width) }
    }),
    units: rankUnits(a, cachedBy).map((unit): UnitBuffers => {
      const count = unit.headEnd - unit.headStart
      const unitLanes = cacheWidth(tile * count)
      return {
        unit,
        stream: streams.indexOf(unit.stream),
        absorbed: a.absorbed ? buffer(count * a.stream.keyWidth) : 0,
        context: buffer(count * contextWidth(a)),
        query: scalars(queryScalars(a.stream.keyWidth, unitLanes)),
        scores: scalars(PAGE_TOKENS * unitLanes),
        values: CACHE_FORMATS[plan.cache].scaled ? scalars(PAGE_TOKENS * contextWidth(a)) : 0,
        dots: a.factors ? scalars(PAGE_TOKENS * unitLanes) : 0,
        state: scalars(3 * unitLanes),
        parts: plan.partition === 'sequence' ? buffer(2 * cacheWidth(count)) : 0,
      }
    }),
    residual: buffer(embed),
    normed: buffer(embed),
    delta: buffer(embed),
    queryLatent: buffer(a.queryRank),
    queries: buffer(a.heads * queryWidth(a)),
    queryCoefficients: a.factors ? buffer(a.heads * a.factors.queryRank) : 0,
    coefficients: buffer(coefficientRowWidth(a, cachedBy)),
    shared: buffer(paddedRows(sharedRows)),
    ropeTable: buffer(a.ropeDim),
    ropeQuery: scalars(queryScalars(a.sharedRopeDim, lanes)),
    // A unit that starts between two vectors reads up to three lanes past the last row.
    ropeScores: scalars(PAGE_TOKENS * lanes + 4),
    matmul: arena.take(matmulScratchBytes(rows, embed)),
  }
  const cacheStart = arena.bytes
  // The cache of a GPU rank is on its device.
  const pageRows = plan.backend === 'gpu' ? 0 : heldPages(plan, shards) * PAGE_TOKENS
  const cached = cacheRows(a, shards, plan)
  const layers = weights.map(
    (w): RankLayer => ({
      ...w,
      streams: streams.map(() => arena.take(pageRows * cached.stream.bytes)),
      ropeStream: arena.take(pageRows * cached.rope.bytes),
      coefficientStream: arena.take(pageRows * cached.coefficients.bytes),
    }),
  )
  const cacheBytes = arena.bytes - cacheStart
  const ranges = { headStart: heads.start, headEnd: heads.end, attendStart: attends.start, attendEnd: attends.end }
  return { shards, layers, finalNorm, weightBytes, ...ranges, ...buffers, cacheBytes, bytes: arena.bytes }
}
