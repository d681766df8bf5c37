// Checkpoints that `tetrad convert` wrote: a safetensors file whose U8 tensors are the shards' matrices as they lie in memory,
// beside the original tensors of what ranks hold of their own (norms, shared rows). Loaded without repacking.
import type { PackedMatrix } from '../../../kernels/packing.js'
import type { ModelLayout } from '../../../workers/layout/model-layout.js'
import type { MemoryName } from '../../../workers/protocol.js'
import { CheckpointError } from '../../errors.js'
import type { Variant } from '../families/family.js'
import type { LoweredModel } from '../lower-model.js'
import { CheckpointTensors, shardMemory, type TensorFinder, type TensorPlan } from './planner.js'
import { planTensors } from './shard-plan.js'
import type { TensorSource } from './tensor-source.js'

/** A packed matrix in a file and where it goes, byte for byte. */
export interface DirectPlan {
  readonly source: TensorSource
  readonly memory: MemoryName
  readonly matrix: PackedMatrix
}

export interface PackedPlans {
  readonly tensors: readonly TensorPlan[]
  readonly direct: readonly DirectPlan[]
}

export interface NamedMatrix {
  readonly name: string
  readonly shard: number
  readonly matrix: PackedMatrix
}

/** Every matrix of the shards that holds anything, by its name in a packed file. */
export function packedMatrices(layout: ModelLayout): NamedMatrix[] {
  return layout.shards.flatMap(({ layers, head, embedding }, shard) => {
    const prefix = `packed.shard.${shard}.`
    const inLayers = layers.flatMap((layer, i) =>
      Object.entries(layer).map(([name, matrix]: [string, PackedMatrix]) => ({ name: `${prefix}layer.${i}.${name}`, shard, matrix })),
    )
    const tied = embedding === head ? [] : [{ name: `${prefix}embedding`, shard, matrix: embedding }]
    return [...inLayers, { name: `${prefix}head`, shard, matrix: head }, ...tied].filter(({ matrix }) => matrix.bytes > 0)
  })
}

/** Splits the plan of a model in what goes to shards (packed) and what ranks hold of their own (original tensors). */
export function rankOwnedTensors(plans: readonly TensorPlan[]): TensorPlan[] {
  return plans
    .map((plan) => ({ ...plan, pieces: plan.pieces.filter((p) => p.memory.kind === 'rank') }))
    .filter((plan) => plan.pieces.length > 0 || plan.vectors.length > 0)
}

/** Plans every tensor of a packed checkpoint. Throws TENSOR_MISSING, TENSOR_SURPLUS or TENSOR_SHAPE. */
export function planPacked(tensors: ReadonlyMap<string, TensorSource>, model: LoweredModel, variant: Variant, layout: ModelLayout): PackedPlans {
  const checked = new CheckpointTensors(tensors)
  const direct = packedMatrices(layout).map(({ name, shard, matrix }) => ({
    source: checked.find(name, [matrix.bytes], 'u8'),
    memory: shardMemory(shard),
    matrix,
  }))
  // A tensor that only shards hold is not in the file; what ranks need of it must be.
  const absent = new Set<TensorSource>()
  const finder: TensorFinder = {
    has: (name) => tensors.has(name),
    find: (name, shape) => {
      if (tensors.has(name)) return checked.find(name, shape)
      const none = { name, shape, path: '', file: { size: 0, mtimeMs: 0, ino: 0 }, offset: 0, dtype: 'f32' } as const
      absent.add(none)
      return none
    },
  }
  const plans = rankOwnedTensors(planTensors(finder, model, variant, layout))
  const missing = plans.find((plan) => absent.has(plan.source))
  if (missing) {
    throw new CheckpointError('TENSOR_MISSING', {
      what: `the checkpoint has no ${missing.source.name}`,
      expected: `a tensor [${missing.source.shape.join(', ')}]`,
      remedy: 'Convert the original checkpoint again.',
    })
  }
  checked.checkSurplus()
  return { tensors: plans, direct }
}
