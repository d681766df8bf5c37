// Grouped keys and values as transformers has them: q_proj, k_proj and v_proj, with biases (Qwen2) or norms of queries and keys (Qwen3).
// Source: transformers 5.17, models/{llama,mistral,qwen2,qwen3}.
import { invalidConfig } from '../invalid-config.js'
import type { ModelConfig } from '../model-config.js'
import {
  type AttentionContext,
  bias,
  type Decoder,
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
import { groupSizeOf, headDimOf, keyOf, overKvHeads } from './geometry.js'
import { LLAMA, MISTRAL, QWEN2, QWEN3 } from './transformers.js'

const KEYS = 'k_proj.weight'

interface KeyValueRow {
  readonly biased?: boolean
  readonly headNormed?: boolean
  /** head_dim where config.json leaves it out; default: hidden_size by heads. */
  readonly headDim?: number
}

class KeyValueVariant implements Variant {
  readonly name: string
  readonly decoder: Decoder
  readonly isPlain = true
  readonly needs = KEYS
  readonly #row: KeyValueRow

  constructor(decoder: Decoder, row: KeyValueRow = {}) {
    this.name = decoder.name
    this.decoder = decoder
    this.#row = row
  }

  matches(_config: ModelConfig, shapeOf: ShapeOf): boolean {
    return shapeOf(KEYS) !== undefined
  }

  lower(config: ModelConfig, shapeOf: ShapeOf): LoweredAttention {
    const { biased = false, headNormed = false } = this.#row
    const width = this.#headDim(config)
    const groupSize = groupSizeOf(config, shapeOf(KEYS)?.[0], width)
    return {
      attention: overKvHeads(config, groupSize, {
        nopeDim: 0,
        ropeDim: width,
        valueDim: width,
        stream: { width: 2 * width, keyWidth: width, valueOffset: width, valueWidth: width, normWidth: headNormed ? width : 0, ropeVectors: 1 },
        sharedRopeDim: 0,
        headNormed,
        biased,
      }),
    }
  }

  #headDim(config: ModelConfig): number {
    const { heads, embed } = config
    if (config.dims.headDim !== undefined) return headDimOf(config, 2)
    const width = this.#row.headDim ?? embed / heads
    if (Number.isInteger(width) && width % 2 === 0) return width
    throw invalidConfig(`${keyOf(config, 'headDim')} is missing`, 'an even width of a head, since hidden_size by heads is none', String(width))
  }

  tensors({ attention: a, embed }: AttentionContext): TensorSpec[] {
    const width = a.valueDim
    const [rows, kvRows] = [a.heads * width, a.streams * width]
    const { biased, headNormed } = this.#row
    const streams = Array.from({ length: a.streams }, (_, j) => j)
    const perStream = (at: number) =>
      streams.map((j) => part({ row: j * width, rows: width, col: 0, cols: embed }, { name: 'stream' as const, stream: j }, at))
    const biases = (at: number) => streams.map((j) => ({ start: j * width, count: width, into: { vector: 'streamBias', stream: j } as const, at }))
    return [
      whole('q_proj.weight', [rows, embed], { name: 'queryB' }),
      matrix(KEYS, [kvRows, embed], perStream(0)),
      matrix('v_proj.weight', [kvRows, embed], perStream(width)),
      ...(biased
        ? [
            bias('q_proj.bias', rows, [{ start: 0, count: rows, into: { vector: 'queryBias' }, at: 0 }]),
            bias('k_proj.bias', kvRows, biases(0)),
            bias('v_proj.bias', kvRows, biases(width)),
          ]
        : []),
      ...(headNormed
        ? [
            norm('q_norm.weight', width, { vector: 'head' }),
            {
              ...norm('k_norm.weight', width, { vector: 'head' }),
              parts: streams.map((j) => ({ start: 0, count: width, into: { vector: 'stream', stream: j } as const, at: 0 })),
            },
          ]
        : []),
    ]
  }

  presetFields({ heads, headDim }: PresetSize): Record<string, number> {
    return { head_dim: headDim, num_key_value_heads: Math.ceil(heads / 4) }
  }
}

export const KEY_VALUE_VARIANTS: readonly Variant[] = [
  new KeyValueVariant(LLAMA),
  new KeyValueVariant(MISTRAL),
  new KeyValueVariant(QWEN2, { biased: true }),
  new KeyValueVariant(QWEN3, { headNormed: true, headDim: 128 }),
]
