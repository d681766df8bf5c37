// The decoders that Tetrad runs, and which of them a config.json is of.
import { type Fail, show } from '../../options/check.js'
import type { Decoder } from './family.js'
import { GPT } from './gpt.js'

const DECODERS: readonly Decoder[] = [GPT]

/** Throws what `fail` makes for an architecture that is not supported. */
export function decoderOf(config: Readonly<Record<string, unknown>>, fail: Fail): Decoder {
  const decoder = DECODERS.find(({ recognises }) => recognises(config))
  if (decoder) return decoder
  throw fail({
    what: 'architectures names a model that is not supported',
    expected: DECODERS.flatMap(({ architectures }) => architectures).join(', '),
    actual: `${show(config.architectures)}, model_type ${show(config.model_type)}`,
    remedy: 'Use a checkpoint of a model that docs/variants.md lists.',
  })
}
