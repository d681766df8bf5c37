// Configurations to synthesize: the paper's at 2.9 B parameters, a middle size for benchmarks, and shapes of models that are used.
// Sources: the authors' config/*.py; config.json of the models named. Sizes in elements.
import { VARIANT_NAMES, variantNamed } from '../../model/attention-variants.js'
import type { ConfigKeys, Decoder, PresetSize } from '../../model/families/family.js'
import { GPT } from '../../model/families/gpt.js'

/** As a config.json has them. */
export type PresetConfig = Readonly<Record<string, unknown>>

type Preset = (variant: string) => PresetConfig | undefined

/** The MLP of each variant has the width that makes all models of one size. no_scale models are as large as their originals. */
const INTERMEDIATE_2_9B: Readonly<Record<string, number>> = {
  mlra_4: 9880,
  mlra_2: 10048,
  gla_2: 10048,
  gla_4: 10136,
  mla: 9448,
  gqa: 9728,
  gta: 9960,
  mqa: 10152,
  mha: 8192,
  mfa: 8024,
  tpa: 10760,
  mlra_4_gated: 8856,
  mlra_2_gated: 9024,
  gla_2_gated: 9024,
  mla_gated: 8424,
  gqa_gated: 8704,
}

const SIZE_2_9B: PresetSize = {
  heads: 24,
  headDim: 128,
  shareQueryDim: 2048,
  latent: { queryRank: (latents) => (latents === 1 ? 1536 : 1024), kvRank: 512, nopeDim: 128, ropeDim: 64 },
}

const SIZE_MID: PresetSize = { heads: 16, headDim: 64, shareQueryDim: 512, latent: { queryRank: () => 512, kvRank: 256, nopeDim: 64, ropeDim: 32 } }

function preset29b(variant: string): PresetConfig | undefined {
  const intermediate = INTERMEDIATE_2_9B[variant.replace('_no_scale', '')]
  if (intermediate === undefined) return undefined
  const common = { layers: 24, heads: 24, embed: 3072, vocab: 50304, contextTokens: 2048, intermediate }
  return { ...inKeys(variantNamed(variant).decoder, common), ...variantNamed(variant).presetFields(SIZE_2_9B) }
}

/** Variants differ in size: every one has the same MLP. */
function presetMid(variant: string): PresetConfig | undefined {
  if (!VARIANT_NAMES.includes(variant)) return undefined
  const common = { layers: 12, heads: 16, embed: 1024, vocab: 8192, contextTokens: 4096, intermediate: 3072 }
  return { ...inKeys(variantNamed(variant).decoder, common), ...variantNamed(variant).presetFields(SIZE_MID) }
}

/** Sizes by the names that a decoder's config.json has for them, and what says that it is of this decoder. */
export function inKeys(decoder: Decoder, sizes: Readonly<Record<Exclude<keyof ConfigKeys, 'dims'>, number>>): PresetConfig {
  const { config, architectures, name } = decoder
  const named = Object.entries(sizes).map(([size, value]) => [config[size as keyof typeof sizes], value])
  // The authors' files are known by their fields; synth writes the rest.
  return { ...(decoder === GPT ? {} : { architectures, model_type: name }), ...Object.fromEntries(named) }
}

interface NamedModel {
  readonly variant: string
  readonly config: PresetConfig
}

/** A model as transformers 5 configures it. */
function model(variant: string, sizes: Parameters<typeof inKeys>[1], fields: PresetConfig): NamedModel {
  return { variant, config: { ...inKeys(variantNamed(variant).decoder, sizes), ...fields } }
}

const LLAMA3_ROPE = {
  rope_type: 'llama3',
  rope_theta: 500000,
  factor: 32,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
}

const MODELS: Readonly<Record<string, NamedModel>> = {
  'smollm2-135m': model(
    'llama',
    { layers: 30, heads: 9, embed: 576, vocab: 49152, contextTokens: 8192, intermediate: 1536 },
    { num_key_value_heads: 3, rms_norm_eps: 1e-5, rope_parameters: { rope_type: 'default', rope_theta: 100000 }, tie_word_embeddings: true },
  ),
  'qwen3-0.6b': model(
    'qwen3',
    { layers: 28, heads: 16, embed: 1024, vocab: 151936, contextTokens: 40960, intermediate: 3072 },
    {
      head_dim: 128,
      num_key_value_heads: 8,
      rms_norm_eps: 1e-6,
      rope_parameters: { rope_type: 'default', rope_theta: 1000000 },
      tie_word_embeddings: true,
    },
  ),
  'llama-3.2-1b': model(
    'llama',
    { layers: 16, heads: 32, embed: 2048, vocab: 128256, contextTokens: 131072, intermediate: 8192 },
    { head_dim: 64, num_key_value_heads: 8, rms_norm_eps: 1e-5, rope_parameters: LLAMA3_ROPE, tie_word_embeddings: true },
  ),
  // The widths of MiniCPM3-4B, whose attention is multi-head latent attention, in DeepSeek's architecture.
  'mla-4b': model(
    'deepseek_v3',
    { layers: 62, heads: 40, embed: 2560, vocab: 73448, contextTokens: 32768, intermediate: 6400 },
    {
      q_lora_rank: 768,
      kv_lora_rank: 256,
      qk_nope_head_dim: 64,
      qk_rope_head_dim: 32,
      v_head_dim: 64,
      first_k_dense_replace: 62,
      rms_norm_eps: 1e-5,
    },
  ),
}

/** By name; a preset that does not have a variant answers undefined. */
export const PRESETS: Readonly<Record<string, Preset>> = {
  '2.9b': preset29b,
  mid: presetMid,
  ...Object.fromEntries(
    Object.entries(MODELS).map(([name, { variant, config }]): [string, Preset] => [name, (wanted) => (wanted === variant ? config : undefined)]),
  ),
}

/** The variant of a preset that has one only. */
export function variantOfPreset(preset: string): string | undefined {
  return MODELS[preset]?.variant
}
