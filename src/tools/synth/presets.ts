// Configurations to synthesize: the paper's at 2.9 B parameters, and a middle size for benchmarks.
// Source: the authors' config/*.py. Sizes in elements.
import { VARIANT_NAMES, variantNamed } from '../../model/attention-variants.js'
import type { PresetSize } from '../../model/families/family.js'

/** As a config.json has them. */
export type PresetConfig = Readonly<Record<string, number>>

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
  const common = { n_layer: 24, n_head: 24, n_embd: 3072, vocab_size: 50304, block_size: 2048, intermediate_size: intermediate }
  return { ...common, ...variantNamed(variant).presetFields(SIZE_2_9B) }
}

/** Variants differ in size: every one has the same MLP. */
function presetMid(variant: string): PresetConfig | undefined {
  if (!VARIANT_NAMES.includes(variant)) return undefined
  const common = { n_layer: 12, n_head: 16, n_embd: 1024, vocab_size: 8192, block_size: 4096, intermediate_size: 3072 }
  return { ...common, ...variantNamed(variant).presetFields(SIZE_MID) }
}

export const PRESETS: Readonly<Record<string, Preset>> = { '2.9b': preset29b, mid: presetMid }
