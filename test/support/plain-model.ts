// The authors' models in plain float64 JavaScript, straight from tensors by name: no cache, no absorption, no shards. An
// oracle of its own for shapes that have no golden file. Slow; for tiny models.
import type { PlainTensor } from './models.js'

export type Vector = number[]

export interface PlainConfig {
  readonly n_layer: number
  readonly n_head: number
  readonly n_embd: number
  readonly kv_lora_rank?: number
  readonly q_lora_rank?: number
  readonly qk_nope_head_dim?: number
  readonly qk_rope_head_dim?: number
  readonly head_dim?: number
  readonly group_size?: number
  readonly q_rank?: number
  readonly rank?: number
  /** Default 1e-6. */
  readonly rms_norm_eps?: number
  /** Angles per token of `half` vectors; default 10000^(-i / half). */
  readonly frequencies?: (half: number) => readonly number[]
}

interface Layer {
  /** Weight [out, in] times x. */
  readonly linear: (key: string, x: Vector) => Vector
  readonly norm: (key: string, x: Vector) => Vector
  readonly rope: (x: Vector, position: number) => Vector
  readonly tensor: (key: string) => PlainTensor
  readonly has: (key: string) => boolean
}

/** Per position: [heads][d] queries, keys and values; softmax scale. Attends causally and joins the heads. */
export function attend(queries: Vector[][], keys: Vector[][], values: Vector[][], scale: number): Vector[] {
  return queries.map((heads, t) =>
    heads.flatMap((q, h) => {
      const scores = Array.from({ length: t + 1 }, (_, s) => dot(q, keys[s]?.[h] as Vector) * scale)
      const max = Math.max(...scores)
      const p = scores.map((v) => Math.exp(v - max))
      const total = p.reduce((a, b) => a + b, 0)
      const value = (s: number) => (values[s] as Vector[])[h] as Vector
      return value(t).map((_, i) => p.reduce((sum, w, s) => sum + (w / total) * (value(s)[i] as number), 0))
    }),
  )
}

export const dot = (a: Vector, b: Vector) => a.reduce((sum, v, i) => sum + v * (b[i] as number), 0)
export const add = (a: Vector, b: Vector) => a.map((v, i) => v + (b[i] as number))
const scaled = (a: Vector, f: number) => a.map((v) => v * f)

export const plainFrequencies = (half: number) => Array.from({ length: half }, (_, i) => 10000 ** (-i / half))

export function rotated(x: Vector, position: number, frequencies: (half: number) => readonly number[]): Vector {
  const half = x.length / 2
  const all = frequencies(half)
  const angle = (i: number) => position * (all[i] as number)
  return x.map((v, i) =>
    i < half
      ? v * Math.cos(angle(i)) - (x[i + half] as number) * Math.sin(angle(i))
      : (x[i - half] as number) * Math.sin(angle(i - half)) + v * Math.cos(angle(i - half)),
  )
}

export function split(x: Vector, width: number): Vector[] {
  return Array.from({ length: x.length / width }, (_, i) => x.slice(i * width, (i + 1) * width))
}

