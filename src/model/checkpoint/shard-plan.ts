// Which part of which tensor goes where: the family's tensors on one side, the memories on the other. Reads no data. A tensor that is
// missing, surplus or of another shape is named here.
import type { ModelLayout } from '../../../workers/layout/model-layout.js'
import type { MatrixSpec, Variant } from '../families/family.js'
import { modelTensors } from '../families/model-tensors.js'
import type { LoweredModel } from '../lower-model.js'
import { Placement } from './placement.js'
import { CheckpointTensors, type TensorFinder, type TensorPlan } from './planner.js'
import type { TensorSource } from './tensor-source.js'

/** Plans every tensor of the checkpoint. Throws TENSOR_MISSING, TENSOR_SURPLUS or TENSOR_SHAPE. */
export function planShards(tensors: ReadonlyMap<string, TensorSource>, model: LoweredModel, variant: Variant, layout: ModelLayout): TensorPlan[] {
  const finder = new CheckpointTensors(tensors)
  const plans = planTensors(finder, model, variant, layout)
  finder.checkSurplus()
  return plans
}

/** Asks the finder for every tensor of the model, in the order of state dicts. */
export function planTensors(finder: TensorFinder, model: LoweredModel, variant: Variant, layout: ModelLayout): TensorPlan[] {
  const placement = new Placement(model.shape, layout)
  return modelTensors(model, variant).map((spec) => {
    if (spec.kind === 'matrix') return planMatrix(spec, finder, placement)
    const [cols] = spec.shape
    return { source: finder.find(spec.name, spec.shape), rows: 1, cols, pieces: [], vectors: placement.vectors(spec) }
  })
}

function planMatrix(spec: MatrixSpec, finder: TensorFinder, placement: Placement): TensorPlan {
  const { name, alias, shape, parts, layer } = spec
  const first = alias !== undefined && !finder.has(name) && finder.has(alias) ? alias : name
  const source = finder.find(first, shape)
  // The other name of the same tensor: its shape must be right.
  if (alias !== undefined && first === name && finder.has(alias)) finder.find(alias, shape)
  const cols = shape.at(-1) as number
  const rows = shape.slice(0, -1).reduce((n, d) => n * d, 1)
  const pieces = parts.flatMap((part) => placement.pieces(part, layer)).filter((p) => p.rows > 0 && p.cols > 0)
  if (shape.length === 2 && source.strides?.[0] === 1 && source.strides[1] === rows) {
    // A transposed view of a contiguous matrix: read that one, and turn the pieces instead.
    const { strides: _, ...contiguous } = source
    const turned = pieces.map((p) => ({ ...p, row: p.col, rows: p.cols, col: p.row, cols: p.rows, transposed: !p.transposed }))
    return { source: contiguous, rows: cols, cols: rows, pieces: turned, vectors: [] }
  }
  return { source, rows, cols, pieces, vectors: [] }
}
