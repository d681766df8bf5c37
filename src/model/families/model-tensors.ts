// All tensors of a model by their names in its files, from the decoder's names and the variant's attention.
import type { LoweredModel } from '../lower-model.js'
import { norm, type TensorSpec, type Variant, whole } from './family.js'

/** In the order of state dicts: layers, final norm, head. */
export function modelTensors({ shape, queryNormFactor, streamNormFactor, pairedRope }: LoweredModel, variant: Variant): TensorSpec[] {
  const { names } = variant.decoder
  const { attention, embed, intermediate, vocab } = shape
  const outputs = attention.heads * attention.valueDim
  const attentionTensors = [
    ...variant.tensors({ attention, embed, queryNormFactor, streamNormFactor, pairedRope }),
    whole(names.attentionOut, [embed, outputs], { name: 'attentionOut' }, { init: 'residual' }),
  ]
  const layer = [
    norm(names.inputNorm, embed, { vector: 'input' }),
    norm(names.mlpNorm, embed, { vector: 'mlp' }),
    ...attentionTensors.map((tensor) => ({ ...tensor, name: names.attention + tensor.name })),
    whole(names.gate, [intermediate, embed], { name: 'gate' }),
    whole(names.up, [intermediate, embed], { name: 'up' }),
    whole(names.down, [embed, intermediate], { name: 'down' }, { init: 'residual' }),
  ]
  const embedding = (name: string, into: 'head' | 'embedding', alias?: string) =>
    whole(name, [vocab, embed], { name: into }, { init: 'embedding', ...(alias === undefined ? {} : { alias }) })
  return [
    ...Array.from({ length: shape.layers }, (_, i) => layer.map((tensor) => ({ ...tensor, layer: i, name: names.layer(i) + tensor.name }))).flat(),
    norm(names.finalNorm, embed, { vector: 'final' }),
    ...(shape.tiedHead
      ? [names.tied === 'head' ? embedding(names.head, 'head', names.embedding) : embedding(names.embedding, 'head', names.head)]
      : [embedding(names.head, 'head'), embedding(names.embedding, 'embedding')]),
  ]
}

/** Elements of all tensors; a matrix that serves twice counts once. */
export function countParameters(model: LoweredModel, variant: Variant): number {
  return modelTensors(model, variant).reduce((sum, { shape }) => sum + shape.reduce<number>((n, d) => n * d, 1), 0)
}
