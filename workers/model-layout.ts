// Where every weight, buffer and cache page lies, as a pure function of the model's shape and the plan: the coordinator
// sizes memories with it, the loader finds its targets, and each rank opens the same addresses. Knows no tensor names.
import { type CacheFormat, matmulScratchBytes } from '../kernels/backend.js'
import { scalarBytes } from '../kernels/open-space.js'
import { type PackedMatrix, packedBytes, paddedRows, type WeightFormat } from '../kernels/packing.js'
import {
  cacheWidth,
  coefficientRowWidth,
  contextWidth,
  ownStreams,
  rankHeads,
  rankUnits,
  segmentHeads,
  shardHeads,
  shardsOf,
  sharedStreams,
  streamRowWidth,
  streamsOf,
} from './attention-plan.js'
import { type AttentionShape, type AttentionUnit, type ModelShape, PAGE_TOKENS, type RunPlan, SHARDS } from './protocol.js'

/** Start of shard i's part of n units: floor(i * n / 4). Design rule 2: cut, then pad. */
export function cut(n: number, i: number): number {
  return Math.floor((i * n) / SHARDS)
}

/** Units of n in shard i. */
export function part(n: number, i: number): number {
  return cut(n, i + 1) - cut(n, i)
}

/** A matrix that a variant does not have has no rows. `heads` are the shard's: of its segment, or those it attends with. */
export interface ShardLayer {
  /** [part(queryRank), embed] */
  readonly queryA: PackedMatrix
  /** [segment heads * (nope + rope), queryRank or embed]; with factors [segment heads * factors.queryRank, embed] */
  readonly queryB: PackedMatrix
  /** [own streams * width, embed] */
  readonly streams: PackedMatrix
  /** [2 * rank * heads, embed]: coefficients of keys, then of values, by factor and head. */
  readonly coefficients: PackedMatrix
  /** per head: [keyWidth, nopeDim] */
  readonly keyUp: PackedMatrix
  /** per head: [valueDim, valueWidth] */
  readonly valueUp: PackedMatrix
  /** [segment heads * valueDim, embed] */
  readonly outputGate: PackedMatrix
  /** [embed, segment heads * valueDim] */
  readonly attentionOut: PackedMatrix
  /** Two of [part(intermediate), embed] over the same input: gate, then up. */
  readonly gateUp: PackedMatrix
  /** [embed, part(intermediate)] */
  readonly down: PackedMatrix
}

/** Scratch of one rank in a shard's memory; pointers in bytes, widths in scalars. */
export interface ShardScratch {
  readonly input: number
  readonly inputWidth: number
  readonly output: number
  readonly outputWidth: number
  readonly second: number
  readonly secondWidth: number
  readonly matmul: number
}

export interface ShardLayout {
  readonly layers: readonly ShardLayer[]
  /** [part(vocab), embed], tied with the token embedding. */
  readonly head: PackedMatrix
  /** The same rows as floats: `head` itself, but for int8 weights. */
  readonly embedding: PackedMatrix
  readonly weightBytes: number
  /** Indexed by rank. */
  readonly scratch: readonly ShardScratch[]
  readonly bytes: number
}

export interface RankLayer {
  /** Pointers to float32 vectors. */
  readonly inputNorm: number
  readonly mlpNorm: number
  /** [queryRank] */
  readonly queryNorm: number
  /** [width], indexed as the rank's streams. */
  readonly streamNorms: readonly number[]
  /** [shared streams * width + sharedRopeDim, embed]: what every rank that needs it projects itself. */
  readonly shared: PackedMatrix
  /** Byte offset of each cache stream: [pages][PAGE_TOKENS][streamRowWidth]. */
  readonly streams: readonly number[]
  /** [pages][PAGE_TOKENS][cacheWidth(sharedRopeDim)] */
  readonly ropeStream: number
  /** [pages][PAGE_TOKENS][coefficientRowWidth] */
  readonly coefficientStream: number
}

