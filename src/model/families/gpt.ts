// The decoder that all of the authors' variants share: nanoGPT-like, SwiGLU, RMS norms, no biases, one matrix for embedding and head.
// Source: the authors' model/*.py.
import type { Decoder } from './family.js'

export const GPT: Decoder = {
  name: 'gpt',
  architectures: ['GPT'],
  // Their files say model_type gpt2; a file that names nothing is taken for theirs, and its fields are checked by name.
  recognises: ({ architectures, n_embd }) =>
    architectures === undefined || n_embd !== undefined || (Array.isArray(architectures) && architectures.includes('GPT')),
  config: {
    layers: 'n_layer',
    heads: 'n_head',
    embed: 'n_embd',
    vocab: 'vocab_size',
    contextTokens: 'block_size',
    intermediate: 'intermediate_size',
    dims: {
      queryRank: 'q_lora_rank',
      kvRank: 'kv_lora_rank',
      nopeDim: 'qk_nope_head_dim',
      ropeDim: 'qk_rope_head_dim',
      headDim: 'head_dim',
      groupSize: 'group_size',
      shareQueryDim: 'share_q_dim',
      factorQueryRank: 'q_rank',
      factorRank: 'rank',
    },
  },
  names: {
    layer: (index) => `transformer.h.${index}.`,
    attention: 'attn.',
    inputNorm: 'input_layernorm.weight',
    mlpNorm: 'post_attention_layernorm.weight',
    gate: 'mlp.c_fc1.weight',
    up: 'mlp.c_fc2.weight',
    down: 'mlp.c_proj.weight',
    attentionOut: 'c_proj.weight',
    finalNorm: 'layernorm.weight',
    head: 'lm_head.weight',
    embedding: 'transformer.wte.weight',
    tied: 'head',
  },
  normEps: 1e-6,
  tiedHead: true,
  allows: {},
  tokenizer: 'gpt2',
}
