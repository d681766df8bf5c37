// Models of every variant whose widths divide by nothing.
import { variantNamed } from '../../src/model/attention-variants.js'

// Widths that divide by nothing, and heads that don't divide by 4 where the variant allows it.
export const ODD = { n_layer: 2, n_embd: 44, vocab_size: 211, block_size: 128, intermediate_size: 152 }
export const LATENT = { q_lora_rank: 26, kv_lora_rank: 72, qk_nope_head_dim: 20, qk_rope_head_dim: 12 }
const HUGGING_FACE = { num_hidden_layers: 2, hidden_size: 44, vocab_size: 211, max_position_embeddings: 128, intermediate_size: 152 }
const DEEPSEEK = { ...LATENT, v_head_dim: 14, first_k_dense_replace: 2 }
export const SHAPES: readonly { readonly what: string; readonly variant: string; readonly config: Record<string, unknown> }[] = [
  { what: '6 heads over 3', variant: 'llama', config: { num_attention_heads: 6, num_key_value_heads: 3, head_dim: 10, rms_norm_eps: 1e-5 } },
  { what: '9 heads over 3', variant: 'mistral', config: { num_attention_heads: 9, num_key_value_heads: 3, head_dim: 14 } },
  { what: '2 heads over 1 of 22', variant: 'llama', config: { num_attention_heads: 2, num_key_value_heads: 1, tie_word_embeddings: true } },
  { what: '10 heads over 5', variant: 'qwen2', config: { num_attention_heads: 10, num_key_value_heads: 5, head_dim: 12 } },
  { what: '7 heads over 1', variant: 'qwen2', config: { num_attention_heads: 7, num_key_value_heads: 1, head_dim: 10 } },
  { what: '6 heads over 2', variant: 'qwen3', config: { num_attention_heads: 6, num_key_value_heads: 2, head_dim: 18, tie_word_embeddings: true } },
  { what: '7 heads', variant: 'deepseek_v2', config: { ...DEEPSEEK, num_attention_heads: 7, q_lora_rank: null } },
  { what: '5 heads, halves', variant: 'deepseek_v3', config: { ...DEEPSEEK, num_attention_heads: 5, rope_interleave: false } },
  { what: '3 heads, pairs', variant: 'deepseek_v3', config: { ...DEEPSEEK, num_attention_heads: 3 } },
  ...['mlra_4', 'mla', 'mlra_4_gated', 'mla_gated', 'mla_no_scale'].map((variant) => ({
    what: '7 heads',
    variant,
    config: { ...LATENT, n_head: 7 },
  })),
  ...['mlra_2', 'gla_2', 'mlra_2_gated', 'gla_2_gated', 'mlra_2_no_scale', 'gla_2_no_scale'].map((variant) => ({
    what: '6 heads',
    variant,
    config: { ...LATENT, n_head: 6 },
  })),
  { what: '8 heads', variant: 'gla_4', config: { ...LATENT, n_head: 8 } },
  { what: '1 head', variant: 'mlra_4', config: { ...LATENT, n_head: 1 } },
  { what: '2 heads', variant: 'mla', config: { ...LATENT, n_head: 2 } },
  { what: '7 heads of 18', variant: 'mha', config: { n_head: 7, head_dim: 18 } },
  { what: '18 heads in 6 groups', variant: 'gqa', config: { n_head: 18, head_dim: 10, group_size: 3 } },
  { what: '9 heads in 3 groups', variant: 'gqa', config: { n_head: 9, head_dim: 10, group_size: 3 } },
  { what: '6 heads in 2 groups', variant: 'gqa_gated', config: { n_head: 6, head_dim: 14, group_size: 3 } },
  { what: '7 heads', variant: 'mqa', config: { n_head: 7, head_dim: 14, group_size: 7 } },
  { what: '10 heads in 5 groups', variant: 'gta', config: { n_head: 10, head_dim: 12, group_size: 2 } },
  { what: '6 heads in 3 groups', variant: 'gta', config: { n_head: 6, head_dim: 20, group_size: 2 } },
  { what: '5 heads of 22', variant: 'mfa', config: { n_head: 5, head_dim: 22, share_q_dim: 30 } },
  { what: '7 heads of 10, rank 3', variant: 'tpa', config: { n_head: 7, head_dim: 10, rank: 3, q_rank: 5 } },
  { what: '2 heads of 18', variant: 'tpa', config: { n_head: 2, head_dim: 18, rank: 1, q_rank: 2 } },
]

export const ODD_VOCABULARY = ODD.vocab_size

/** config.json of one of the shapes. */
export function configOf(variant: string, config: Record<string, unknown>): Record<string, unknown> {
  const { decoder } = variantNamed(variant)
  return decoder.name === 'gpt' ? { ...ODD, ...config } : { architectures: decoder.architectures, ...HUGGING_FACE, ...config }
}