/** A cache stream of a rank, and the shard that projects it; undefined: the rank does. */
export interface RankStream {
  readonly stream: number
  readonly shard: number | undefined
  /** First row of the projection that makes it. */
  readonly row: number
  /** [T, width]; 0 for a stream that the rank projects: it stays where the projection leaves it. */
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
  /** A second scratch as large, for factors. */
  readonly dots: number
  readonly state: number
}

export interface RankLayout {
  readonly shards: readonly number[]
  readonly layers: readonly RankLayer[]
  readonly finalNorm: number
  /** Replicated bytes: what every rank holds of its own. */
  readonly weightBytes: number
  readonly streams: readonly RankStream[]
  readonly units: readonly UnitBuffers[]
  /** Heads headStart..headEnd-1 are served by this rank's units. */
  readonly headStart: number
  readonly headEnd: number
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

/** Slots of the collectives: indexed by shard, or by rank where one rank alone writes and reads. Pointers in bytes. */
export interface ExchangeLayout {
  readonly queryA: readonly number[]
  readonly queryB: readonly number[]
  /** Row stride heads * valueDim, whatever the shard's own width. */
  readonly attention: readonly number[]
  readonly attentionOut: readonly number[]
  readonly mlp: readonly number[]
  /** By rank: [T, heads * valueDim] */
  readonly segments: readonly number[]
  /** By rank: [T, embed] */
  readonly reduced: readonly number[]
  /** By ring index: [T, vocab] */
  readonly logits: readonly number[]
  /** By rank: vocab + 4 scalars. */
  readonly sampling: readonly number[]
  readonly bytes: number
}

export interface ModelLayout {
  readonly shards: readonly ShardLayout[]
  readonly ranks: readonly RankLayout[]
  /** At one rank these regions lie in the rank's memory. */
  readonly exchange: ExchangeLayout
}

/** Hands out 64-byte-aligned addresses. 0 is never given, so that it can mean none. */
class Arena {
  bytes: number
  constructor(start = 64) {
    this.bytes = start
  }

