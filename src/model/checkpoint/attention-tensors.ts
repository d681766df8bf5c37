// The authors' key names under `attn.` and where their rows and columns go, one function per family of variants.
// The rest of the model is shard-plan.ts's.
import type { PackedMatrix } from '../../../kernels/packing.js'
import { ownStreams, segmentHeads, shardHeads, sharedStreams, unitsOf } from '../../../workers/layout/attention-plan.js'
import { cut } from '../../../workers/layout/cuts.js'
import type { RankLayout } from '../../../workers/layout/rank-layout.js'
import type { ShardLayer } from '../../../workers/layout/shard-layout.js'
import type { AttentionShape, MatrixPiece, ModelShape } from '../../../workers/protocol.js'
import type { Variant } from '../attention-variants.js'
import type { LoweredModel } from '../lower-model.js'
import { columnsOf, eachShard, type Planner, piece, rankMemory, rowsOf, shardMemory } from './planner.js'

/** One layer's attention as its tensors are planned. */
export interface AttentionLayer {
  readonly planner: Planner
  readonly model: LoweredModel
  /** `transformer.h.<i>.attn.` */
  readonly prefix: string
  readonly shard: (s: number) => ShardLayer
  readonly ranks: readonly { readonly layout: RankLayout; readonly layer: RankLayout['layers'][number] }[]
}

export function planAttention(layer: AttentionLayer, variant: Variant): void {
  switch (variant.tensors) {
    case 'latent':
      planLatent(layer, variant)
      break
    case 'grouped':
      planGrouped(layer, variant)
      break
    case 'tied':
      planTied(layer)
      break
    case 'factored':
      planFactored(layer)
  }
  const { planner, prefix, model, shard } = layer
  const { embed, attention: a } = model.shape
  planner.matrix(
    `${prefix}c_proj.weight`,
    [embed, a.heads * a.valueDim],
    eachShard((s) => [columnsOf(shardMemory(s), shard(s).attentionOut, segmentHeads(a, s).start * a.valueDim)]),
  )
}

type LatentVariant = Extract<Variant, { tensors: 'latent' }>

function planLatent(layer: AttentionLayer, variant: LatentVariant): void {
  const { planner, prefix, model } = layer
  const { embed, attention: a } = model.shape
  const queryWidth = a.nopeDim + a.ropeDim
  const { width } = a.stream
  queryLatent(layer, 'q_a_proj.weight', 'q_a_layernorm.weight')
  queries(layer, 'q_b_proj.weight', queryWidth, a.queryRank)
  for (let l = 0; l < a.streams; l++) streamNorm(layer, variant.normKey(l), l)
  const latents = a.streams * width
  planner.matrix(
    `${prefix}kv_a_proj_with_mqa.weight`,
    [latents + a.ropeDim, embed],
    [...Array.from({ length: a.streams }, (_, l) => streamRows(layer, l, 0, l * width, width)).flat(), ...ropeRows(layer, latents)],
  )
  const served = (l: number) => {
    const [start, end] = variant.headsOf(l, a.heads)
    return (end - start) * 2 * a.nopeDim
  }
  const { upKey } = variant
  if (typeof upKey === 'string') {
    planner.matrix(
      prefix + upKey,
      [a.streams, width, served(0)],
      eachShard((s) => upPieces(layer, variant, s, undefined)),
    )
  } else {
    for (let l = 0; l < a.streams; l++) {
      planner.matrix(
        prefix + upKey(l),
        [served(l), width],
        eachShard((s) => upPieces(layer, variant, s, l)),
      )
    }
  }
  if (variant.gated) gate(layer, 'gated_proj.weight')
}

/** W_UK and W_UV of a shard's heads: from the stacked parameter, or (`only`) from the Linear weight of one latent. */
function upPieces({ shard, model }: AttentionLayer, variant: LatentVariant, s: number, only: number | undefined): MatrixPiece[] {
  const a = model.shape.attention
  const { nopeDim } = a
  const { width } = a.stream
  const { keyUp, valueUp } = shard(s)
  const memory = shardMemory(s)
  const first = shardHeads(a, s).start
  return unitsOf(a, s)
    .filter(({ stream }) => only === undefined || stream === only)
    .flatMap(({ stream, headStart, headEnd }) =>
      Array.from({ length: headEnd - headStart }, (_, i) => {
        const at = (headStart + i - variant.headsOf(stream, a.heads)[0]) * 2 * nopeDim
        const h = headStart + i - first
        const area = (value: number) =>
          only === undefined
            ? { row: stream * width, rows: width, col: at + value, cols: nopeDim }
            : { row: at + value, rows: nopeDim, col: 0, cols: width }
        return [
          { ...piece(memory, keyUp, area(0)), ptr: keyUp.ptr + h * keyUp.batchBytes, transposed: only !== undefined },
          { ...piece(memory, valueUp, area(nopeDim)), ptr: valueUp.ptr + h * valueUp.batchBytes, transposed: only === undefined },
        ]
      }).flat(),
    )
}

function planGrouped(layer: AttentionLayer, variant: Extract<Variant, { tensors: 'grouped' }>): void {
  const { planner, prefix, model } = layer
  const { embed, attention: a } = model.shape
  const width = a.valueDim
  if (variant.sharedQuery) {
    queryLatent(layer, 'c_q.weight', 'q_layernorm.weight')
    queries(layer, 'w_q.weight', width, a.queryRank)
  } else queries(layer, 'c_q.weight', width, embed)
  for (const [key, offset] of [
    ['c_k.weight', 0],
    ['c_v.weight', width],
  ] as const) {
    planner.matrix(
      prefix + key,
      [a.streams * width, embed],
      Array.from({ length: a.streams }, (_, j) => streamRows(layer, j, offset, j * width, width)).flat(),
    )
  }
  if (variant.gated) gate(layer, 'c_gated.weight')
}

