// Which variant a checkpoint is of: what the names and shapes of its first layer's tensors say.
import { CheckpointError, OptionError } from '../errors.js'
import { VARIANT_NAMES, VARIANTS, variantNamed } from './attention-variants.js'
import type { ShapeOf, Variant } from './families/family.js'
import { GPT } from './families/gpt.js'
import { explainStacked } from './families/latent.js'
import { invalidConfig } from './invalid-config.js'
import { inAttention } from './lower-model.js'
import type { ModelConfig } from './model-config.js'

/**
 * The variant of a checkpoint. `chosen` (the `variant` option, or config.json's) decides between those that tensors cannot tell apart.
 * Throws CheckpointError VARIANT_UNKNOWN or VARIANT_UNSUPPORTED, or OptionError OPTION_INVALID if the choice does not fit.
 */
export function detectVariant(config: ModelConfig, shapeOf: ShapeOf, chosen?: string): Variant {
  const matching = VARIANTS.filter((v) => v.decoder === config.decoder && v.matches(config, inAttention(v, shapeOf)))
  const [found] = matching
  if (!found) throw unknownVariant(config, shapeOf)
  if (chosen === undefined) return found
  const other = variantNamed(chosen)
  if (matching.includes(other)) return other
  throw new OptionError('OPTION_INVALID', {
    what: `the checkpoint is not of the variant ${chosen}`,
    expected: matching.map((v) => v.name).join(' or '),
    actual: chosen,
    remedy: 'Leave variant out, or choose one that the tensors of the checkpoint fit.',
  })
}

function unknownVariant(config: ModelConfig, shapeOf: ShapeOf): CheckpointError {
  const { names } = config.decoder
  const prefix = names.layer(0) + names.attention
  if (config.decoder !== GPT) {
    const [variant] = VARIANTS.filter((v) => v.decoder === config.decoder)
    return new CheckpointError('VARIANT_UNKNOWN', {
      what: `the weight files hold no attention of ${config.decoder.architectures.join(', ')}, which config.json names`,
      expected: `${prefix}${variant?.needs ?? '*'}`,
      actual: 'no such tensor',
      remedy: 'Check that config.json belongs to these weights.',
    })
  }
  const mismatch = explainStacked(config, (name) => shapeOf(prefix + name))
  switch (mismatch?.reason) {
    case undefined:
      return new CheckpointError('VARIANT_UNKNOWN', {
        what: 'the weight files hold no attention that Tetrad knows',
        expected: `${prefix}kv_b_proj or the tensors of another variant`,
        actual: 'none of them',
        remedy: "Point at a checkpoint of the authors' models (MLRA and its baselines).",
      })
    case 'rank':
      return invalidConfig('kv_lora_rank cannot be cut into 4 latent heads', 'a multiple of 4', String(config.dims.kvRank ?? 0))
    case 'gate':
      return new CheckpointError('VARIANT_UNSUPPORTED', {
        what: `the checkpoint is of a variant that Tetrad does not run: ${mismatch.variant}`,
        expected: `one of ${VARIANT_NAMES.join(', ')}`,
        actual: mismatch.variant,
        remedy: 'Use a checkpoint of a variant that this version runs.',
      })
    case 'shape':
      return new CheckpointError('VARIANT_UNKNOWN', {
        what: `${prefix}kv_b_proj fits no variant`,
        expected: mismatch.expected,
        actual: `[${mismatch.shape.join(', ')}]`,
        remedy: 'Check that config.json belongs to these weights.',
      })
  }
}
