// Fields of a config.json that change what a model computes and that Tetrad cannot honour: refused by name unless they have the one
// value that changes nothing. Names as transformers and the authors spell them.
import { type Fail, show } from '../options/check.js'
import type { Decoder } from './families/family.js'

interface Rule {
  readonly fields: readonly string[]
  /** Values that the models have, unless their decoder says otherwise; null and an absent field always pass. */
  readonly allowed: readonly unknown[]
  readonly expected: string
}

const off = (expected: string, ...fields: string[]): Rule => ({ fields, allowed: [false], expected })
const none = (expected: string, ...fields: string[]): Rule => ({ fields, allowed: [], expected })
const one = (...fields: string[]): Rule => ({ fields, allowed: [1], expected: '1' })

/** What holds for every decoder that does not allow more. */
const RULES: readonly Rule[] = [
  off(
    'false: these models have no biases',
    'bias',
    'use_bias',
    'mlp_bias',
    'attention_bias',
    'attention_out_bias',
    'qkv_bias',
    'add_bias_linear',
    'lm_head_bias',
    'use_mrope',
  ),
  {
    fields: ['hidden_act', 'hidden_activation', 'activation_function', 'activation', 'act_fn'],
    allowed: ['silu', 'swish', 'swiglu'],
    expected: 'silu: the MLP is SwiGLU',
  },
  one('partial_rotary_factor', 'rotary_pct', 'rotary_percent', 'rope_percent', 'rope_factor', 'rope_scaling_factor'),
  off('false: rotary vectors are two halves', 'rope_interleave', 'rope_interleaved', 'rotary_emb_interleaved', 'rope_traditional'),
  none('no field: use rope_theta', 'rope_base', 'rotary_base', 'rotary_emb_base', 'rope_freq_base'),
  none('no quantization: weights are f32, f16, bf16 or f64', 'quantization_config', 'compression_config'),
  none(
    'no experts: the MLP is dense',
    'num_experts',
    'num_local_experts',
    'n_routed_experts',
    'n_shared_experts',
    'moe_intermediate_size',
    'num_experts_per_tok',
    'decoder_sparse_step',
  ),
  none('no limit on scores or logits', 'attn_logit_softcapping', 'final_logit_softcapping', 'logit_softcap', 'attn_logit_softcap'),
  one('embedding_multiplier', 'residual_multiplier', 'logits_scaling', 'logit_scale', 'scale_emb', 'scale_depth'),
  none('no scale of its own: the scale follows from the width of a head', 'attention_multiplier', 'query_pre_attn_scalar', 'softmax_scale'),
  off('false', 'use_qk_norm', 'qk_norm', 'qk_layernorm', 'alibi', 'parallel_attn', 'use_parallel_residual', 'add_cross_attention', 'use_alibi'),
  { fields: ['position_embedding_type'], allowed: ['rope', 'rotary'], expected: 'rope' },
]

const EPSILONS = ['layer_norm_epsilon', 'layer_norm_eps', 'norm_epsilon', 'norm_eps', 'layernorm_epsilon', 'rms_norm_epsilon'] as const

/**
 * Refuses by name what cannot be honoured. context: tokens that the model takes; normEps: the epsilon in use.
 * Throws what `fail` makes.
 */
export function refuseUnsupported(
  config: Readonly<Record<string, unknown>>,
  decoder: Decoder,
  { context, normEps }: { readonly context: number; readonly normEps: number },
  fail: Fail,
): void {
  const refuse = (name: string, expected: string) => {
    const remedy = `Use a checkpoint without ${name}, or remove the field if the model does not use it.`
    return fail({ what: `${name} is not supported`, expected, actual: show(config[name]), remedy })
  }
  const isSet = (name: string) => config[name] !== undefined && config[name] !== null
  for (const { fields, allowed, expected } of RULES) {
    for (const name of fields) {
      const own = decoder.allows[name]
      if (isSet(name) && own !== null && !(own ?? allowed).includes(config[name])) throw refuse(name, expected)
    }
  }
  for (const name of EPSILONS) if (isSet(name) && config[name] !== normEps) throw refuse(name, `${normEps}, which rms_norm_eps sets`)
  // A decoder with windows reads them itself.
  if (decoder.window) return
  const window = config.sliding_window
  if (isSet('sliding_window') && config.use_sliding_window !== false && !(typeof window === 'number' && window >= context))
    throw refuse('sliding_window', `null, or at least the context of ${context} tokens`)
  const types = config.layer_types
  if (isSet('layer_types') && !(Array.isArray(types) && types.every((type) => type === 'full_attention')))
    throw refuse('layer_types', 'full_attention for every layer')
}