  take(bytes: number): number {
    const at = this.bytes
    this.bytes += Math.ceil(bytes / 64) * 64
    return at
  }
}

export function layoutModel(shape: ModelShape, plan: RunPlan): ModelLayout {
  const shards = Array.from({ length: SHARDS }, (_, s) => layoutShard(shape, plan, s))
  const ranks = Array.from({ length: plan.ranks }, (_, r) => layoutRank(shape, plan, r))
  const first = ranks[0] as RankLayout
  if (plan.ranks > 1) return { shards, ranks, exchange: layoutExchange(shape, plan, 64) }
  const exchange = layoutExchange(shape, plan, first.bytes)
  return { shards, ranks: [{ ...first, bytes: exchange.bytes }], exchange }
}

/** Rows of a buffer: matmul writes whole groups of four tokens. */
function bufferRows(plan: RunPlan): number {
  return Math.ceil(plan.stepRows / 4) * 4
}

function queryWidth(a: AttentionShape): number {
  return a.nopeDim + a.ropeDim
}

/** What queryB makes of a head: its query, or the coefficients of it. */
function queryRows(a: AttentionShape): number {
  return a.factors ? a.factors.queryRank : queryWidth(a)
}

/** Inputs of queryB. */
function queryInputs(shape: ModelShape): number {
  const { attention: a, embed } = shape
  return a.factors || a.queryRank === 0 ? embed : a.queryRank
}

function layoutShard(shape: ModelShape, plan: RunPlan, shard: number): ShardLayout {
  const { attention: a, embed } = shape
  const arena = new Arena()
  const attends = shardHeads(a, shard)
  const segment = segmentHeads(a, shard)
  const heads = attends.end - attends.start
  const upHeads = a.absorbed ? heads : 0
  const segmentCount = segment.end - segment.start
  const { keyWidth, valueWidth } = a.stream
  const matrix = (rows: number, cols: number, batch = 1, inStride = 0, outStride = 0, format: WeightFormat = plan.weights): PackedMatrix => {
    const batchBytes = packedBytes(rows, cols, format)
    const bytes = batch * batchBytes
    return { ptr: arena.take(bytes), rows, cols, format, batch, batchBytes, inStride, outStride, bytes }
  }
  const mlp = paddedRows(part(shape.intermediate, shard))
  const streamRows = ownStreams(a, shard).length * a.stream.width
  const coefficientRows = a.factors ? 2 * a.factors.rank * heads : 0
  const layers = Array.from(
    { length: shape.layers },
    (): ShardLayer => ({
      queryA: matrix(part(a.queryRank, shard), embed),
      queryB: matrix(segmentCount * queryRows(a), queryInputs(shape)),
      streams: matrix(streamRows, embed),
      coefficients: matrix(coefficientRows, embed),
      keyUp: matrix(keyWidth, a.nopeDim, upHeads, queryWidth(a), keyWidth),
      valueUp: matrix(a.valueDim, valueWidth, upHeads, contextWidth(a), a.valueDim),
      outputGate: matrix(a.gated ? segmentCount * a.valueDim : 0, embed),
      attentionOut: matrix(embed, segmentCount * a.valueDim),
      gateUp: matrix(part(shape.intermediate, shard), embed, 2, 0, mlp),
      down: matrix(embed, part(shape.intermediate, shard)),
    }),
  )
  const head = matrix(part(shape.vocab, shard), embed)
  const embedding = plan.weights === 'int8' ? matrix(head.rows, embed, 1, 0, 0, plan.embedding) : head
  const weightBytes = layers.reduce((sum, layer) => sum + matrixBytes(layer), head.bytes)

  const inputWidth = Math.max(embed, a.queryRank, a.heads * queryWidth(a), heads * contextWidth(a), cacheWidth(segmentCount * a.valueDim))
  const outputWidth = Math.max(
    paddedRows(part(a.queryRank, shard)),
    paddedRows(segmentCount * queryRows(a)),
    paddedRows(streamRows),
    paddedRows(coefficientRows),
    // Heads are written one over the other's padding; the last one's needs room of its own.
    heads * keyWidth + paddedRows(keyWidth),
    heads * a.valueDim + paddedRows(a.valueDim),
    paddedRows(segmentCount * a.valueDim),
    paddedRows(embed),
    2 * mlp,
    paddedRows(part(shape.vocab, shard)),
  )
  const secondWidth = paddedRows(embed)
  const rows = bufferRows(plan)
  const bytes = scalarBytes(plan.backend)
  const scratch = Array.from(
    { length: plan.ranks },
    (): ShardScratch => ({
      input: arena.take(rows * inputWidth * bytes),
      inputWidth,
      output: arena.take(rows * outputWidth * bytes),
      outputWidth,
      second: arena.take(rows * secondWidth * bytes),
      secondWidth,
      matmul: arena.take(matmulScratchBytes(rows, Math.max(inputWidth, mlp))),
    }),
  )
  return { layers, head, embedding, weightBytes, scratch, bytes: arena.bytes }
}

function layoutRank(shape: ModelShape, plan: RunPlan, rank: number): RankLayout {
  const { attention: a, embed } = shape
  const arena = new Arena()
  const shards = shardsOf(rank, plan.ranks)
  const streams = streamsOf(a, shards)
  const shared = sharedStreams(a, shards)
  const vector = (n: number) => arena.take(n * 4)
  const sharedRows = shared.length * a.stream.width + a.sharedRopeDim
  const weights = Array.from({ length: shape.layers }, () => {
    const bytes = packedBytes(sharedRows, embed, plan.weights)
    return {
      inputNorm: vector(embed),
      mlpNorm: vector(embed),
      queryNorm: vector(a.queryRank),
      streamNorms: streams.map(() => vector(a.stream.width)),
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
  const lanes = cacheWidth(heads.end - heads.start)
  const owner = (stream: number) => shards.find((s) => ownStreams(a, s).includes(stream))
  const buffers = {
    streams: streams.map((stream): RankStream => {
      const shard = owner(stream)
      const index = shard === undefined ? shared.indexOf(stream) : ownStreams(a, shard).indexOf(stream)
      return { stream, shard, row: index * a.stream.width, rows: shard === undefined ? 0 : buffer(a.stream.width) }
    }),
    units: rankUnits(a, shards).map((unit): UnitBuffers => {
      const count = unit.headEnd - unit.headStart
      const unitLanes = cacheWidth(count)
      return {
        unit,
        stream: streams.indexOf(unit.stream),
        absorbed: a.absorbed ? buffer(count * a.stream.keyWidth) : 0,
        context: buffer(count * contextWidth(a)),
        query: scalars(a.stream.keyWidth * unitLanes),
        scores: scalars(PAGE_TOKENS * unitLanes),
        dots: a.factors ? scalars(PAGE_TOKENS * unitLanes) : 0,
        state: scalars(3 * unitLanes),
      }
    }),
    residual: buffer(embed),
    normed: buffer(embed),
    delta: buffer(embed),
    queryLatent: buffer(a.queryRank),
    queries: buffer(a.heads * queryWidth(a)),
    queryCoefficients: a.factors ? buffer(a.heads * a.factors.queryRank) : 0,
    coefficients: buffer(coefficientRowWidth(a, shards)),
    shared: buffer(paddedRows(sharedRows)),
    ropeTable: buffer(a.ropeDim),
    ropeQuery: scalars(a.sharedRopeDim * lanes),
    // A unit that starts between two vectors reads up to three lanes past the last row.
    ropeScores: scalars(PAGE_TOKENS * lanes + 4),
    matmul: arena.take(matmulScratchBytes(rows, embed)),
  }
  const cacheStart = arena.bytes
  // A GPU rank's cache lies on its device.
  const pageRows = plan.backend === 'gpu' ? 0 : plan.pages * PAGE_TOKENS * cacheBytesPerScalar(plan.backend, plan.cache)
  const layers = weights.map(
    (w): RankLayer => ({
      ...w,
      streams: streams.map(() => arena.take(pageRows * streamRowWidth(a))),
      ropeStream: arena.take(pageRows * cacheWidth(a.sharedRopeDim)),
      coefficientStream: arena.take(pageRows * coefficientRowWidth(a, shards)),
    }),
  )
  const cacheBytes = arena.bytes - cacheStart
  return { shards, layers, finalNorm, weightBytes, headStart: heads.start, headEnd: heads.end, ...buffers, cacheBytes, bytes: arena.bytes }
}

function layoutExchange(shape: ModelShape, plan: RunPlan, start: number): ExchangeLayout {
  const { attention: a, embed } = shape
  const arena = new Arena(start)
  const rows = bufferRows(plan)
  const size = scalarBytes(plan.backend)
  const perShard = (width: (s: number) => number) => Array.from({ length: SHARDS }, (_, s) => arena.take(rows * width(s) * size))
  const perRank = (width: number, n = rows) => Array.from({ length: plan.ranks }, () => arena.take(n * width * size))
  const segment = (s: number) => segmentHeads(a, s).end - segmentHeads(a, s).start
  return {
    queryA: perShard((s) => part(a.queryRank, s)),
    queryB: perShard((s) => segment(s) * queryWidth(a)),
    attention: perShard(() => a.heads * a.valueDim),
    attentionOut: perShard(() => embed),
    mlp: perShard(() => embed),
    segments: perRank(a.heads * a.valueDim),
    reduced: perRank(embed),
    logits: [arena.take(rows * shape.vocab * size), arena.take(rows * shape.vocab * size)],
    sampling: perRank(shape.vocab + 4, 1),
    bytes: arena.bytes,
  }
}

/** Bytes of a cached scalar: the reference keeps float64. */
export function cacheBytesPerScalar(backend: RunPlan['backend'], format: CacheFormat): number {
  return backend === 'reference' ? 8 : format === 'f32' ? 4 : 2
}

export function matrixBytes(layer: ShardLayer): number {
  return Object.values(layer).reduce((sum: number, m: PackedMatrix) => sum + m.bytes, 0)
}
