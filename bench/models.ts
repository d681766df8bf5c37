// Models of equal parameter counts, for comparing variants: the paper's 2.9 B shapes, and the same scaled down.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { OptionError, synthesize } from '../src/index.js'
import { VARIANTS, variantNamed } from '../src/model/attention-variants.js'
import { elements } from '../src/model/checkpoint/tensor-source.js'
import { GPT } from '../src/model/families/gpt.js'
import { type LoweredModel, lowerModel } from '../src/model/lower-model.js'
import { parseModelConfig } from '../src/model/model-config.js'
import { describeTensors } from '../src/tools/synth/describe-tensors.js'
import { PRESETS, type PresetConfig } from '../src/tools/synth/presets.js'
import type { ModelShape, Partition } from '../workers/protocol.js'

/** Presets of synth, and 'small' (4 layers of 1024, 16 heads of 64) and 'tiny' (2 layers of 128) with equal parameters. */
export const MODEL_SIZES = ['2.9b', 'mid', 'small', 'tiny'] as const

const SCALED = {
  small: { n_layer: 4, n_head: 16, n_embd: 1024, vocab_size: 8192, head: 64, rope: 32, query: 512, intermediate: 2816 },
  tiny: { n_layer: 2, n_head: 8, n_embd: 128, vocab_size: 512, head: 16, rope: 8, query: 64, intermediate: 352 },
} as const

/** Weights are random, so no context is beyond training. */
const MAX_CONTEXT = 2 ** 22

/** head_dim of the 2.9 B models. */
const LARGE_HEAD = 128

type Scaled = keyof typeof SCALED

/** The shape of the 2.9 B models at another size, with this MLP. */
function scaledConfig(size: Scaled, variant: string, intermediate: number): PresetConfig {
  const { head, rope, query, intermediate: _, ...common } = SCALED[size]
  const all = { ...common, block_size: MAX_CONTEXT, intermediate_size: intermediate }
  const large = (PRESETS['2.9b']?.(variant) ?? {}) as Readonly<Record<string, number>>
  if (large.kv_lora_rank !== undefined) return { ...all, q_lora_rank: query, kv_lora_rank: 4 * head, qk_nope_head_dim: head, qk_rope_head_dim: rope }
  // It says how heads are grouped, and whether they are wider than those of others.
  const { group_size, head_dim = 0, n_head, rank, q_rank, share_q_dim } = large
  const own = { group_size: group_size === n_head ? common.n_head : group_size, rank, q_rank, share_q_dim: share_q_dim && query }
  return {
    ...all,
    head_dim: (head_dim / LARGE_HEAD) * head,
    ...(Object.fromEntries(Object.entries(own).filter(([, v]) => v !== undefined)) as PresetConfig),
  }
}

/** Config of a variant with as many parameters as mha at this size, to within a few columns of the MLP. */
function equalConfig(size: Scaled, variant: string): PresetConfig {
  const { n_layer, n_embd, intermediate } = SCALED[size]
  const parameters = (name: string) => {
    const described = describeTensors(
      lowerModel(parseModelConfig({ ...scaledConfig(size, name, intermediate) }), variantNamed(name)),
      variantNamed(name),
    )
    return described.reduce((sum, t) => sum + elements(t.shape), 0)
  }
  const surplus = parameters(variant) - parameters('mha')
  return scaledConfig(size, variant, Math.round((intermediate - surplus / (3 * n_layer * n_embd)) / 8) * 8)
}

/** Throws OptionError for an unknown size or variant. */
function benchConfig(size: string, variant: string): PresetConfig {
  if (!(MODEL_SIZES as readonly string[]).includes(size)) {
    throw new OptionError('OPTION_INVALID', {
      what: 'unknown model size',
      expected: MODEL_SIZES.join(', '),
      actual: size,
      remedy: 'Choose one of them.',
    })
  }
  checkVariant(variant)
  return size in SCALED ? equalConfig(size as Scaled, variant) : { ...PRESETS[size]?.(variant), block_size: MAX_CONTEXT }
}

/** The authors' variants, which have configurations of one size. */
const COMPARED = VARIANTS.filter(({ decoder }) => decoder === GPT).map(({ name }) => name)

function checkVariant(variant: string): void {
  if (COMPARED.includes(variant)) return
  throw new OptionError('OPTION_INVALID', {
    what: 'unknown variant',
    expected: COMPARED.join(', '),
    actual: variant,
    remedy: 'Choose one of them.',
  })
}

const SEQUENCE = '-sequence'

/** A compared variant by its name; `mla-sequence` is mla with the cache cut along the sequence. */
export function compared(name: string): { readonly variant: string; readonly partition: Partition } {
  return name.endsWith(SEQUENCE) ? { variant: name.slice(0, -SEQUENCE.length), partition: 'sequence' } : { variant: name, partition: 'heads' }
}

/** A model without its weights. */
export function benchLowered(size: string, variant: string): LoweredModel {
  return lowerModel(parseModelConfig({ ...benchConfig(size, variant) }), variantNamed(variant))
}

/** Shape of a model, without its weights. */
export function benchShape(size: string, variant: string): ModelShape {
  return benchLowered(size, variant).shape
}

/** Directory of a model of a size in `folder`. Writes it if it is missing. */
export async function benchModel(folder: string, size: string, variant: string, seed: number): Promise<string> {
  const dir = join(folder, `${size}-${variant}`)
  if (existsSync(join(dir, 'model.safetensors'))) return dir
  await synthesize(dir, { variant, seed, config: { ...benchConfig(size, variant) } })
  return dir
}
