// The decoders that Tetrad runs, and which of them a config.json is of.
import { type Fail, show } from '../../options/check.js'
import type { Decoder } from './family.js'
import { GPT } from './gpt.js'
import { DEEPSEEK_V2, DEEPSEEK_V3, LLAMA, MISTRAL, QWEN2, QWEN3 } from './transformers.js'

/** A file that names no architecture is taken for the last. */
const DECODERS: readonly Decoder[] = [LLAMA, MISTRAL, QWEN2, QWEN3, DEEPSEEK_V2, DEEPSEEK_V3, GPT]

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
