// gta: half of a key is the first half of its value, the other half a rope key that all heads share. Source: the authors' model/gta.py.
import type { ModelConfig } from '../model-config.js'
import { type AttentionContext, matrix, type PresetSize, part, type ShapeOf, type TensorSpec, type Variant, whole } from './family.js'
import { groupSizeOf, headDimOf, overKvHeads } from './geometry.js'
import { GPT } from './gpt.js'

const ROPE_KEY = 'W_rope_k.weight'
const KEYS_AND_VALUES = 'kv_proj.weight'

export const GTA: Variant = {
  name: 'gta',
  decoder: GPT,
  isPlain: true,
  matches: (_config: ModelConfig, shapeOf: ShapeOf) => shapeOf(ROPE_KEY) !== undefined,
  lower(config: ModelConfig, shapeOf: ShapeOf) {
    const width = headDimOf(config, 4)
    const groupSize = groupSizeOf(config, shapeOf(KEYS_AND_VALUES)?.[0], width)
    return {
      attention: overKvHeads(config, groupSize, {
        nopeDim: width / 2,
        ropeDim: width / 2,
        valueDim: width,
        stream: { width, keyWidth: width / 2, valueOffset: 0, valueWidth: width, normWidth: 0, ropeVectors: 0 },
        sharedRopeDim: width / 2,
      }),
    }
  },
  tensors({ attention: a, embed }: AttentionContext): TensorSpec[] {
    const { width } = a.stream
    const streams = Array.from({ length: a.streams }, (_, j) =>
      part({ row: j * width, rows: width, col: 0, cols: embed }, { name: 'stream', stream: j }),
    )
    return [
      whole('c_q.weight', [a.heads * a.valueDim, embed], { name: 'queryB' }),
      matrix(KEYS_AND_VALUES, [a.streams * width, embed], streams),
      whole(ROPE_KEY, [a.sharedRopeDim, embed], { name: 'ropeKey' }),
    ]
  },
  presetFields: ({ headDim }: PresetSize) => ({ head_dim: headDim, group_size: 4 }),
}
