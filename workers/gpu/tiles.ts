// Which tiles of packed weights a rank's products take, in which buffer they lie, and where their inputs and outputs are.
import type { SharedMemory } from '../../kernels/backend.js'
import { cacheWidth, rankHeads, segmentHeads, shardHeads, unitsOf } from '../layout/attention-plan.js'
import { cut } from '../layout/cuts.js'
import type { ModelLayout } from '../layout/model-layout.js'
import type { RankLayout } from '../layout/rank-layout.js'
import type { ShardLayout } from '../layout/shard-layout.js'
import { SHARDS } from '../protocol.js'
import type { AttentionPlan } from './attention-plan.js'
import type { GpuPlan } from './plan.js'
import { WeightBuffer } from './weights.js'

type Tiles = readonly (readonly number[])[]

export interface GpuLayerPlan {
  readonly buffer: WeightBuffer
  readonly tiles: {
    readonly inputs: Tiles
    readonly queryB: Tiles
    readonly keyUp: Tiles
    readonly valueUp: Tiles
    readonly attentionOut: Tiles
    readonly gateUp: Tiles
    readonly down: Tiles
  }
}

export interface TilePlan {
  readonly layers: readonly GpuLayerPlan[]
  readonly head: { readonly buffer: WeightBuffer; readonly tiles: Tiles }
  readonly shardedBytes: number
  readonly replicatedBytes: number
}

type Planned = Pick<GpuPlan, 'a' | 'shape' | 'own' | 'columns' | 'contextWidth' | 'stepRows' | 'headStart' | 'segmentStart' | 'mlpWidth'>

export function planTiles(
  plan: Planned,
  placed: AttentionPlan['placed'],
  layout: ModelLayout,
  mine: RankLayout,
  memories: { readonly shards: readonly SharedMemory[]; readonly rank: SharedMemory },
): TilePlan {
  const { a, shape, own, columns } = plan
  const { embed } = shape
  const fromLatent = a.queryRank > 0 && !a.factors
  const queryRows = a.factors ? a.factors.queryRank : a.nopeDim + a.ropeDim
  const paddedWidth = cacheWidth(a.nopeDim) + cacheWidth(a.ropeDim)
  const shards = layout.shards
  const keyPad = cacheWidth(a.stream.keyWidth)
  const pad = plan.contextWidth
  const T = plan.stepRows
  const placedOf = (stream: number, head: number) => placed.find((u) => u.stream === stream && head >= u.headStart && head < u.headEnd)
  let sharded = 0
  let replicated = mine.weightBytes
  const layers = mine.layers.map((rankLayer, i) => {
    const buffer = new WeightBuffer()
    const layer = (s: number) => (shards[s] as ShardLayout).layers[i] as ShardLayout['layers'][number]
    const memory = (s: number) => memories.shards[s] as SharedMemory
    const put = (matrix: ReturnType<typeof layer>['queryA'], s: number) => {
      buffer.place(matrix, memory(s))
      if (own.includes(s)) sharded += matrix.bytes
      else replicated += matrix.bytes
      return matrix
    }
    const inputs: number[][] = []
    const queryB: number[][] = []
    const every = Array.from({ length: SHARDS }, (_, s) => s)
    if (a.queryRank > 0) for (const s of every) inputs.push(...buffer.tiles(put(layer(s).queryA, s), 0, cut(a.queryRank, s)))
    let at = columns.streams
    for (const s of own) {
      inputs.push(...buffer.tiles(put(layer(s).streams, s), 0, at))
      at += layer(s).streams.rows
    }
    buffer.place(rankLayer.shared, memories.rank)
    // Shared streams, then the rope key: as the columns are.
    inputs.push(...buffer.tiles(rankLayer.shared, 0, at))
    const range = rankHeads(a, own)
    for (const s of every) {
      const { start, end: stop } = segmentHeads(a, s)
      if (stop <= range.start || start >= range.end || stop === start) continue
      const matrix = put(layer(s).queryB, s)
      if (fromLatent) queryB.push(...buffer.tiles(matrix, a.queryNormed ? 0 : columns.queryA, start * queryRows))
      else inputs.push(...buffer.tiles(matrix, 0, columns.queryB + start * queryRows))
    }
    const keyUp: number[][] = []
    const valueUp: number[][] = []
    const attentionOut: number[][] = []
    const gateUp: number[][] = []
    const down: number[][] = []
    for (const [index, s] of own.entries()) {
      const segment = segmentHeads(a, s)
      if (a.gated) inputs.push(...buffer.tiles(put(layer(s).outputGate, s), 0, columns.gate + (segment.start - plan.segmentStart) * a.valueDim))
      if (a.factors) inputs.push(...buffer.tiles(put(layer(s).coefficients, s), 0, columns.coefficients[index] as number))
      if (a.absorbed) {
        const { start } = shardHeads(a, s)
        const [up, out] = [put(layer(s).keyUp, s), put(layer(s).valueUp, s)]
        for (const unit of unitsOf(a, s)) {
          for (let head = unit.headStart; head < unit.headEnd; head++) {
            const where = placedOf(unit.stream, head)
            if (!where) throw new RangeError(`no unit has head ${head}`)
            const place = where.out + head - where.headStart
            const b = head - start
            keyUp.push(...buffer.tilesOf(up, b, (head - plan.headStart) * paddedWidth, place * keyPad))
            valueUp.push(...buffer.tilesOf(out, b, place * pad, s * T * a.heads * a.valueDim + b * a.valueDim))
          }
        }
      }
      attentionOut.push(...buffer.tiles(put(layer(s).attentionOut, s), (segment.start - plan.segmentStart) * a.valueDim, s * T * embed))
      gateUp.push(...buffer.tiles(put(layer(s).gateUp, s), 0, index * 2 * plan.mlpWidth, plan.mlpWidth))
      down.push(...buffer.tiles(put(layer(s).down, s), index * plan.mlpWidth, s * T * embed))
    }
    return { buffer, tiles: { inputs, queryB, keyUp, valueUp, attentionOut, gateUp, down } }
  })
  const headBuffer = new WeightBuffer()
  const headTiles: number[][] = []
  for (const s of own) {
    const { head } = shards[s] as ShardLayout
    headBuffer.place(head, memories.shards[s] as SharedMemory)
    sharded += head.bytes
    headTiles.push(...headBuffer.tiles(head, 0, cut(shape.vocab, s) - cut(shape.vocab, own[0] as number)))
  }
  return { layers, head: { buffer: headBuffer, tiles: headTiles }, shardedBytes: sharded, replicatedBytes: replicated }
}
