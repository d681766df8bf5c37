// Addresses in a shard's memory: its weights, and scratch for each rank.
import { matmulScratchBytes } from '../../kernels/backend.js'
import { scalarBytes } from '../../kernels/open-backend.js'
import { type PackedMatrix, packedBytes, paddedRows } from '../../kernels/packing.js'
import type { WeightFormat } from '../../kernels/weight-format.js'
import { WEIGHT_FORMATS } from '../../kernels/weight-formats.js'
import type { ModelShape, RunPlan } from '../protocol.js'
import { Arena, bufferRows } from './arena.js'
import { queriesFromLatent, queryRows, queryWidth } from './attention-geometry.js'
import { cacheWidth, contextWidth, ownStreams, segmentHeads, shardHeads } from './attention-plan.js'
import { part } from './cuts.js'

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
  /** [part(vocab), embed] */
  readonly head: PackedMatrix
  /** Token embedding, [part(vocab), embed], in a format that can be gathered: `head` itself if both are one matrix and its format can be. */
  readonly embedding: PackedMatrix
  readonly weightBytes: number
  /** Indexed by rank. */
  readonly scratch: readonly ShardScratch[]
  readonly bytes: number
}

/** Inputs of queryB. */
function queryInputs(shape: ModelShape): number {
  const { attention: a, embed } = shape
  return queriesFromLatent(a) ? a.queryRank : embed
}

export function layoutShard(shape: ModelShape, plan: RunPlan, shard: number): ShardLayout {
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
  const canGather = WEIGHT_FORMATS[plan.weights].gatherRow
  const ownFormat = canGather ? plan.weights : plan.embedding
  const embedding = canGather && shape.tiedHead ? head : matrix(head.rows, embed, 1, 0, 0, ownFormat)
  const weightBytes = layers.reduce((sum, layer) => sum + matrixBytes(layer), head.bytes)

  const inputWidth = Math.max(embed, a.queryRank, a.heads * queryWidth(a), heads * contextWidth(a), cacheWidth(segmentCount * a.valueDim))
  const outputWidth = Math.max(
    paddedRows(part(a.queryRank, shard)),
    paddedRows(segmentCount * queryRows(a)),
    paddedRows(streamRows),
    paddedRows(coefficientRows),
    // Each head is written over the padding of the head before; the padding of the last head needs room.
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

export function matrixBytes(layer: ShardLayer): number {
  return Object.values(layer).reduce((sum: number, m: PackedMatrix) => sum + m.bytes, 0)
}
