// Llama, Mistral, Qwen and DeepSeek in plain float64 JavaScript, straight from tensors by name: no cache, no absorption, no shards, pairs
// rotated as pairs. An oracle for shapes that have no golden file. Slow; for tiny models.
import type { PlainTensor } from './models.js'
import { add, attend, dot, plainFrequencies, rotated, split, type Vector } from './plain-model.js'

export interface TransformersConfig {
  readonly num_hidden_layers: number
  readonly num_attention_heads: number
  readonly num_key_value_heads?: number
  readonly hidden_size: number
  readonly head_dim?: number
  readonly q_lora_rank?: number | null
  readonly kv_lora_rank?: number
  readonly qk_nope_head_dim?: number
  readonly qk_rope_head_dim?: number
  readonly v_head_dim?: number
  readonly rope_interleave?: boolean
  /** Default 1e-6. */
  readonly rms_norm_eps?: number
}

interface Layer {
  /** Weight [out, in] times x, plus the bias if there is one. */
  readonly linear: (key: string, x: Vector) => Vector
  readonly norm: (key: string, x: Vector) => Vector
  readonly has: (key: string) => boolean
}

/** Neighbours are the two parts of a vector that is rotated. */
function rotatedPairs(x: Vector, position: number): Vector {
  const frequencies = plainFrequencies(x.length / 2)
  return x.flatMap((_, i) => {
    if (i % 2 === 1) return []
    const [a, b] = x.slice(i, i + 2) as [number, number]
    const angle = position * (frequencies[i / 2] as number)
    return [a * Math.cos(angle) - b * Math.sin(angle), a * Math.sin(angle) + b * Math.cos(angle)]
  })
}

function groupedAttention(c: TransformersConfig, { linear, norm, has }: Layer, xs: Vector[]): Vector[] {
  const H = c.num_attention_heads
  const d = c.head_dim ?? c.hidden_size / H
  const group = H / (c.num_key_value_heads ?? H)
  const spread = (heads: Vector[]) => Array.from({ length: H }, (_, h) => heads[Math.floor(h / group)] as Vector)
  const heads = (key: string, x: Vector, t: number) =>
    split(linear(`${key}_proj`, x), d).map((v) => rotated(has(`${key}_norm.weight`) ? norm(`${key}_norm`, v) : v, t, plainFrequencies))
  return attend(
    xs.map((x, t) => heads('q', x, t)),
    xs.map((x, t) => spread(heads('k', x, t))),
    xs.map((x) => spread(split(linear('v_proj', x), d))),
    d ** -0.5,
  )
}

function latentAttention(c: Required<TransformersConfig>, { linear, norm, has }: Layer, xs: Vector[]): Vector[] {
  const [N, R, V] = [c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim]
  const rope = (x: Vector, t: number) => (c.rope_interleave === false ? rotated(x, t, plainFrequencies) : rotatedPairs(x, t))
  const query = (x: Vector) => (has('q_proj.weight') ? linear('q_proj', x) : linear('q_b_proj', norm('q_a_layernorm', linear('q_a_proj', x))))
  const kv = xs.map((x, t) => {
    const projected = linear('kv_a_proj_with_mqa', x)
    const key = rope(projected.slice(c.kv_lora_rank), t)
    const up = split(linear('kv_b_proj', norm('kv_a_layernorm', projected.slice(0, c.kv_lora_rank))), N + V)
    return { keys: up.map((u) => [...u.slice(0, N), ...key]), values: up.map((u) => u.slice(N)) }
  })
  return attend(
    xs.map((x, t) => split(query(x), N + R).map((q) => [...q.slice(0, N), ...rope(q.slice(N), t)])),
    kv.map(({ keys }) => keys),
    kv.map(({ values }) => values),
    (N + R) ** -0.5,
  )
}

/** Logits after every token: [T][vocab]. */
export function plainTransformersLogits(c: TransformersConfig, tensors: readonly PlainTensor[], ids: readonly number[]): number[][] {
  const byName = new Map(tensors.map((t) => [t.name, t]))
  const find = (name: string) => {
    const tensor = byName.get(name)
    if (!tensor) throw new Error(`no ${name}`)
    return tensor
  }
  const product = ({ values, shape }: PlainTensor, x: Vector) => {
    const cols = shape[1] as number
    return Array.from({ length: shape[0] as number }, (_, r) => dot(Array.from(values.subarray(r * cols, (r + 1) * cols)), x))
  }
  const rms = ({ values }: PlainTensor, x: Vector, epsilon: number) => {
    const r = 1 / Math.sqrt(dot(x, x) / x.length + epsilon)
    return x.map((v, i) => v * r * (values[i] as number))
  }
  const epsilon = c.rms_norm_eps ?? 1e-6
  const embedding = find('model.embed_tokens.weight')
  const head = byName.get('lm_head.weight') ?? embedding
  let xs = ids.map((id) => Array.from(embedding.values.subarray(id * c.hidden_size, (id + 1) * c.hidden_size)))
  for (let i = 0; i < c.num_hidden_layers; i++) {
    const block = `model.layers.${i}.`
    const attention = `${block}self_attn.`
    const layer: Layer = {
      has: (key) => byName.has(attention + key),
      linear: (key, x) => {
        const y = product(find(`${attention}${key}.weight`), x)
        const bias = byName.get(`${attention}${key}.bias`)
        return bias ? y.map((v, j) => v + (bias.values[j] as number)) : y
      },
      // The norms of latents have an epsilon of their own.
      norm: (key, x) => rms(find(`${attention}${key}.weight`), x, key.includes('_a_') ? 1e-6 : epsilon),
    }
    const normed = xs.map((x) => rms(find(`${block}input_layernorm.weight`), x, epsilon))
    const isLatent = layer.has('kv_b_proj.weight')
    const y = isLatent ? latentAttention(c as Required<TransformersConfig>, layer, normed) : groupedAttention(c, layer, normed)
    xs = xs.map((x, t) => add(x, layer.linear('o_proj', y[t] as Vector)))
    xs = xs.map((x) => {
      const n = rms(find(`${block}post_attention_layernorm.weight`), x, epsilon)
      const up = product(find(`${block}mlp.up_proj.weight`), n)
      const hidden = product(find(`${block}mlp.gate_proj.weight`), n).map((g, j) => (g / (1 + Math.exp(-g))) * (up[j] as number))
      return add(x, product(find(`${block}mlp.down_proj.weight`), hidden))
    })
  }
  return xs.map((x) => product(head, rms(find('model.norm.weight'), x, epsilon)))
}
