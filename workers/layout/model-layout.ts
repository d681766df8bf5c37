// The address of every weight, buffer and cache page, as a pure function of the model's shape and the plan. The coordinator sizes memories
// with it, the loader finds its targets, and each rank opens the same addresses. Knows no tensor names.

import { type ModelShape, type RunPlan, SHARDS } from '../protocol.js'
import { type ExchangeLayout, layoutExchange } from './exchange-layout.js'
import { layoutRank, type RankLayout } from './rank-layout.js'
import { layoutShard, type ShardLayout } from './shard-layout.js'

export interface ModelLayout {
  readonly shards: readonly ShardLayout[]
  readonly ranks: readonly RankLayout[]
  /** At one rank these regions lie in the rank's memory. */
  readonly exchange: ExchangeLayout
}

export function layoutModel(shape: ModelShape, plan: RunPlan): ModelLayout {
  const shards = Array.from({ length: SHARDS }, (_, s) => layoutShard(shape, plan, s))
  const ranks = Array.from({ length: plan.ranks }, (_, r) => layoutRank(shape, plan, r))
  const first = ranks[0] as RankLayout
  if (plan.ranks > 1) return { shards, ranks, exchange: layoutExchange(shape, plan, 64) }
  const exchange = layoutExchange(shape, plan, first.bytes)
  return { shards, ranks: [{ ...first, bytes: exchange.bytes }], exchange }
}
