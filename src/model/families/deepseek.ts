// DeepSeek's multi-head latent attention: one latent of width kv_lora_rank that all heads attend, values of a width of their own, and
// rotary vectors that are stored as pairs. Source: transformers 5.17, models/{deepseek_v2,deepseek_v3}.
import { invalidConfig } from '../invalid-config.js'
import type { ModelConfig } from '../model-config.js'
import {
  type AttentionContext,
  type Decoder,
  type LogicalMatrix,
  type LoweredAttention,
  type MatrixPart,
  matrix,
  norm,
  type PresetSize,
  part,
  type ShapeOf,
  type TensorSpec,
  type Variant,
  whole,
} from './family.js'
import { cutsOf, eachShard, keyOf, need, unit } from './geometry.js'
import { DEEPSEEK_V2, DEEPSEEK_V3 } from './transformers.js'

/** The norms of latents have this epsilon, whatever rms_norm_eps is. */
const LATENT_NORM_EPS = 1e-6
const UP = 'kv_b_proj.weight'

class DeepSeekVariant implements Variant {
  readonly name: string
  readonly decoder: Decoder
  readonly isPlain = true
  readonly needs = UP

  constructor(decoder: Decoder) {
    this.name = decoder.name
    this.decoder = decoder
  }

  matches(_config: ModelConfig, shapeOf: ShapeOf): boolean {
    return shapeOf(UP) !== undefined
  }

  lower(config: ModelConfig): LoweredAttention {
    const [kvRank, nopeDim, ropeDim] = [need(config, 'kvRank'), need(config, 'nopeDim'), need(config, 'ropeDim')]
    const { heads, rope } = config
    if (ropeDim % 2 !== 0) throw invalidConfig(`${keyOf(config, 'ropeDim')} is odd`, 'an even number', String(ropeDim))
    const queryRank = config.dims.queryRank ?? 0
    const headCuts = cutsOf(heads)
    const magnitude = rope.scaling?.type === 'yarn' ? rope.scaling.allMagnitude : 1
    return {
      attention: {
        heads,
        nopeDim,
        ropeDim,
        valueDim: need(config, 'valueDim'),
        queryRank,
        queryNormed: queryRank > 0,
        headNormed: false,
        biased: false,
        streams: 1,
        stream: { width: kvRank, keyWidth: kvRank, valueOffset: 0, valueWidth: kvRank, normWidth: kvRank, ropeVectors: 0 },
        absorbed: true,
        sharedRopeDim: ropeDim,
        factors: undefined,
        gated: false,
        units: eachShard((s) => unit(0, headCuts[s] as number, headCuts[s + 1] as number)),
        headCuts,
        scale: (nopeDim + ropeDim) ** -0.5 * magnitude ** 2,
        outputFactor: 1,
        normEps: LATENT_NORM_EPS,
      },
      pairedRope: config.pairedRope,
    }
  }

  tensors({ attention: a, embed, pairedRope }: AttentionContext): TensorSpec[] {
    const { heads, nopeDim, ropeDim, valueDim, queryRank } = a
    const kvRank = a.stream.width
    const perHead = nopeDim + ropeDim
    const inputs = queryRank > 0 ? queryRank : embed
    const query: LogicalMatrix = { name: 'queryB' }
    const queries = Array.from({ length: heads }, (_, h) => [
      part({ row: h * perHead, rows: nopeDim, col: 0, cols: inputs }, query, h * perHead),
      ...rotaryParts(pairedRope, ropeDim, h * perHead + nopeDim, inputs, query, h * perHead + nopeDim),
    ]).flat()
    const each = nopeDim + valueDim
    const up = Array.from({ length: heads }, (_, head) => [
      part({ row: head * each, rows: nopeDim, col: 0, cols: kvRank }, { name: 'keyUp', stream: 0, head }, 0, true),
      part({ row: head * each + nopeDim, rows: valueDim, col: 0, cols: kvRank }, { name: 'valueUp', stream: 0, head }),
    ]).flat()
    return [
      ...(queryRank > 0
        ? [
            whole('q_a_proj.weight', [queryRank, embed], { name: 'queryA' }),
            norm('q_a_layernorm.weight', queryRank, { vector: 'query' }),
            matrix('q_b_proj.weight', [heads * perHead, queryRank], queries),
          ]
        : [matrix('q_proj.weight', [heads * perHead, embed], queries)]),
      matrix(
        'kv_a_proj_with_mqa.weight',
        [kvRank + ropeDim, embed],
        [
          part({ row: 0, rows: kvRank, col: 0, cols: embed }, { name: 'stream', stream: 0 }),
          ...rotaryParts(pairedRope, ropeDim, kvRank, embed, { name: 'ropeKey' }, 0),
        ],
      ),
      norm('kv_a_layernorm.weight', kvRank, { vector: 'stream', stream: 0 }),
      matrix(UP, [heads * each, kvRank], up),
    ]
  }

  presetFields({ latent }: PresetSize): Record<string, number> {
    return {
      q_lora_rank: latent.queryRank(1),
      kv_lora_rank: latent.kvRank,
      qk_nope_head_dim: latent.nopeDim,
      qk_rope_head_dim: latent.ropeDim,
      v_head_dim: latent.nopeDim,
    }
  }
}

/** A rotary vector's rows. Ranks rotate halves: of stored pairs, first come the first of each, then the second. */
function rotaryParts(isPaired: boolean, dim: number, row: number, cols: number, into: LogicalMatrix, at: number): MatrixPart[] {
  if (!isPaired) return [part({ row, rows: dim, col: 0, cols }, into, at)]
  return Array.from({ length: dim }, (_, i) => part({ row: row + i, rows: 1, col: 0, cols }, into, at + (i % 2) * (dim / 2) + Math.floor(i / 2)))
}

export const DEEPSEEK_VARIANTS: readonly Variant[] = [new DeepSeekVariant(DEEPSEEK_V2), new DeepSeekVariant(DEEPSEEK_V3)]