function planTied(layer: AttentionLayer): void {
  const { planner, prefix, model } = layer
  const { embed, attention: a } = model.shape
  const { width } = a.stream
  queries(layer, 'c_q.weight', a.valueDim, embed)
  planner.matrix(
    `${prefix}kv_proj.weight`,
    [a.streams * width, embed],
    Array.from({ length: a.streams }, (_, j) => streamRows(layer, j, 0, j * width, width)).flat(),
  )
  planner.matrix(`${prefix}W_rope_k.weight`, [a.sharedRopeDim, embed], ropeRows(layer, 0))
}

function planFactored(layer: AttentionLayer): void {
  const { planner, prefix, model, shard } = layer
  const { embed, attention: a } = model.shape
  const { rank, queryRank } = a.factors as NonNullable<AttentionShape['factors']>
  const width = a.valueDim
  queries(layer, 'c_qkv.W_A_q.weight', queryRank, embed)
  for (const [j, key] of ['c_qkv.W_A_k.weight', 'c_qkv.W_A_v.weight'].entries()) {
    planner.matrix(
      prefix + key,
      [a.heads * rank, embed],
      eachShard((s) => {
        const { start, end } = shardHeads(a, s)
        // [heads, rank] in the file; by factor, then head, in the memory.
        return Array.from({ length: (end - start) * rank }, (_, i) => {
          const [h, r] = [Math.floor(i / rank), i % rank]
          const area = { row: (start + h) * rank + r, rows: 1, col: 0, cols: embed }
          return piece(shardMemory(s), shard(s).coefficients, area, (j * rank + r) * (end - start) + h)
        })
      }),
    )
  }
  planner.matrix(
    `${prefix}c_qkv.W_B_q.weight`,
    [a.queryRank, embed],
    eachShard((s) => [rowsOf(shardMemory(s), shard(s).queryA, cut(a.queryRank, s))]),
  )
  planner.matrix(`${prefix}c_qkv.W_B_k.weight`, [rank * width, embed], streamRows(layer, 0, 0, 0, rank * width))
  planner.matrix(`${prefix}c_qkv.W_B_v.weight`, [rank * width, embed], streamRows(layer, 0, a.stream.valueOffset, 0, rank * width))
}

function queryLatent({ planner, prefix, model, shard, ranks }: AttentionLayer, key: string, normKey: string): void {
  const { embed, attention: a } = model.shape
  planner.vector(
    prefix + normKey,
    a.queryRank,
    ranks.map(({ layer }, r) => ({ memory: rankMemory(r), ptr: layer.queryNorm, factor: model.queryNormFactor })),
  )
  planner.matrix(
    prefix + key,
    [a.queryRank, embed],
    eachShard((s) => [rowsOf(shardMemory(s), shard(s).queryA, cut(a.queryRank, s))]),
  )
}

/** `rows` of every head, cut by heads. */
function queries({ planner, prefix, model, shard }: AttentionLayer, key: string, rows: number, inputs: number): void {
  const a = model.shape.attention
  planner.matrix(
    prefix + key,
    [a.heads * rows, inputs],
    eachShard((s) => [rowsOf(shardMemory(s), shard(s).queryB, segmentHeads(a, s).start * rows)]),
  )
}

function gate({ planner, prefix, model, shard }: AttentionLayer, key: string): void {
  const { embed, attention: a } = model.shape
  planner.matrix(
    prefix + key,
    [a.heads * a.valueDim, embed],
    eachShard((s) => [rowsOf(shardMemory(s), shard(s).outputGate, segmentHeads(a, s).start * a.valueDim)]),
  )
}

function streamNorm({ planner, prefix, model, ranks }: AttentionLayer, key: string, stream: number): void {
  planner.vector(
    prefix + key,
    model.shape.attention.stream.width,
    ranks.flatMap(({ layout, layer }, r) => {
      const ptr = layer.streamNorms[layout.streams.findIndex((s) => s.stream === stream)]
      return ptr === undefined ? [] : [{ memory: rankMemory(r), ptr, factor: model.streamNormFactor }]
    }),
  )
}

/** `rows` source rows from `row` on as columns offset.. of a cache stream: to its shard, or to every rank that shares it. */
function streamRows({ model, shard, ranks }: AttentionLayer, stream: number, offset: number, row: number, rows: number): MatrixPiece[] {
  const { attention: a, embed } = model.shape
  const area = { row, rows, col: 0, cols: embed }
  const into = (memory: MatrixPiece['memory'], matrix: PackedMatrix, index: number) => piece(memory, matrix, area, index * a.stream.width + offset)
  const own = eachShard((s) => {
    const index = ownStreams(a, s).indexOf(stream)
    return index < 0 ? [] : [into(shardMemory(s), shard(s).streams, index)]
  })
  const shared = ranks.flatMap(({ layout, layer }, r) => {
    const index = sharedStreams(a, layout.shards).indexOf(stream)
    return index < 0 ? [] : [into(rankMemory(r), layer.shared, index)]
  })
  return [...own, ...shared]
}

/** The rope key that all heads share, after the shared streams. */
function ropeRows({ model, ranks }: AttentionLayer, row: number): MatrixPiece[] {
  const { attention: a, embed } = model.shape as ModelShape
  return ranks.map(({ layout, layer }, r) =>
    piece(rankMemory(r), layer.shared, { row, rows: a.sharedRopeDim, col: 0, cols: embed }, sharedStreams(a, layout.shards).length * a.stream.width),
  )
}
