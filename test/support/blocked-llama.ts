// A checkpoint that keeps blocks of GGML: one that is written as a GGUF file is loaded exactly.
import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { FIXTURES, randomNumbers } from './fixtures.js'
import { editConfig, safetensors } from './models.js'

/** A Llama whose shards are cut between blocks of 32, with random weights. Returns dir. */
export function blockedLlama(dir: string): string {
  cpSync(`${FIXTURES}golden-hf/llama/config.json`, join(dir, 'config.json'))
  editConfig(dir, { hidden_size: 128, head_dim: 32, intermediate_size: 128 })
  const next = randomNumbers(23)
  const tensor = (name: string, ...shape: number[]) => ({
    name,
    shape,
    values: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => (shape.length === 1 ? 1 : (next() - 0.5) * 0.3)),
  })
  const layers = [0, 1].flatMap((layer) => {
    const inLayer = (name: string, ...shape: number[]) => tensor(`model.layers.${layer}.${name}.weight`, ...shape)
    return [
      ...['q_proj', 'o_proj'].map((name) => inLayer(`self_attn.${name}`, 128, 128)),
      ...['k_proj', 'v_proj'].map((name) => inLayer(`self_attn.${name}`, 64, 128)),
      ...['gate_proj', 'up_proj', 'down_proj'].map((name) => inLayer(`mlp.${name}`, 128, 128)),
      ...['input_layernorm', 'post_attention_layernorm'].map((name) => inLayer(name, 128)),
    ]
  })
  const outside = [tensor('model.embed_tokens.weight', 160, 128), tensor('lm_head.weight', 160, 128), tensor('model.norm.weight', 128)]
  writeFileSync(join(dir, 'model.safetensors'), safetensors([...outside, ...layers]))
  return dir
}
