// Where every weight, buffer and cache page lies, as a pure function of the model's shape and the plan: the coordinator
// sizes memories with it, the loader finds its targets, and each rank opens the same addresses. Knows no tensor names.
import { type CacheFormat, matmulScratchBytes } from '../kernels/backend.js'
import { scalarBytes } from '../kernels/open-space.js'
import { type PackedMatrix, packedBytes, paddedRows } from '../kernels/packing.js'
import { type ModelShape, PAGE_TOKENS, type RankCount, type RunPlan, SHARDS } from './protocol.js'

/** Start of shard i's part of n units: floor(i * n / 4). Design rule 2: cut, then pad. */
export function cut(n: number, i: number): number {
  return Math.floor((i * n) / SHARDS)
}

/** Units of n in shard i. */
export function part(n: number, i: number): number {
  return cut(n, i + 1) - cut(n, i)
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

export interface ShardLayer {
  /** [part(queryRank), embed] */
  readonly queryA: PackedMatrix
  /** [latentDim, embed] */
  readonly latent: PackedMatrix
  /** [part(heads) * (nope + rope), queryRank] */
  readonly queryB: PackedMatrix
  /** per head of the unit: [latentDim, nopeDim] */
  readonly keyUp: PackedMatrix
  /** per head of the unit: [nopeDim, latentDim] */
  readonly valueUp: PackedMatrix
  /** [embed, part(heads) * nopeDim] */
  readonly attentionOut: PackedMatrix
  /** [part(intermediate), embed] */
  readonly gate: PackedMatrix
  readonly up: PackedMatrix
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
  readonly weightBytes: number
  /** Indexed by rank. */
  readonly scratch: readonly ShardScratch[]
  readonly bytes: number
}

export interface RankLayer {
  /** Pointers to float32 vectors. */
  readonly inputNorm: number
  readonly mlpNorm: number
  readonly queryNorm: number
  /** Indexed by the rank's units. */
  readonly latentNorms: readonly number[]
  /** [ropeDim, embed] */
  readonly ropeKey: PackedMatrix
  /** Byte offset of each unit's cache stream: [pages][PAGE_TOKENS][cacheWidth(latentDim)]. */
  readonly streams: readonly number[]
  /** [pages][PAGE_TOKENS][cacheWidth(ropeDim)] */
  readonly ropeStream: number
}

/** Pointers of one unit's operands in a rank's memory. */
export interface UnitBuffers {
  readonly shard: number
  /** [T, latentDim] */
  readonly latent: number
  /** [T, heads * latentDim] */
  readonly absorbed: number
  /** [T, heads * cacheWidth(latentDim)] */
  readonly context: number
  readonly query: number
  readonly scores: number
  readonly state: number
}

export interface RankLayout {
  readonly shards: readonly number[]
  readonly layers: readonly RankLayer[]
  readonly finalNorm: number
  /** Replicated bytes: what every rank holds of its own. */
  readonly weightBytes: number
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
  /** [T, paddedRows(ropeDim)] */
  readonly ropeKey: number
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
  /** Row stride heads * nopeDim, whatever the unit's own width. */
  readonly attention: readonly number[]
  readonly attentionOut: readonly number[]
  readonly mlp: readonly number[]
  /** By rank: [T, heads * nopeDim] */
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

function layoutShard(shape: ModelShape, plan: RunPlan, shard: number): ShardLayout {
  const { attention: a, embed } = shape
  const arena = new Arena()
  const unit = unitOf(shape, shard)
  const unitHeads = unit.headEnd - unit.headStart
  const heads = part(a.heads, shard)
  const queryWidth = a.nopeDim + a.ropeDim
  const matrix = (rows: number, cols: number, batch = 1, inStride = 0, outStride = 0): PackedMatrix => {
    const batchBytes = packedBytes(rows, cols, plan.weights)
    const bytes = batch * batchBytes
    return { ptr: arena.take(bytes), rows, cols, format: plan.weights, batch, batchBytes, inStride, outStride, bytes }
  }
  const layers = Array.from(
    { length: shape.layers },
    (): ShardLayer => ({
      queryA: matrix(part(a.queryRank, shard), embed),
      latent: matrix(a.latentDim, embed),
      queryB: matrix(heads * queryWidth, a.queryRank),
      keyUp: matrix(a.latentDim, a.nopeDim, unitHeads, queryWidth, a.latentDim),
      valueUp: matrix(a.nopeDim, a.latentDim, unitHeads, cacheWidth(a.latentDim), a.nopeDim),
      attentionOut: matrix(embed, heads * a.nopeDim),
      gate: matrix(part(shape.intermediate, shard), embed),
      up: matrix(part(shape.intermediate, shard), embed),
      down: matrix(embed, part(shape.intermediate, shard)),
    }),
  )
  const head = matrix(part(shape.vocab, shard), embed)
  const weightBytes = layers.reduce((sum, layer) => sum + matrixBytes(layer), head.bytes)

  const mlp = paddedRows(part(shape.intermediate, shard))
  const inputWidth = Math.max(embed, a.queryRank, a.heads * queryWidth, unitHeads * cacheWidth(a.latentDim), heads * a.nopeDim)
  const outputWidth = Math.max(
    paddedRows(part(a.queryRank, shard)),
    paddedRows(a.latentDim),
    paddedRows(heads * queryWidth),
    // Heads are written one over the other's padding; the last one's needs room of its own.
    unitHeads * a.latentDim + paddedRows(a.latentDim),
    unitHeads * a.nopeDim + paddedRows(a.nopeDim),
    paddedRows(embed),
    mlp,
    paddedRows(part(shape.vocab, shard)),
  )
  const secondWidth = Math.max(mlp, paddedRows(embed))
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
  return { layers, head, weightBytes, scratch, bytes: arena.bytes }
}

function layoutRank(shape: ModelShape, plan: RunPlan, rank: number): RankLayout {
  const { attention: a, embed } = shape
  const arena = new Arena()
  const shards = shardsOf(rank, plan.ranks)
  const units = shards.map((s) => unitOf(shape, s))
  const vector = (n: number) => arena.take(n * 4)
  const weights = Array.from({ length: shape.layers }, () => {
    const bytes = packedBytes(a.ropeDim, embed, plan.weights)
    return {
      inputNorm: vector(embed),
      mlpNorm: vector(embed),
      queryNorm: vector(a.queryRank),
      latentNorms: units.map(() => vector(a.latentDim)),
      ropeKey: {
        ptr: arena.take(bytes),
        rows: a.ropeDim,
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
  const headStart = Math.min(...units.map((u) => u.headStart))
  const headEnd = Math.max(...units.map((u) => u.headEnd))
  const lanes = cacheWidth(headEnd - headStart)
  const buffers = {
    units: units.map((unit, i): UnitBuffers => {
      const heads = unit.headEnd - unit.headStart
      const unitLanes = cacheWidth(heads)
      return {
        shard: shards[i] as number,
        latent: buffer(a.latentDim),
        absorbed: buffer(heads * a.latentDim),
        context: buffer(heads * cacheWidth(a.latentDim)),
        query: scalars(a.latentDim * unitLanes),
        scores: scalars(PAGE_TOKENS * unitLanes),
        state: scalars(3 * unitLanes),
      }
    }),
    residual: buffer(embed),
    normed: buffer(embed),
    delta: buffer(embed),
    queryLatent: buffer(a.queryRank),
    queries: buffer(a.heads * (a.nopeDim + a.ropeDim)),
    ropeKey: buffer(paddedRows(a.ropeDim)),
    ropeTable: buffer(a.ropeDim),
    ropeQuery: scalars(a.ropeDim * lanes),
    // A unit that starts between two vectors reads up to three lanes past the last row.
    ropeScores: scalars(PAGE_TOKENS * lanes + 4),
    matmul: arena.take(matmulScratchBytes(rows, embed)),
  }
  const cacheStart = arena.bytes
  const pageRows = plan.pages * PAGE_TOKENS * cacheBytesPerScalar(plan.backend, plan.cache)
  const layers = weights.map(
    (w): RankLayer => ({
      ...w,
      streams: units.map(() => arena.take(pageRows * cacheWidth(a.latentDim))),
      ropeStream: arena.take(pageRows * cacheWidth(a.ropeDim)),
    }),
  )
  return { shards, layers, finalNorm, weightBytes, headStart, headEnd, ...buffers, cacheBytes: arena.bytes - cacheStart, bytes: arena.bytes }
}

function layoutExchange(shape: ModelShape, plan: RunPlan, start: number): ExchangeLayout {
  const { attention: a, embed } = shape
  const arena = new Arena(start)
  const rows = bufferRows(plan)
  const size = scalarBytes(plan.backend)
  const perShard = (width: (s: number) => number) => Array.from({ length: SHARDS }, (_, s) => arena.take(rows * width(s) * size))
  const perRank = (width: number, n = rows) => Array.from({ length: plan.ranks }, () => arena.take(n * width * size))
  return {
    queryA: perShard((s) => part(a.queryRank, s)),
    queryB: perShard((s) => part(a.heads, s) * (a.nopeDim + a.ropeDim)),
    attention: perShard(() => a.heads * a.nopeDim),
    attentionOut: perShard(() => embed),
    mlp: perShard(() => embed),
    segments: perRank(a.heads * a.nopeDim),
    reduced: perRank(embed),
    logits: [arena.take(rows * shape.vocab * size), arena.take(rows * shape.vocab * size)],
    sampling: perRank(shape.vocab + 4, 1),
    bytes: arena.bytes,
  }
}

/** Bytes of a cached scalar: the reference keeps float64. */
export function cacheBytesPerScalar(backend: RunPlan['backend'], format: CacheFormat): number {
  return backend === 'reference' ? 8 : format === 'bf16' ? 2 : 4
}

export function matrixBytes(layer: ShardLayer): number {
  return Object.values(layer).reduce((sum: number, m: PackedMatrix) => sum + m.bytes, 0)
}

export function unitOf(shape: ModelShape, shard: number) {
  const unit = shape.attention.units[shard]
  if (!unit) throw new RangeError(`no attention unit for shard ${shard}`)
  return unit
}