function latentAttention(variant: string, c: Required<PlainConfig>, layer: Layer, xs: Vector[]): Vector[] {
  const { rope } = layer
  const [H, N, R, E] = [c.n_head, c.qk_nope_head_dim, c.qk_rope_head_dim, c.n_embd]
  const name = variant.replace('_no_scale', '').replace('_gated', '')
  const factors = !variant.endsWith('_no_scale')
  const L = name === 'mla' ? 1 : name === 'gla_2' ? 2 : 4
  const D = c.kv_lora_rank / L
  const qFactor = factors ? Math.sqrt(E / c.q_lora_rank) : 1
  const kFactor = factors ? Math.sqrt(E / D) : 1
  const outFactor = !factors ? 1 : name === 'mlra_4' ? 0.5 : name === 'mlra_2' ? Math.SQRT1_2 : 1
  const serves = (l: number, h: number) =>
    name === 'mla' || name === 'mlra_4'
      ? true
      : name === 'gla_2'
        ? Math.floor((2 * h) / H) === l
        : name === 'gla_4'
          ? Math.floor((4 * h) / H) === l
          : Math.floor((2 * h) / H) === l % 2
  const normKey = (l: number) =>
    name === 'mla' ? 'kv_a_layernorm.weight' : name === 'gla_2' ? `kv_a_layernorm_${l + 1}.weight` : `kv_a_layernorms.${l}.weight`
  /** W_UK and W_UV times a latent, for the i-th head that the latent serves: [2N]. */
  const up = (l: number, i: number, latent: Vector): Vector => {
    if (L < 4) {
      const { values } = layer.tensor(name === 'mla' ? 'kv_b_proj.weight' : `kv_b_proj_${l + 1}.weight`)
      return Array.from({ length: 2 * N }, (_, r) => dot(Array.from(values.subarray((i * 2 * N + r) * D, (i * 2 * N + r + 1) * D)), latent))
    }
    const { values, shape } = layer.tensor('kv_b_proj')
    const out = shape[2] as number
    return Array.from({ length: 2 * N }, (_, r) => latent.reduce((sum, v, d) => sum + v * (values[(l * D + d) * out + i * 2 * N + r] as number), 0))
  }
  const queries = xs.map((x, t) =>
    split(layer.linear('q_b_proj.weight', scaled(layer.norm('q_a_layernorm.weight', layer.linear('q_a_proj.weight', x)), qFactor)), N + R).map(
      (q) => [...q.slice(0, N), ...rope(q.slice(N), t)],
    ),
  )
  const projected = xs.map((x) => layer.linear('kv_a_proj_with_mqa.weight', x))
  let sum = xs.map(() => new Array<number>(H * N).fill(0))
  for (let l = 0; l < L; l++) {
    const latents = projected.map((p) => scaled(layer.norm(normKey(l), p.slice(l * D, (l + 1) * D)), kFactor))
    const heads = Array.from({ length: H }, (_, h) => h).filter((h) => serves(l, h))
    const kv = latents.map((latent) => heads.map((_, i) => up(l, i, latent)))
    const keys = kv.map((heads, t) => heads.map((u) => [...u.slice(0, N), ...rope((projected[t] as Vector).slice(L * D), t)]))
    const y = attend(
      queries.map((q) => heads.map((h) => q[h] as Vector)),
      keys,
      kv.map((heads) => heads.map((u) => u.slice(N))),
      (N + R) ** -0.5,
    )
    sum = sum.map((row, t) => {
      const out = [...row]
      for (const [i, h] of heads.entries()) for (let n = 0; n < N; n++) out[h * N + n] = (out[h * N + n] as number) + (y[t]?.[i * N + n] as number)
      return out
    })
  }
  return sum.map((row) => scaled(row, outFactor))
}

function headAttention(variant: string, c: Required<PlainConfig>, layer: Layer, xs: Vector[]): Vector[] {
  const [H, d] = [c.n_head, c.head_dim]
  const { rope } = layer
  if (variant === 'tpa') {
    const factor = (which: string, rank: number, rotate: boolean) =>
      xs.map((x, t) => {
        const a = split(layer.linear(`c_qkv.W_A_${which}.weight`, x), rank)
        const b = split(layer.linear(`c_qkv.W_B_${which}.weight`, x), d).map((v) => (rotate ? rope(v, t) : v))
        return a.map((weights) => scaled(b.map((v, r) => scaled(v, weights[r] as number)).reduce(add), 1 / rank))
      })
    return attend(factor('q', c.q_rank, true), factor('k', c.rank, true), factor('v', c.rank, false), d ** -0.5)
  }
  const group = variant === 'mha' ? 1 : variant === 'mfa' || variant === 'mqa' ? H : c.group_size
  const spread = (heads: Vector[]) => Array.from({ length: H }, (_, h) => heads[Math.floor(h / group)] as Vector)
  if (variant === 'gta') {
    const kv = xs.map((x) => spread(split(layer.linear('kv_proj.weight', x), d)))
    const shared = xs.map((x, t) => rope(layer.linear('W_rope_k.weight', x), t))
    const queries = xs.map((x, t) => split(layer.linear('c_q.weight', x), d).map((q) => [...q.slice(0, d / 2), ...rope(q.slice(d / 2), t)]))
    const keys = kv.map((heads, t) => heads.map((v) => [...v.slice(0, d / 2), ...(shared[t] as Vector)]))
    return attend(queries, keys, kv, d ** -0.5)
  }
  const query = (x: Vector) =>
    variant === 'mfa' ? layer.linear('w_q.weight', layer.norm('q_layernorm.weight', layer.linear('c_q.weight', x))) : layer.linear('c_q.weight', x)
  return attend(
    xs.map((x, t) => split(query(x), d).map((q) => rope(q, t))),
    xs.map((x, t) => spread(split(layer.linear('c_k.weight', x), d).map((k) => rope(k, t)))),
    xs.map((x) => spread(split(layer.linear('c_v.weight', x), d))),
    d ** -0.5,
  )
}

