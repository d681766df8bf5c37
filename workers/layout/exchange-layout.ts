// Addresses of the slots of the collectives.
import { scalarBytes } from '../../kernels/open-backend.js'
import { type ModelShape, type RunPlan, SHARDS } from '../protocol.js'
import { Arena, bufferRows } from './arena.js'
import { queryWidth } from './attention-geometry.js'
import { isLocal, segmentHeads, shardHeads } from './attention-plan.js'
import { part } from './cuts.js'
import { combinedWidth, partialColumns, preparedColumns } from './prepared-layout.js'

/** Slots of the collectives, indexed by shard, or by rank where only one rank writes and reads. Pointers in bytes. */
export interface ExchangeLayout {
  readonly queryA: readonly number[]
  readonly queryB: readonly number[]
  /** Where the cache is cut along the sequence: queries and rows to cache (preparedColumns). */
  readonly prepared: readonly number[]
  /** There: attention over each shard's pages (partialColumns). */
  readonly partial: readonly number[]
  /** There: [T, combinedWidth], read and written by the shard's own rank. */
  readonly combined: readonly number[]
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
  /** By rank: twice samplingScalars(vocab): adjusted logits, and weights. */
  readonly sampling: readonly number[]
  readonly bytes: number
}

/** Scalars of one row of logits in the sampler, in whole vectors. */
export function samplingScalars(vocab: number): number {
  return Math.ceil(vocab / 4) * 4 + 4
}

/** Bytes of one row that ranks write for each other in a step, all ranks and layers together; 0 at one rank. */
export function exchangedBytes(shape: ModelShape, plan: RunPlan): number {
  const { attention: a, embed, layers, vocab } = shape
  if (plan.ranks === 1) return 0
  const all = Array.from({ length: SHARDS }, (_, s) => s)
  const sum = (of: (shard: number) => number) => all.reduce((total, s) => total + of(s), 0)
  const local = isLocal(a)
  const sequence = plan.partition === 'sequence' ? sum((s) => preparedColumns(a, s).width + partialColumns(a).width) : 0
  const queries = (plan.replicate.queryA ? 0 : a.queryRank) + (local || plan.replicate.queryB ? 0 : a.heads * queryWidth(a))
  const outputs = local ? 0 : sum((s) => (shardHeads(a, s).end - shardHeads(a, s).start) * a.valueDim)
  return (layers * (queries + sequence + outputs + SHARDS * 2 * embed) + vocab) * scalarBytes(plan.backend)
}

export function layoutExchange(shape: ModelShape, plan: RunPlan, start: number): ExchangeLayout {
  const { attention: a, embed } = shape
  const arena = new Arena(start)
  const rows = bufferRows(plan)
  const size = scalarBytes(plan.backend)
  const perShard = (width: (s: number) => number) => Array.from({ length: SHARDS }, (_, s) => arena.take(rows * width(s) * size))
  const perRank = (width: number, n = rows) => Array.from({ length: plan.ranks }, () => arena.take(n * width * size))
  const segment = (s: number) => segmentHeads(a, s).end - segmentHeads(a, s).start
  const inSequence = (width: number) => (plan.partition === 'sequence' ? width : 0)
  return {
    prepared: perShard((s) => inSequence(preparedColumns(a, s).width)),
    partial: perShard(() => inSequence(partialColumns(a).width)),
    combined: perShard((s) => inSequence(combinedWidth(a, s))),
    queryA: perShard((s) => part(a.queryRank, s)),
    queryB: perShard((s) => segment(s) * queryWidth(a)),
    attention: perShard(() => a.heads * a.valueDim),
    attentionOut: perShard(() => embed),
    mlp: perShard(() => embed),
    segments: perRank(a.heads * a.valueDim),
    reduced: perRank(embed),
    logits: [arena.take(rows * shape.vocab * size), arena.take(rows * shape.vocab * size)],
    sampling: perRank(2 * samplingScalars(shape.vocab), 1),
    bytes: arena.bytes,
  }
}
