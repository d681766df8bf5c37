// The variants that Tetrad runs, by name. Nothing below src/model knows a variant's name.
import { OptionError } from '../errors.js'
import { show } from '../options/check.js'
import { DEEPSEEK_VARIANTS } from './families/deepseek.js'
import { TPA } from './families/factored.js'
import type { Variant } from './families/family.js'
import { GROUPED_VARIANTS } from './families/grouped.js'
import { KEY_VALUE_VARIANTS } from './families/key-value.js'
import { LATENT_VARIANTS } from './families/latent.js'
import { GTA } from './families/tied.js'

export type { ShapeOf, Variant } from './families/family.js'

/** A checkpoint is of the first that matches it. */
export const VARIANTS: readonly Variant[] = [...LATENT_VARIANTS, ...GROUPED_VARIANTS, GTA, TPA, ...KEY_VALUE_VARIANTS, ...DEEPSEEK_VARIANTS]

export const VARIANT_NAMES: readonly string[] = VARIANTS.map((v) => v.name)

/** Throws OptionError OPTION_INVALID for a name that is not known. */
export function variantNamed(name: string): Variant {
  const variant = VARIANTS.find((v) => v.name === name)
  if (variant) return variant
  throw new OptionError('OPTION_INVALID', {
    what: 'variant is not supported',
    expected: `one of ${VARIANT_NAMES.join(', ')}`,
    actual: show(name),
    remedy: 'Choose one of them for variant.',
  })
}
