// The attention variants as table rows, how a checkpoint's keys tell them apart, and their lowering to attention units.
// Nothing below src/ knows a variant's name.
import type { AttentionUnit, LatentAttention, ModelShape } from '../../workers/protocol.js'
import { CheckpointError } from '../errors.js'
import type { ModelConfig } from './model-config.js'

/** Latent variants whose kv_b_proj is one [4, D, heads per latent * 2N] tensor: latent head l belongs to shard l. */
export interface Variant {
  readonly name: string
  /** Of n heads, those that latent l serves: [start, end). */
  readonly headsOf: (latent: number, heads: number) => readonly [number, number]
  /** Multiplies the sum over latents. */
  readonly outputFactor: number
  /** n_head must be a multiple of it. */
  readonly headMultiple: number
}

export const LATENTS = 4

/** Source: the authors' model/mlra_4.py, mlra_2.py, gla_4.py. */
const VARIANTS: readonly Variant[] = [
  { name: 'mlra_4', headsOf: (_l, n) => [0, n], outputFactor: 4 ** -0.5, headMultiple: 1 },
  { name: 'mlra_2', headsOf: (l, n) => (l % 2 === 0 ? [0, n / 2] : [n / 2, n]), outputFactor: 2 ** -0.5, headMultiple: 2 },
  { name: 'gla_4', headsOf: (l, n) => [(l * n) / 4, ((l + 1) * n) / 4], outputFactor: 1, headMultiple: 4 },
]

/** Names and shapes of a checkpoint's tensors, as far as detection needs them. */
export type ShapeOf = (tensor: string) => readonly number[] | undefined

/** What the keys say beyond the variants that run. Order matters: the first key that exists decides. */
const OTHER_KEYS: readonly (readonly [string, string])[] = [
  ['kv_a_layernorm_1.weight', 'gla_2'],
  ['kv_a_layernorm.weight', 'mla'],
  ['c_qkv.W_A_q.weight', 'tpa'],
  ['W_rope_k.weight', 'gta'],
  ['w_q.weight', 'mfa'],
  ['c_k.weight', 'mha, gqa or mqa'],
]

/** The variant that a checkpoint's first layer shows. Throws VARIANT_UNSUPPORTED or VARIANT_UNKNOWN. */
export function detectVariant(config: ModelConfig, shapeOf: ShapeOf): Variant {
  const attn = 'transformer.h.0.attn.'
  const kvRank = config.kv_lora_rank ?? 0
  const latentDim = kvRank / LATENTS
  const nope = config.qk_nope_head_dim ?? 0
  const stacked = shapeOf(`${attn}kv_b_proj`)
  const gated = shapeOf(`${attn}gated_proj.weight`) !== undefined
  if (stacked) {
    if (kvRank % LATENTS !== 0) throw invalid('kv_lora_rank cannot be cut into 4 latent heads', 'a multiple of 4', String(kvRank))
    const found = VARIANTS.find((v) => {
      const [start, end] = v.headsOf(0, config.n_head)
      return stacked.length === 3 && stacked[0] === LATENTS && stacked[1] === latentDim && stacked[2] === (end - start) * 2 * nope
    })
    if (found && !gated) return found
    if (found) throw unsupported(`${found.name}_gated`)
    const widths = VARIANTS.map(
      (v) => `${v.name}: [4, ${latentDim}, ${(v.headsOf(0, config.n_head)[1] - v.headsOf(0, config.n_head)[0]) * 2 * nope}]`,
    )
    throw new CheckpointError('VARIANT_UNKNOWN', {
      what: `${attn}kv_b_proj fits no variant`,
      expected: widths.join(', '),
      actual: `[${stacked.join(', ')}]`,
      remedy: 'Check that config.json belongs to these weights.',
    })
  }
  const other = OTHER_KEYS.find(([key]) => shapeOf(attn + key))
  if (other) throw unsupported(other[1])
  throw new CheckpointError('VARIANT_UNKNOWN', {
    what: 'the weight files hold no attention that Tetrad knows',
    expected: `${attn}kv_b_proj or another variant's keys`,
    actual: 'none of them',
    remedy: "Point at a checkpoint of the authors' models (MLRA and its baselines).",
  })
}

function unsupported(name: string): CheckpointError {
  return new CheckpointError('VARIANT_UNSUPPORTED', {
    what: `the checkpoint is of the variant ${name}`,
    expected: `one of ${VARIANTS.map((v) => v.name).join(', ')}`,
    actual: name,
    remedy: 'Use a checkpoint of a variant that this version runs.',
  })
}

/** Model shape and the factors that are folded into norm weights at load. */
export interface LoweredModel {
  readonly shape: ModelShape
  /** sqrt(n_embd / q_lora_rank) and sqrt(n_embd / D), as float32. */
  readonly queryNormFactor: number
  readonly latentNormFactor: number
}

/** Lowers a variant to attention units. Throws CheckpointError CONFIG_INVALID where the configuration can't be cut. */
export function lowerModel(config: ModelConfig, variant: Variant): LoweredModel {
  const need = (name: 'q_lora_rank' | 'kv_lora_rank' | 'qk_nope_head_dim' | 'qk_rope_head_dim') => {
    const value = config[name]
    if (value !== undefined) return value
    throw invalid(`${name} is missing`, 'a positive integer', 'nothing')
  }
  const queryRank = need('q_lora_rank')
  const kvRank = need('kv_lora_rank')
  const nopeDim = need('qk_nope_head_dim')
  const ropeDim = need('qk_rope_head_dim')
  const heads = config.n_head
  if (kvRank % LATENTS !== 0) throw invalid('kv_lora_rank cannot be cut into 4 latent heads', 'a multiple of 4', String(kvRank))
  if (ropeDim % 2 !== 0) throw invalid('qk_rope_head_dim is odd', 'an even number', String(ropeDim))
  if (heads % variant.headMultiple !== 0)
    throw invalid(`n_head cannot be cut as ${variant.name} does`, `a multiple of ${variant.headMultiple}`, String(heads))
  const latentDim = kvRank / LATENTS
  const units = Array.from({ length: LATENTS }, (_, stream): AttentionUnit => {
    const [headStart, headEnd] = variant.headsOf(stream, heads)
    return { stream, headStart, headEnd }
  })
  const attention: LatentAttention = {
    heads,
    nopeDim,
    ropeDim,
    queryRank,
    latentDim,
    units,
    scale: (nopeDim + ropeDim) ** -0.5,
    outputFactor: variant.outputFactor,
  }
  return {
    shape: { layers: config.n_layer, embed: config.n_embd, vocab: config.vocab_size, intermediate: config.intermediate_size, attention },
    queryNormFactor: Math.fround(Math.sqrt(config.n_embd / queryRank)),
    latentNormFactor: Math.fround(Math.sqrt(config.n_embd / latentDim)),
  }
}

function invalid(what: string, expected: string, actual: string): CheckpointError {
  return new CheckpointError('CONFIG_INVALID', {
    what: `config.json: ${what}`,
    expected,
    actual,
    remedy: 'Use a checkpoint whose configuration can be cut.',
  })
}
