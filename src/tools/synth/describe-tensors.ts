// Every tensor that a model of a variant has, without a checkpoint: what the shard plan would ask one for.
import { layoutModel } from '../../../workers/layout/model-layout.js'
import type { Variant } from '../../model/attention-variants.js'
import { planTensors } from '../../model/checkpoint/shard-plan.js'
import type { TensorSource } from '../../model/checkpoint/tensor-source.js'
import type { LoweredModel } from '../../model/lower-model.js'

export interface DescribedTensor {
  readonly name: string
  readonly shape: readonly number[]
  /** Of random weights that keep activations at a size of about 1 at any depth; 0: a norm, whose weights are 1. */
  readonly deviation: number
}

/** In the order of the authors' state dicts; the tied embedding once, as lm_head.weight. */
export function describeTensors(model: LoweredModel, variant: Variant): DescribedTensor[] {
  const tensors: DescribedTensor[] = []
  const finder = {
    has: (name: string) => name === 'lm_head.weight',
    find: (name: string, shape: readonly number[]): TensorSource => {
      tensors.push({ name, shape, deviation: deviationOf(name, shape, model) })
      return { name, shape, dtype: 'f32', path: '', offset: 0, file: { size: 0, mtimeMs: 0, ino: 0 } } as TensorSource
    },
  }
  const layout = layoutModel(model.shape, {
    backend: 'wasm',
    gpu: undefined,
    simd: 'simd128',
    ranks: 1,
    weights: 'f32',
    embedding: 'f32',
    cache: 'f32',
    stepRows: 1,
    pages: 1,
    contextTokens: 1,
    slots: 1,
    pagesPerSlot: 1,
    replicate: { queryA: false, queryB: false },
  })
  planTensors(finder, model, variant, layout)
  return tensors
}

function deviationOf(name: string, shape: readonly number[], model: LoweredModel): number {
  if (shape.length === 1) return 0
  const { layers, embed } = model.shape
  // Tied with the embedding: logits of deviation 1, and no token much likelier after itself.
  if (name === 'lm_head.weight' || name === 'transformer.wte.weight') return 1 / Math.sqrt(embed)
  const stacked = shape.length === 3
  const fanIn = shape[stacked ? 1 : shape.length - 1] as number
  // 2 * layers blocks add to the residual.
  if (name.endsWith('c_proj.weight')) return 1 / Math.sqrt(fanIn * 2 * layers)
  // Inputs that were scaled after their norm are larger than 1.
  const factor = /\.q_b_proj\.|\.w_q\./.test(name) ? model.queryNormFactor : /\.kv_b_proj/.test(name) ? model.streamNormFactor : 1
  return 1 / (Math.sqrt(fanIn) * factor)
}
