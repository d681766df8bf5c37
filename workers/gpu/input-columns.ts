// Where each projection of a layer's normed input lies in the buffer `inputs`, [rows, width], of a rank's device.

import { queriesFromLatent, queryRows } from '../layout/attention-geometry.js'
import { ownStreams, segmentHeads, shardHeads, sharedStreams, streamsOf } from '../layout/attention-plan.js'
import { type AttentionShape, SHARDS } from '../protocol.js'

/** First columns. */
export interface InputColumns {
  /** The query latent, normed or not. */
  readonly queryA: number
  readonly streams: number
  readonly ropeKey: number
  readonly gate: number
  readonly queryB: number
  /** By own shard. */
  readonly coefficients: readonly number[]
  /** Of all columns. */
  readonly width: number
}

export function planInputColumns(a: AttentionShape, own: readonly number[]): InputColumns {
  const ownCount = own.reduce((sum, s) => sum + ownStreams(a, s).length, 0)
  if (ownCount > 0 && sharedStreams(a, own).length > 0) throw new RangeError('streams that are partly shared')
  let end = a.queryRank
  const take = (n: number) => {
    const at = end
    end += n
    return at
  }
  const projected = own.reduce((sum, s) => sum + segmentHeads(a, s).end - segmentHeads(a, s).start, 0)
  const headsOf = (s: number) => shardHeads(a, s).end - shardHeads(a, s).start
  const streams = take(streamsOf(a, own).length * a.stream.width)
  const ropeKey = take(a.sharedRopeDim)
  const gate = take(a.gated ? projected * a.valueDim : 0)
  const queryB = take(queriesFromLatent(a) ? 0 : a.heads * queryRows(a))
  const coefficients = own.map((s) => take(a.factors ? 2 * a.factors.rank * headsOf(s) : 0))
  return { queryA: 0, streams, ropeKey, gate, queryB, coefficients, width: end }
}

/** All shards, ascending. */
export const EVERY_SHARD: readonly number[] = Array.from({ length: SHARDS }, (_, s) => s)
