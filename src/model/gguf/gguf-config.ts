// The config.json that a GGUF file stands for, as transformers would write it. Keys: llama.cpp, gguf-py/gguf/constants.py.
import { CheckpointError } from '../../errors.js'
import { show } from '../../options/check.js'
import { LIMITS } from '../../options/limits.js'
import type { GgufHeader } from './gguf-header.js'
import type { GgufMetadata } from './gguf-metadata.js'

export interface GgufArchitecture {
  /** general.architecture, and the prefix of its keys. */
  readonly name: string
  readonly architectures: readonly string[]
  /** Rows of queries and keys are stored in the order of llama.cpp's rope: pairs of neighbours. */
  readonly isPaired: boolean
}

const ARCHITECTURES: readonly GgufArchitecture[] = [
  { name: 'llama', architectures: ['LlamaForCausalLM'], isPaired: true },
  { name: 'qwen2', architectures: ['Qwen2ForCausalLM'], isPaired: false },
  { name: 'qwen3', architectures: ['Qwen3ForCausalLM'], isPaired: false },
]

/** Keys of an architecture that are read below, or say nothing about the arithmetic. */
const KNOWN = new Set([
  'context_length',
  'embedding_length',
  'block_count',
  'feed_forward_length',
  'vocab_size',
  'tensor_data_layout',
  'attention.head_count',
  'attention.head_count_kv',
  'attention.key_length',
  'attention.value_length',
  'attention.layer_norm_rms_epsilon',
  'attention.sliding_window',
  'rope.dimension_count',
  'rope.freq_base',
  'rope.scale_linear',
  'rope.scaling.type',
  'rope.scaling.factor',
  'rope.scaling.original_context_length',
  'rope.scaling.finetuned',
  'rope.scaling.yarn_beta_fast',
  'rope.scaling.yarn_beta_slow',
])
/** Keys that change nothing at these values. */
const NEUTRAL: Readonly<Record<string, readonly unknown[]>> = {
  expert_count: [0],
  expert_used_count: [0],
  'attention.causal': [true],
  'attention.clamp_kqv': [0],
  'attention.max_alibi_bias': [0],
  'attention.scale': [0],
  logit_scale: [0, 1],
  embedding_scale: [0, 1],
  residual_scale: [0, 1],
  pooling_type: [0],
  'rope.scaling.attn_factor': [1],
}

/** Throws CheckpointError VARIANT_UNSUPPORTED, or CHECKPOINT_INVALID for a part of a split file. */
export function architectureOf(metadata: GgufMetadata): GgufArchitecture {
  const name = metadata.string('general.architecture')
  const found = ARCHITECTURES.find((architecture) => architecture.name === name)
  if (!found) {
    throw new CheckpointError('VARIANT_UNSUPPORTED', {
      what: `${metadata.path} is a GGUF file of the architecture ${show(name)}`,
      expected: ARCHITECTURES.map((architecture) => architecture.name).join(', '),
      actual: show(name),
      remedy: 'Use the original checkpoint (safetensors), if docs/variants.md lists its model.',
    })
  }
  const parts = metadata.optionalInteger('split.count', 0, 0xffff) ?? 1
  if (parts <= 1) return found
  throw new CheckpointError('CHECKPOINT_INVALID', {
    what: `${metadata.path} is one of ${parts} parts of a GGUF file`,
    expected: 'one file',
    actual: `${parts} parts`,
    remedy: 'Merge them: llama-gguf-split --merge first-part.gguf merged.gguf.',
  })
}

