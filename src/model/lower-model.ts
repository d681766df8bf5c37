// A variant and a configuration, lowered to the shape that ranks run.

import { queryWidth } from '../../workers/layout/attention-geometry.js'
import type { ModelShape } from '../../workers/protocol.js'
import { LIMITS } from '../options/limits.js'
import type { ShapeOf, Variant } from './families/family.js'
import { invalidConfig } from './invalid-config.js'
import type { ModelConfig } from './model-config.js'
import { ropeShape } from './rope.js'

/** Model shape and the factors that are folded into norm weights at load. */
export interface LoweredModel {
  readonly shape: ModelShape
  /** Factors of the norms of the query latent and of streams, float32 values; 1 without such norms. */
  readonly queryNormFactor: number
  readonly streamNormFactor: number
  readonly pairedRope: boolean
}

/**
 * Lowers a variant to streams and units. `shapeOf`, by full names, is asked only for what config.json leaves open. `tiedHead`: by
 * default as config.json or the decoder says.
 * Throws CheckpointError CONFIG_INVALID where the configuration can't be cut.
 */
export function lowerModel(config: ModelConfig, variant: Variant, shapeOf: ShapeOf = () => undefined, tiedHead?: boolean): LoweredModel {
  const { attention, queryNormFactor = 1, streamNormFactor = 1, pairedRope = false } = variant.lower(config, inAttention(variant, shapeOf))
  const values = attention.heads * Math.max(attention.valueDim, queryWidth(attention))
  if (values > LIMITS.width)
    throw invalidConfig(`${config.decoder.config.heads} times the width of a head is too large`, `at most ${LIMITS.width}`, String(values))
  const { layers, embed, vocab, intermediate, normEps } = config
  return {
    shape: {
      layers,
      embed,
      vocab,
      intermediate,
      normEps,
      tiedHead: tiedHead ?? config.tieWordEmbeddings ?? variant.decoder.tiedHead,
      rope: ropeShape(config.rope, attention.ropeDim),
      attention,
    },
    queryNormFactor,
    streamNormFactor,
    pairedRope,
  }
}

/** Shapes of the first layer's attention, by names after its prefix. */
export function inAttention({ decoder }: Variant, shapeOf: ShapeOf): ShapeOf {
  const prefix = decoder.names.layer(0) + decoder.names.attention
  return (name) => shapeOf(prefix + name)
}
