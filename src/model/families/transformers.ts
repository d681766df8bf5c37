// The decoders of Llama, Mistral, Qwen and DeepSeek as Hugging Face transformers writes them: SwiGLU, RMS norms, rope, names and fields
// that they share. Source: transformers 5.17, models/{llama,mistral,qwen2,qwen3,deepseek_v2,deepseek_v3}.
import type { Fail } from '../../options/check.js'
import { show } from '../../options/check.js'
import type { Decoder, DecoderNames } from './family.js'

type Fields = Readonly<Record<string, unknown>>

const NAMES: DecoderNames = {
  layer: (index) => `model.layers.${index}.`,
  attention: 'self_attn.',
  inputNorm: 'input_layernorm.weight',
  mlpNorm: 'post_attention_layernorm.weight',
  gate: 'mlp.gate_proj.weight',
  up: 'mlp.up_proj.weight',
  down: 'mlp.down_proj.weight',
  attentionOut: 'o_proj.weight',
  finalNorm: 'model.norm.weight',
  head: 'lm_head.weight',
  embedding: 'model.embed_tokens.weight',
  tied: 'embedding',
}

const KEYS = {
  layers: 'num_hidden_layers',
  heads: 'num_attention_heads',
  embed: 'hidden_size',
  vocab: 'vocab_size',
  contextTokens: 'max_position_embeddings',
  intermediate: 'intermediate_size',
}

const KEY_VALUE_DIMS = { headDim: 'head_dim', kvHeads: 'num_key_value_heads' }
const LATENT_DIMS = {
  queryRank: 'q_lora_rank',
  kvRank: 'kv_lora_rank',
  nopeDim: 'qk_nope_head_dim',
  ropeDim: 'qk_rope_head_dim',
  valueDim: 'v_head_dim',
}

function decoder(
  name: string,
  architecture: string,
  dims: Decoder['config']['dims'],
  more: Partial<Pick<Decoder, 'allows' | 'check' | 'pairedRope' | 'skips' | 'window'>>,
): Decoder {
  return {
    name,
    architectures: [architecture],
    recognises: ({ architectures, model_type }) =>
      Array.isArray(architectures) ? architectures.includes(architecture) : architectures === undefined && model_type === name,
    config: { ...KEYS, dims },
    names: NAMES,
    normEps: 1e-6,
    tiedHead: false,
    tokenizer: 'none',
    allows: {},
    ...more,
  }
}

/** The window of a file, whatever says that it is used. */
function stated({ sliding_window }: Fields): number | undefined {
  return typeof sliding_window === 'number' && Number.isInteger(sliding_window) && sliding_window > 0 ? sliding_window : undefined
}

/** Mistral's class has a window where a file does not say; null is none. */
const MISTRAL_WINDOW = 4096

function mistralWindow(config: Fields): number | undefined {
  return config.sliding_window === undefined ? MISTRAL_WINDOW : stated(config)
}

/** What Qwen's class has where a file does not say. */
const MAX_WINDOW_LAYERS = 28

/** Qwen's layers from max_window_layers on have a window if use_sliding_window says so; layer_types, where it is there, names them. */
function qwenWindow(config: Fields, layers: number): number | undefined {
  const { layer_types: types, use_sliding_window, max_window_layers = MAX_WINDOW_LAYERS } = config
  if (Array.isArray(types)) return types.includes('sliding_attention') ? stated(config) : undefined
  const isUsed = use_sliding_window === true && !(typeof max_window_layers === 'number' && max_window_layers >= layers)
  return isUsed ? stated(config) : undefined
}

function checkWindow(config: Fields, fail: Fail): void {
  const { layer_types: types, sliding_window } = config
  if (sliding_window !== undefined && sliding_window !== null && stated(config) === undefined)
    throw fail({
      what: 'sliding_window is out of range',
      expected: 'a positive integer, or null',
      actual: show(sliding_window),
      remedy: 'Correct config.json.',
    })
  if (types === undefined || types === null) return
  const isKnown = Array.isArray(types) && types.every((type) => type === 'full_attention' || (type === 'sliding_attention' && stated(config)))
  if (isKnown) return
  throw fail({
    what: 'layer_types is not supported',
    expected: 'full_attention, or sliding_attention with a sliding_window, for every layer',
    actual: `${show(types)}, sliding_window ${show(sliding_window)}`,
    remedy: 'Use a checkpoint whose layers attend in these ways.',
  })
}

export const LLAMA = decoder('llama', 'LlamaForCausalLM', KEY_VALUE_DIMS, {})
export const MISTRAL = decoder('mistral', 'MistralForCausalLM', KEY_VALUE_DIMS, { window: mistralWindow, check: checkWindow })
export const QWEN2 = decoder('qwen2', 'Qwen2ForCausalLM', KEY_VALUE_DIMS, { window: qwenWindow, check: checkWindow })
export const QWEN3 = decoder('qwen3', 'Qwen3ForCausalLM', KEY_VALUE_DIMS, { window: qwenWindow, check: checkWindow })

/** Fields of a mixture of experts, which files of dense models have as well. */
const EXPERTS = { n_routed_experts: null, n_shared_experts: null, moe_intermediate_size: null, num_experts_per_tok: null }

/** Refuses layers that are a mixture of experts, and key heads that are not one for each head. */
function checkDeepSeek(config: Fields, fail: Fail): void {
  const { num_hidden_layers: layers, first_k_dense_replace: dense, n_routed_experts: experts, mlp_layer_types: types } = config
  const isDense = Array.isArray(types)
    ? types.every((type) => type === 'dense')
    : !experts || (typeof dense === 'number' && typeof layers === 'number' && dense >= layers)
  if (!isDense)
    throw fail({
      what: `a mixture of experts is not supported: ${Array.isArray(types) ? 'mlp_layer_types names sparse layers' : `the layers from first_k_dense_replace on have n_routed_experts`}`,
      expected: 'dense layers only: first_k_dense_replace as large as num_hidden_layers, or no n_routed_experts',
      actual: `num_hidden_layers ${show(layers)}, first_k_dense_replace ${show(dense)}, n_routed_experts ${show(experts)}`,
      remedy: 'Use a dense checkpoint.',
    })
  const { num_attention_heads: heads, num_key_value_heads: kvHeads } = config
  if (kvHeads === undefined || kvHeads === null || kvHeads === heads) return
  throw fail({
    what: 'num_key_value_heads is not supported: every head has a key of its own out of the latent',
    expected: show(heads),
    actual: show(kvHeads),
    remedy: 'Use a checkpoint whose num_key_value_heads is num_attention_heads.',
  })
}

/** Layers past the last predict further tokens in training (num_nextn_predict_layers). */
function isPredictionLayer(name: string, layers: number): boolean {
  const index = /^model\.layers\.(\d+)\./.exec(name)?.[1]
  return index !== undefined && Number(index) >= layers
}

export const DEEPSEEK_V2 = decoder('deepseek_v2', 'DeepseekV2ForCausalLM', LATENT_DIMS, {
  allows: { ...EXPERTS, rope_interleave: [true] },
  pairedRope: () => true,
  check: checkDeepSeek,
})
export const DEEPSEEK_V3 = decoder('deepseek_v3', 'DeepseekV3ForCausalLM', LATENT_DIMS, {
  allows: { ...EXPERTS, rope_interleave: [true, false] },
  pairedRope: ({ rope_interleave }) => rope_interleave !== false,
  check: checkDeepSeek,
  skips: isPredictionLayer,
})
