// Which part of which tensor goes where: the authors' key names on one side, the model layout on the other.
// Reads no data. A tensor that is missing, surplus or of another shape is named here.
import { inBatch, type PackedMatrix } from '../../../kernels/packing.js'
import { cut } from '../../../workers/layout/cuts.js'
import type { ModelLayout } from '../../../workers/layout/model-layout.js'
import type { RankLayout } from '../../../workers/layout/rank-layout.js'
import type { ShardLayer } from '../../../workers/layout/shard-layout.js'
import type { Variant } from '../attention-variants.js'
import type { LoweredModel } from '../lower-model.js'
import { planAttention } from './attention-tensors.js'
import { CheckpointTensors, columnsOf, eachShard, Planner, rankMemory, rowsOf, shardMemory, type TensorFinder, type TensorPlan } from './planner.js'
import type { TensorSource } from './tensor-source.js'

/** Plans every tensor of the checkpoint. Throws TENSOR_MISSING, TENSOR_SURPLUS or TENSOR_SHAPE. */
export function planShards(tensors: ReadonlyMap<string, TensorSource>, model: LoweredModel, variant: Variant, layout: ModelLayout): TensorPlan[] {
  const finder = new CheckpointTensors(tensors)
  const plans = planTensors(finder, model, variant, layout)
  finder.checkSurplus()
  return plans
}

/** Asks the finder for every tensor of the model, in the order of the authors' state dicts. */
export function planTensors(finder: TensorFinder, model: LoweredModel, variant: Variant, layout: ModelLayout): TensorPlan[] {
  const { shape } = model
  const { embed, intermediate } = shape
  const planner = new Planner(finder)

  for (let i = 0; i < shape.layers; i++) {
    const prefix = `transformer.h.${i}.`
    const shard = (s: number) => layout.shards[s]?.layers[i] as ShardLayer
    const ranks = layout.ranks.map((rank) => ({ layout: rank, layer: rank.layers[i] as RankLayout['layers'][number] }))
    for (const [name, pick] of [
      ['input_layernorm.weight', 'inputNorm'],
      ['post_attention_layernorm.weight', 'mlpNorm'],
    ] as const) {
      planner.vector(
        prefix + name,
        embed,
        ranks.map(({ layer }, r) => ({ memory: rankMemory(r), ptr: layer[pick], factor: 1 })),
      )
    }
    planAttention({ planner, model, prefix: `${prefix}attn.`, shard, ranks }, variant)
    planner.matrix(
      `${prefix}mlp.c_fc1.weight`,
      [intermediate, embed],
      eachShard((s) => [rowsOf(shardMemory(s), inBatch(shard(s).gateUp, 0), cut(intermediate, s))]),
    )
    planner.matrix(
      `${prefix}mlp.c_fc2.weight`,
      [intermediate, embed],
      eachShard((s) => [rowsOf(shardMemory(s), inBatch(shard(s).gateUp, 1), cut(intermediate, s))]),
    )
    planner.matrix(
      `${prefix}mlp.c_proj.weight`,
      [embed, intermediate],
      eachShard((s) => [columnsOf(shardMemory(s), shard(s).down, cut(intermediate, s))]),
    )
  }
  planner.vector(
    'layernorm.weight',
    embed,
    layout.ranks.map((rank, r) => ({ memory: rankMemory(r), ptr: rank.finalNorm, factor: 1 })),
  )

  if (!shape.tiedHead) {
    const rows = (pick: 'head' | 'embedding') =>
      eachShard((s) => [rowsOf(shardMemory(s), (layout.shards[s] as ModelLayout['shards'][number])[pick], cut(shape.vocab, s))])
    planner.matrix('lm_head.weight', [shape.vocab, embed], rows('head'))
    planner.matrix('transformer.wte.weight', [shape.vocab, embed], rows('embedding'))
    return planner.plans
  }
  // Tied: either name or both; the first is loaded.
  const tied = ['lm_head.weight', 'transformer.wte.weight'].filter((name) => finder.has(name))
  const head = eachShard((s) => {
    const { head, embedding } = layout.shards[s] as ModelLayout['shards'][number]
    return [...new Set<PackedMatrix>([head, embedding])].map((matrix) => rowsOf(shardMemory(s), matrix, cut(shape.vocab, s)))
  })
  planner.matrix(tied[0] ?? 'lm_head.weight', [shape.vocab, embed], head)
  if (tied[1]) planner.skip(tied[1], [shape.vocab, embed])
  return planner.plans
}
