// The tensors of a checkpoint by name and shape, and how large random weights of each must be. What synth writes.
import type { MatrixSpec, Variant } from '../../model/families/family.js'
import { modelTensors } from '../../model/families/model-tensors.js'
import type { LoweredModel } from '../../model/lower-model.js'

export interface DescribedTensor {
  readonly name: string
  readonly shape: readonly number[]
  /** Standard deviation of random weights that keeps activations at a size of about 1 at any depth; 0: a norm, whose weights are 1. */
  readonly deviation: number
}

/** Of biases: small beside what they are added to. */
const BIAS_DEVIATION = 0.1

/** In the order of state dicts; a matrix that is embedding and head once. */
export function describeTensors(model: LoweredModel, variant: Variant): DescribedTensor[] {
  return modelTensors(model, variant).map((spec) => ({
    name: spec.name,
    shape: spec.shape,
    deviation: spec.kind === 'matrix' ? deviationOf(spec, model) : spec.kind === 'bias' ? BIAS_DEVIATION : 0,
  }))
}

function deviationOf({ init, inputs }: MatrixSpec, model: LoweredModel): number {
  const { layers, embed } = model.shape
  // Logits of deviation 1, and no token much likelier after itself where the embedding is the head.
  if (init === 'embedding') return 1 / Math.sqrt(embed)
  // 2 * layers blocks add to the residual.
  if (init === 'residual') return 1 / Math.sqrt(inputs * 2 * layers)
  return 1 / (Math.sqrt(inputs) * init.inputScale)
}
