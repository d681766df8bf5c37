// Which tiles of packed weights each product of a layer takes, in which buffer they lie, and where their inputs and outputs are:
// numbers only, from the model's shape and layout.

import { paddedQueryWidth, queriesFromLatent, queryRows } from '../layout/attention-geometry.js'
import { cacheWidth, rankHeads, segmentHeads, shardHeads, unitsOf } from '../layout/attention-plan.js'
import { cut } from '../layout/cuts.js'
import type { ModelLayout } from '../layout/model-layout.js'
import type { RankLayout } from '../layout/rank-layout.js'
import type { ShardLayout } from '../layout/shard-layout.js'
import type { MemoryName, ModelShape } from '../protocol.js'
import type { AttentionPlan } from './attention-plan.js'
import { EVERY_SHARD, type InputColumns } from './input-columns.js'
import { type DeviceLayout, type Tile, WeightPlan } from './weights.js'

export interface GpuLayerPlan {
  readonly weights: WeightPlan
  readonly tiles: {
    readonly inputs: readonly Tile[]
    readonly queryB: readonly Tile[]
    readonly keyUp: readonly Tile[]
    readonly valueUp: readonly Tile[]
    readonly attentionOut: readonly Tile[]
    readonly gateUp: readonly Tile[]
    readonly down: readonly Tile[]
  }
}

export interface TilePlan {
  readonly layers: readonly GpuLayerPlan[]
  /** The output projection. */
  readonly head: { readonly weights: WeightPlan; readonly tiles: readonly Tile[] }
  /** Bytes of weights that a step reads: of own shards, and of what every rank computes. */
  readonly shardedBytes: number
  readonly replicatedBytes: number
}

/** What the places of inputs and outputs follow from. */
export interface TileGeometry {
  readonly shape: ModelShape
  readonly own: readonly number[]
  readonly columns: InputColumns
  readonly contextWidth: number
  /** Rows of every buffer. */
  readonly stepRows: number
  readonly headStart: number
  readonly segmentStart: number
  /** Columns of a shard's part of the MLP. */
  readonly mlpWidth: number
  readonly layout: DeviceLayout
}

export function planTiles(plan: TileGeometry, placed: AttentionPlan['placed'], layout: ModelLayout, mine: RankLayout): TilePlan {
  const { shape, own, columns } = plan
  const { attention: a, embed } = shape
  const fromLatent = queriesFromLatent(a)
  const rowsPerHead = queryRows(a)
  const paddedWidth = paddedQueryWidth(a)
  const shards = layout.shards
  const keyPad = cacheWidth(a.stream.keyWidth)
  const pad = plan.contextWidth
  const T = plan.stepRows
  const placedOf = (stream: number, head: number) => placed.find((u) => u.stream === stream && head >= u.headStart && head < u.headEnd)
  let sharded = 0
  let replicated = mine.weightBytes
  const layers = mine.layers.map((rankLayer, i) => {
    const weights = new WeightPlan(plan.layout)
    const layer = (s: number) => (shards[s] as ShardLayout).layers[i] as ShardLayout['layers'][number]
    const put = (matrix: ReturnType<typeof layer>['queryA'], s: number) => {
      weights.place(matrix, shardMemory(s))
      if (own.includes(s)) sharded += matrix.bytes
      else replicated += matrix.bytes
      return matrix
    }
    const inputs: Tile[] = []
    const queryB: Tile[] = []
    if (a.queryRank > 0) for (const s of EVERY_SHARD) inputs.push(...weights.tiles(put(layer(s).queryA, s), 0, cut(a.queryRank, s)))
    let at = columns.streams
    for (const s of own) {
      inputs.push(...weights.tiles(put(layer(s).streams, s), 0, at))
      at += layer(s).streams.rows
    }
    weights.place(rankLayer.shared, { kind: 'rank', index: 0 })
    // Shared streams, then the rope key: as the columns are.
    inputs.push(...weights.tiles(rankLayer.shared, 0, at))
    const range = rankHeads(a, own)
    for (const s of EVERY_SHARD) {
      const { start, end: stop } = segmentHeads(a, s)
      if (stop <= range.start || start >= range.end || stop === start) continue
      const matrix = put(layer(s).queryB, s)
      if (fromLatent) queryB.push(...weights.tiles(matrix, a.queryNormed ? 0 : columns.queryA, start * rowsPerHead))
      else inputs.push(...weights.tiles(matrix, 0, columns.queryB + start * rowsPerHead))
    }
    const keyUp: Tile[] = []
    const valueUp: Tile[] = []
    const attentionOut: Tile[] = []
    const gateUp: Tile[] = []
    const down: Tile[] = []
    for (const [index, s] of own.entries()) {
      const segment = segmentHeads(a, s)
      if (a.gated) inputs.push(...weights.tiles(put(layer(s).outputGate, s), 0, columns.gate + (segment.start - plan.segmentStart) * a.valueDim))
      if (a.factors) inputs.push(...weights.tiles(put(layer(s).coefficients, s), 0, columns.coefficients[index] as number))
      if (a.absorbed) {
        const { start } = shardHeads(a, s)
        const [up, out] = [put(layer(s).keyUp, s), put(layer(s).valueUp, s)]
        for (const unit of unitsOf(a, s)) {
          for (let head = unit.headStart; head < unit.headEnd; head++) {
            const where = placedOf(unit.stream, head)
            if (!where) throw new RangeError(`no unit has head ${head}`)
            const place = where.out + head - where.headStart
            const b = head - start
            keyUp.push(...weights.tilesOf(up, b, (head - plan.headStart) * paddedWidth, place * keyPad))
            valueUp.push(...weights.tilesOf(out, b, place * pad, s * T * a.heads * a.valueDim + b * a.valueDim))
          }
        }
      }
      attentionOut.push(...weights.tiles(put(layer(s).attentionOut, s), (segment.start - plan.segmentStart) * a.valueDim, s * T * embed))
      gateUp.push(...weights.tiles(put(layer(s).gateUp, s), 0, index * 2 * plan.mlpWidth, plan.mlpWidth))
      down.push(...weights.tiles(put(layer(s).down, s), index * plan.mlpWidth, s * T * embed))
    }
    return { weights, tiles: { inputs, queryB, keyUp, valueUp, attentionOut, gateUp, down } }
  })
  const headWeights = new WeightPlan(plan.layout)
  const headTiles: Tile[] = []
  for (const s of own) {
    const { head } = shards[s] as ShardLayout
    headWeights.place(head, shardMemory(s))
    sharded += head.bytes
    headTiles.push(...headWeights.tiles(head, 0, cut(shape.vocab, s) - cut(shape.vocab, own[0] as number)))
  }
  return { layers, head: { weights: headWeights, tiles: headTiles }, shardedBytes: sharded, replicatedBytes: replicated }
}

function shardMemory(index: number): MemoryName {
  return { kind: 'shard', index }
}
