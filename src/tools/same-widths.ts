// What MLRA-4 would cache in the place of a model's own attention: the paper's question asked of any model.

import type { AttentionShape } from '../../workers/protocol.js'
import { variantNamed } from '../model/attention-variants.js'
import { GPT } from '../model/families/gpt.js'
import type { ModelConfig } from '../model/model-config.js'

const MLRA_4 = variantNamed('mlra_4')

/**
 * The attention of MLRA-4 with the widths of another. Of a model with latents: its latents' width together, its head and its rope key.
 * Of a model with key and value heads of width d: a head of d, latents of 4 d together and a rope key of d / 2, which is how the
 * authors' configurations follow from d. Undefined: the model is MLRA-4.
 */
export function sameWidths(config: ModelConfig, a: AttentionShape, variant: string): AttentionShape | undefined {
  if (variant.startsWith(MLRA_4.name)) return undefined
  const multiple = (n: number, of: number) => Math.ceil(n / of) * of
  const { keyWidth } = a.stream
  const isLatent = a.absorbed
  const nopeDim = isLatent ? a.nopeDim : keyWidth + a.sharedRopeDim
  const dims = {
    queryRank: Math.max(1, a.queryRank),
    kvRank: isLatent ? multiple(a.streams * a.stream.width, 4) : 4 * nopeDim,
    nopeDim,
    ropeDim: isLatent ? a.ropeDim : multiple(nopeDim / 2, 2),
  }
  return MLRA_4.lower({ ...config, decoder: GPT, dims }, () => undefined).attention
}