/** Logits after every token: [T][vocab]. */
export function plainLogits(variant: string, config: PlainConfig, tensors: readonly PlainTensor[], ids: readonly number[]): number[][] {
  const c = config as Required<PlainConfig>
  const byName = new Map(tensors.map((t) => [t.name, t]))
  const find = (name: string) => {
    const tensor = byName.get(name)
    if (!tensor) throw new Error(`no ${name}`)
    return tensor
  }
  const matrix = ({ values, shape }: PlainTensor, x: Vector) => {
    const cols = shape[1] as number
    return Array.from({ length: shape[0] as number }, (_, r) => {
      let sum = 0
      for (let k = 0; k < cols; k++) sum += (values[r * cols + k] as number) * (x[k] as number)
      return sum
    })
  }
  const rms = (w: PlainTensor, x: Vector) => {
    const r = 1 / Math.sqrt(dot(x, x) / x.length + (config.rms_norm_eps ?? 1e-6))
    return x.map((v, i) => v * r * (w.values[i] as number))
  }
  const head = find('lm_head.weight')
  const embedding = byName.get('transformer.wte.weight') ?? head
  let xs = ids.map((id) => Array.from(embedding.values.subarray(id * c.n_embd, (id + 1) * c.n_embd)))
  for (let i = 0; i < c.n_layer; i++) {
    const block = `transformer.h.${i}.`
    const layer: Layer = {
      tensor: (key) => find(`${block}attn.${key}`),
      rope: (x, position) => rotated(x, position, config.frequencies ?? plainFrequencies),
      has: (key) => byName.has(`${block}attn.${key}`),
      linear: (key, x) => matrix(find(`${block}attn.${key}`), x),
      norm: (key, x) => rms(find(`${block}attn.${key}`), x),
    }
    const normed = xs.map((x) => rms(find(`${block}input_layernorm.weight`), x))
    const latent = /^(mlra|gla|mla)/.test(variant)
    let y = latent ? latentAttention(variant, c, layer, normed) : headAttention(variant.replace('_gated', ''), c, layer, normed)
    const gate = ['gated_proj.weight', 'c_gated.weight'].find(layer.has)
    if (gate) y = y.map((row, t) => layer.linear(gate, normed[t] as Vector).map((g, j) => (row[j] as number) / (1 + Math.exp(-g))))
    xs = xs.map((x, t) => add(x, layer.linear('c_proj.weight', y[t] as Vector)))
    xs = xs.map((x) => {
      const n = rms(find(`${block}post_attention_layernorm.weight`), x)
      const up = matrix(find(`${block}mlp.c_fc2.weight`), n)
      const hidden = matrix(find(`${block}mlp.c_fc1.weight`), n).map((g, j) => (g / (1 + Math.exp(-g))) * (up[j] as number))
      return add(x, matrix(find(`${block}mlp.c_proj.weight`), hidden))
    })
  }
  return xs.map((x) => matrix(head, rms(find('layernorm.weight'), x)))
}
