// Which variant a checkpoint is of: what the keys and shapes of its first layer show.
import { CheckpointError, OptionError } from '../errors.js'
import { ATTENTION, type ShapeOf, VARIANT_NAMES, VARIANTS, type Variant, variantNamed } from './attention-variants.js'
import { invalidConfig } from './invalid-config.js'
import type { ModelConfig } from './model-config.js'

/**
 * The variant that a checkpoint's first layer shows; `chosen` (the `variant` option or config.json's) decides between those
 * that keys can't tell apart. Throws VARIANT_UNKNOWN, VARIANT_UNSUPPORTED, or OPTION_INVALID if the choice does not fit.
 */
export function detectVariant(config: ModelConfig, shapeOf: ShapeOf, chosen?: string): Variant {
  const found = VARIANTS.find((v) => shows(v, config, shapeOf))
  if (!found) throw unknown(config, shapeOf)
  if (chosen === undefined || chosen === found.name) return found
  const other = variantNamed(chosen)
  if (other && shows(other, config, shapeOf)) return other
  throw new OptionError('OPTION_INVALID', {
    what: `the checkpoint is not of the variant ${chosen}`,
    expected: VARIANTS.filter((v) => shows(v, config, shapeOf))
      .map((v) => v.name)
      .join(' or '),
    actual: chosen,
    remedy: 'Leave variant out, or choose one that the keys of the checkpoint fit.',
  })
}

/** Whether the first layer has this variant's keys, and of shapes that are its own. */
function shows(v: Variant, config: ModelConfig, shapeOf: ShapeOf): boolean {
  const shape = (key: string) => shapeOf(ATTENTION + key)
  switch (v.tensors) {
    case 'latent': {
      if ((shape('gated_proj.weight') !== undefined) !== v.gated) return false
      if (typeof v.upKey !== 'string') return shape(v.normKey(0)) !== undefined && shape(v.upKey(0)) !== undefined
      const latentDim = (config.kv_lora_rank ?? 0) / v.latents
      const [start, end] = v.headsOf(0, config.n_head)
      return shape(v.upKey)?.join() === [v.latents, latentDim, (end - start) * 2 * (config.qk_nope_head_dim ?? 0)].join()
    }
    case 'grouped': {
      const keys = shape('c_k.weight')
      if (!keys || (shape('c_gated.weight') !== undefined) !== v.gated || (shape('w_q.weight') !== undefined) !== v.sharedQuery) return false
      if (v.sharedQuery || v.gated || !v.groupSize) return true
      return keys[0] === (config.n_head / v.groupSize(config.n_head)) * (config.head_dim ?? 0)
    }
    case 'tied':
      return shape('W_rope_k.weight') !== undefined
    case 'factored':
      return shape('c_qkv.W_A_q.weight') !== undefined
  }
}

function unknown(config: ModelConfig, shapeOf: ShapeOf): CheckpointError {
  const stacked = shapeOf(`${ATTENTION}kv_b_proj`)
  if (!stacked) {
    return new CheckpointError('VARIANT_UNKNOWN', {
      what: 'the weight files hold no attention that Tetrad knows',
      expected: `${ATTENTION}kv_b_proj or another variant's keys`,
      actual: 'none of them',
      remedy: "Point at a checkpoint of the authors' models (MLRA and its baselines).",
    })
  }
  const rank = config.kv_lora_rank ?? 0
  if (rank % 4 !== 0) return invalidConfig('kv_lora_rank cannot be cut into 4 latent heads', 'a multiple of 4', String(rank))
  const rows = VARIANTS.filter((v) => v.tensors === 'latent' && v.upKey === 'kv_b_proj')
  const fits = (gate: boolean) =>
    rows.some((v) => v.gated !== gate && shows(v, config, (key) => (key.endsWith('gated_proj.weight') ? (v.gated ? [1] : undefined) : shapeOf(key))))
  if (fits(shapeOf(`${ATTENTION}gated_proj.weight`) !== undefined)) {
    return new CheckpointError('VARIANT_UNSUPPORTED', {
      what: 'the checkpoint is of a variant that Tetrad does not run: gla_4 with a gate',
      expected: `one of ${VARIANT_NAMES.join(', ')}`,
      actual: 'gla_4_gated',
      remedy: 'Use a checkpoint of a variant that this version runs.',
    })
  }
  const widths = rows.map((v) => {
    const [start, end] = v.tensors === 'latent' ? v.headsOf(0, config.n_head) : [0, 0]
    return `${v.name}: [4, ${rank / 4}, ${(end - start) * 2 * (config.qk_nope_head_dim ?? 0)}]`
  })
  return new CheckpointError('VARIANT_UNKNOWN', {
    what: `${ATTENTION}kv_b_proj fits no variant`,
    expected: widths.join(', '),
    actual: `[${stacked.join(', ')}]`,
    remedy: 'Check that config.json belongs to these weights.',
  })
}