/** Throws CheckpointError CONFIG_INVALID for what is missing, or changes the arithmetic and is not known here. */
export function ggufConfig({ metadata, tensors }: GgufHeader, frequencyFactors: readonly number[] | undefined): Record<string, unknown> {
  const { name, architectures } = architectureOf(metadata)
  const key = (rest: string) => `${name}.${rest}`
  refuseUnknown(metadata, name)
  const embed = metadata.integer(key('embedding_length'), 1, LIMITS.width)
  const heads = metadata.integer(key('attention.head_count'), 1, LIMITS.heads)
  const width = metadata.optionalInteger(key('attention.key_length'), 1, LIMITS.width) ?? embed / heads
  for (const rest of ['attention.value_length', 'rope.dimension_count']) {
    const other = metadata.optionalInteger(key(rest), 0, LIMITS.width)
    if (other !== undefined && other !== width)
      throw metadata.wrong(key(rest), `${width}, the width of a head`, other, 'Use a model whose heads have one width.')
  }
  const vocab = tensors.get('token_embd.weight')?.shape[0] ?? metadata.integer(key('vocab_size'), 1, LIMITS.vocab)
  const context = metadata.integer(key('context_length'), 1, LIMITS.context)
  const window = metadata.optionalInteger(key('attention.sliding_window'), 0, LIMITS.context)
  const end = metadata.optionalInteger('tokenizer.ggml.eos_token_id', 0, vocab - 1)
  return {
    architectures,
    hidden_size: embed,
    num_hidden_layers: metadata.integer(key('block_count'), 1, LIMITS.layers),
    num_attention_heads: heads,
    num_key_value_heads: metadata.optionalInteger(key('attention.head_count_kv'), 1, LIMITS.heads) ?? heads,
    head_dim: width,
    intermediate_size: metadata.integer(key('feed_forward_length'), 1, LIMITS.width),
    max_position_embeddings: context,
    vocab_size: vocab,
    rms_norm_eps: metadata.number(key('attention.layer_norm_rms_epsilon')) ?? missing(metadata, key('attention.layer_norm_rms_epsilon')),
    rope_parameters: ropeOf(metadata, key, context, frequencyFactors),
    tie_word_embeddings: !tensors.has('output.weight'),
    ...(window && { sliding_window: window, use_sliding_window: true, max_window_layers: 0 }),
    ...(end !== undefined && { eos_token_id: end }),
  }
}

function missing(metadata: GgufMetadata, key: string): never {
  throw metadata.wrong(key, 'a number', undefined)
}

function refuseUnknown(metadata: GgufMetadata, name: string): void {
  const prefix = `${name}.`
  for (const key of metadata.keys()) {
    if (!key.startsWith(prefix) || KNOWN.has(key.slice(prefix.length))) continue
    const allowed = Object.hasOwn(NEUTRAL, key.slice(prefix.length)) ? (NEUTRAL[key.slice(prefix.length)] as readonly unknown[]) : []
    const value = metadata.get(key)
    if (allowed.includes(value)) continue
    const expected = allowed.length > 0 ? `${allowed.join(' or ')}, or no such key` : 'no such key: it may change what the model computes'
    throw metadata.wrong(key, expected, value, 'Use a model without it, or the original checkpoint.')
  }
}

function ropeOf(
  metadata: GgufMetadata,
  key: (rest: string) => string,
  context: number,
  factors: readonly number[] | undefined,
): Record<string, unknown> {
  const base = { rope_theta: metadata.number(key('rope.freq_base')) ?? 10000 }
  const linear = metadata.number(key('rope.scale_linear')) ?? 1
  const type = metadata.string(key('rope.scaling.type')) ?? (linear === 1 ? 'none' : 'linear')
  const factor = metadata.number(key('rope.scaling.factor')) ?? linear
  if (factors) {
    if (type !== 'none' && factor !== 1)
      throw metadata.wrong(key('rope.scaling.type'), 'none beside rope_freqs.weight', type, 'Use the original checkpoint.')
    return { rope_type: 'divided', factors, ...base }
  }
  if (type === 'none' || (factor === 1 && type === 'linear')) return { rope_type: 'default', ...base }
  if (type === 'linear') return { rope_type: 'linear', factor, ...base }
  if (type !== 'yarn') throw metadata.wrong(key('rope.scaling.type'), 'none, linear or yarn', type, 'Use a model with one of these.')
  const [fast, slow] = [metadata.number(key('rope.scaling.yarn_beta_fast')), metadata.number(key('rope.scaling.yarn_beta_slow'))]
  return {
    rope_type: 'yarn',
    factor,
    original_max_position_embeddings: metadata.optionalInteger(key('rope.scaling.original_context_length'), 1, LIMITS.context) ?? context,
    ...(fast !== undefined && { beta_fast: fast }),
    ...(slow !== undefined && { beta_slow: slow }),
    ...base,
  }
}
