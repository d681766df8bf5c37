// Keys and values of n_head / group_size heads, cached as they are: mha, gqa, mqa and mfa (one key and value head, queries from a latent
// that all heads share). Source: the authors' model/*.py.
import type { ModelConfig } from '../model-config.js'
import {
  type AttentionContext,
  type LoweredAttention,
  matrix,
  norm,
  type PresetSize,
  part,
  type ShapeOf,
  type TensorSpec,
  type Variant,
  whole,
} from './family.js'
import { groupSizeOf, headDimOf, need, overKvHeads } from './geometry.js'
import { GPT } from './gpt.js'

const KEYS = 'c_k.weight'
const GATE = 'c_gated.weight'
const SHARED_QUERY = 'w_q.weight'

interface GroupedRow {
  readonly name: string
  /** Heads per key and value head, of n, when it is not config.json's group_size. */
  readonly groupSize?: (heads: number) => number
  readonly gated?: boolean
  /** Queries come from a normed latent of share_q_dim. */
  readonly sharedQuery?: boolean
}

class GroupedVariant implements Variant {
  readonly name: string
  readonly decoder = GPT
  readonly isPlain: boolean
  readonly #row: GroupedRow

  constructor(row: GroupedRow) {
    this.name = row.name
    this.#row = row
    this.isPlain = !row.gated
  }

  matches(config: ModelConfig, shapeOf: ShapeOf): boolean {
    const { groupSize, gated = false, sharedQuery = false } = this.#row
    const keys = shapeOf(KEYS)
    if (!keys || (shapeOf(GATE) !== undefined) !== gated || (shapeOf(SHARED_QUERY) !== undefined) !== sharedQuery) return false
    if (sharedQuery || gated || !groupSize) return true
    return keys[0] === (config.heads / groupSize(config.heads)) * (config.dims.headDim ?? 0)
  }

  lower(config: ModelConfig, shapeOf: ShapeOf): LoweredAttention {
    const { groupSize, gated = false, sharedQuery } = this.#row
    const width = headDimOf(config, 2)
    const heads = groupSize ? groupSize(config.heads) : groupSizeOf(config, shapeOf(KEYS)?.[0], width)
    const attention = overKvHeads(config, heads, {
      nopeDim: 0,
      ropeDim: width,
      valueDim: width,
      stream: { width: 2 * width, keyWidth: width, valueOffset: width, valueWidth: width, normWidth: 0, ropeVectors: 1 },
      sharedRopeDim: 0,
    })
    const shared = sharedQuery ? { queryRank: need(config, 'shareQueryDim'), queryNormed: true } : {}
    return { attention: { ...attention, ...shared, gated } }
  }

  tensors({ attention: a, embed, queryNormFactor }: AttentionContext): TensorSpec[] {
    const width = a.valueDim
    const rows = a.heads * width
    const perStream = (offset: number) =>
      Array.from({ length: a.streams }, (_, j) => part({ row: j * width, rows: width, col: 0, cols: embed }, { name: 'stream', stream: j }, offset))
    return [
      ...(this.#row.sharedQuery
        ? [
            norm('q_layernorm.weight', a.queryRank, { vector: 'query' }, queryNormFactor),
            whole('c_q.weight', [a.queryRank, embed], { name: 'queryA' }),
            whole(SHARED_QUERY, [rows, a.queryRank], { name: 'queryB' }, { init: { inputScale: queryNormFactor } }),
          ]
        : [whole('c_q.weight', [rows, embed], { name: 'queryB' })]),
      matrix(KEYS, [a.streams * width, embed], perStream(0)),
      matrix('c_v.weight', [a.streams * width, embed], perStream(width)),
      ...(a.gated ? [whole(GATE, [rows, embed], { name: 'outputGate' })] : []),
    ]
  }

  presetFields({ heads, headDim, shareQueryDim }: PresetSize): Record<string, number> {
    if (this.#row.sharedQuery) return { head_dim: 2 * headDim, share_q_dim: shareQueryDim }
    return { head_dim: headDim, group_size: this.#row.groupSize?.(heads) ?? 4 }
  }
}

export const GROUPED_VARIANTS: readonly Variant[] = [
  new GroupedVariant({ name: 'mha', groupSize: () => 1 }),
  new GroupedVariant({ name: 'gqa' }),
  new GroupedVariant({ name: 'gqa_gated', gated: true }),
  // The authors have no model file of this name: their mqa is gqa in one group, and is detected as that.
  new GroupedVariant({ name: 'mqa', groupSize: (heads) => heads }),
  new GroupedVariant({ name: 'mfa', groupSize: (heads) => heads, sharedQuery: true }),
]
