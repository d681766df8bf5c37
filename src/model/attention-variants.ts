// The attention variants as table rows. detect-variant.ts finds a checkpoint's row, lower-model.ts makes streams and units of it.
// Nothing below src/ knows a variant's name. Source: the authors' model/*.py.
/** Names and shapes of a checkpoint's tensors, as far as detection needs them. */
export type ShapeOf = (tensor: string) => readonly number[] | undefined

/** Latent variants: L latent heads of width D = kv_lora_rank / L, each serving some of the heads. */
export interface LatentRow {
  readonly tensors: 'latent'
  readonly latents: 1 | 2 | 4
  /** Of n heads, those that latent l serves: [start, end). */
  readonly headsOf: (latent: number, heads: number) => readonly [number, number]
  /** Multiplies the sum over latents. */
  readonly outputFactor: number
  /** n_head must be a multiple of it. */
  readonly headMultiple: number
  /** Under attn. */
  readonly normKey: (latent: number) => string
  /** One parameter [L, D, heads * 2N] for all latents, or a Linear weight [heads * 2N, D] for each. */
  readonly upKey: string | ((latent: number) => string)
  /** The factors sqrt(E/QL), sqrt(E/D) and outputFactor are there; in no_scale models they are 1. */
  readonly scaled: boolean
}

/** Keys and values of n_head / group_size KV heads, as they are. */
export interface GroupedRow {
  readonly tensors: 'grouped'
  /** Heads per KV head of n when config.json has no group_size; undefined: it must have it, or the tensors tell. */
  readonly groupSize: ((heads: number) => number) | undefined
  /** Queries come from a shared latent of share_q_dim. */
  readonly sharedQuery: boolean
}

/** gta: half of a key is the first half of the value, the other half a rope key shared by all heads. */
interface TiedRow {
  readonly tensors: 'tied'
}

/** tpa: queries, keys and values are products of factors. */
interface FactoredRow {
  readonly tensors: 'factored'
}

export type Variant = (LatentRow | GroupedRow | TiedRow | FactoredRow) & { readonly name: string; readonly gated: boolean }

const stackedKeys = { normKey: (l: number) => `kv_a_layernorms.${l}.weight`, upKey: 'kv_b_proj' } as const

const halves = (l: number, n: number) => (l % 2 === 0 ? ([0, n / 2] as const) : ([n / 2, n] as const))

const LATENT = {
  mlra_4: { latents: 4, headsOf: (_l, n) => [0, n], outputFactor: 4 ** -0.5, headMultiple: 1, ...stackedKeys },
  mlra_2: { latents: 4, headsOf: halves, outputFactor: 2 ** -0.5, headMultiple: 2, ...stackedKeys },
  gla_4: { latents: 4, headsOf: (l, n) => [(l * n) / 4, ((l + 1) * n) / 4], outputFactor: 1, headMultiple: 4, ...stackedKeys },
  gla_2: {
    latents: 2,
    headsOf: halves,
    outputFactor: 1,
    headMultiple: 2,
    normKey: (l) => `kv_a_layernorm_${l + 1}.weight`,
    upKey: (l) => `kv_b_proj_${l + 1}.weight`,
  },
  mla: {
    latents: 1,
    headsOf: (_l, n) => [0, n],
    outputFactor: 1,
    headMultiple: 1,
    normKey: () => 'kv_a_layernorm.weight',
    upKey: () => 'kv_b_proj.weight',
  },
} satisfies Record<string, Omit<LatentRow, 'tensors' | 'scaled'>>

type LatentName = keyof typeof LATENT
const latent = (of: LatentName, name: string = of, change: { gated?: boolean; scaled?: boolean } = {}): Variant => ({
  name,
  tensors: 'latent',
  gated: false,
  scaled: true,
  ...LATENT[of],
  ...change,
})
const gated = (of: LatentName) => latent(of, `${of}_gated`, { gated: true })
const noScale = (of: LatentName) => latent(of, `${of}_no_scale`, { scaled: false })

const grouped = { tensors: 'grouped', gated: false, groupSize: undefined, sharedQuery: false } as const

/** The first that a checkpoint shows is taken. */
export const VARIANTS: readonly Variant[] = [
  latent('mlra_4'),
  latent('mlra_2'),
  latent('gla_4'),
  latent('gla_2'),
  latent('mla'),
  gated('mlra_4'),
  gated('mlra_2'),
  gated('gla_2'),
  gated('mla'),
  noScale('mlra_2'),
  noScale('gla_2'),
  noScale('mla'),
  { ...grouped, name: 'mha', groupSize: () => 1 },
  { ...grouped, name: 'gqa' },
  { ...grouped, name: 'gqa_gated', gated: true },
  // The authors have no model file of this name: their mqa is gqa in one group, and is detected as that.
  { ...grouped, name: 'mqa', groupSize: (heads) => heads },
  { ...grouped, name: 'mfa', groupSize: (heads) => heads, sharedQuery: true },
  { name: 'gta', tensors: 'tied', gated: false },
  { name: 'tpa', tensors: 'factored', gated: false },
]

export const VARIANT_NAMES: readonly string[] = VARIANTS.map((v) => v.name)

export function variantNamed(name: string): Variant {
  return VARIANTS.find((v) => v.name === name) as Variant
}

/** Where the tensors of the first layer's attention are. */
export const ATTENTION = 'transformer.h.0.attn.'
