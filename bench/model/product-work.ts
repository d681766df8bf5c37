// What the matrix products and the attention of a model are, counted from its shape: for floors of steps of many rows.
import { variantNamed } from '../../src/model/attention-variants.js'
import { elements } from '../../src/model/checkpoint/tensor-source.js'
import type { LoweredModel } from '../../src/model/lower-model.js'
import { describeTensors } from '../../src/tools/synth/describe-tensors.js'
import { rankUnits } from '../../workers/layout/attention-plan.js'

/** Rows and columns of a matrix of weights. */
export type MatrixShape = readonly [rows: number, cols: number]

export interface ProductWork {
  /** Matrices of one layer as the checkpoint has them, and the output projection. */
  readonly layer: readonly MatrixShape[]
  readonly head: MatrixShape
  readonly layers: number
  /** Floating-point operations of a row: in all layers, in the output projection, and for each cached token in the attention of all layers. */
  readonly layerFlops: number
  readonly headFlops: number
  readonly attentionFlops: number
}

/** Factored attention (tpa) counts as one vector for each head. */
export function productWork(model: LoweredModel, variant: string): ProductWork {
  const { shape } = model
  const { attention: a, embed, vocab, layers } = shape
  const layer = describeTensors(model, variantNamed(variant))
    .filter((tensor) => tensor.shape.length > 1 && /(^|\.)h\.0\./.test(tensor.name))
    .map(({ shape }): MatrixShape => [elements(shape.slice(0, -1)), shape.at(-1) as number])
  const perToken = rankUnits(a, [0, 1, 2, 3]).reduce(
    (sum, { headStart, headEnd }) => sum + (headEnd - headStart) * (a.stream.keyWidth + a.sharedRopeDim + a.stream.valueWidth),
    0,
  )
  return {
    layer,
    head: [vocab, embed],
    layers,
    layerFlops: 2 * layers * layer.reduce((sum, of) => sum + elements(of), 0),
    headFlops: 2 * vocab * embed,
    attentionFlops: 2 * layers * perToken,
  }
}
