// Latent attention: L latent heads of width D = kv_lora_rank / L, each attended by some of the heads through matrices of their own
// (W_UK, W_UV). mla, gla_2, gla_4, mlra_2 and mlra_4, gated and without scales. Source: the authors' model/*.py.
import { SHARDS } from '../../../workers/protocol.js'
import { invalidConfig } from '../invalid-config.js'
import type { ModelConfig } from '../model-config.js'
import type { AttentionContext, LoweredAttention, MatrixPart, PresetSize, ShapeOf, TensorSpec, Variant } from './family.js'
import { matrix, norm, part, whole } from './family.js'
import { cutsOf, eachShard, keyOf, need, unit } from './geometry.js'
import { GPT } from './gpt.js'

interface LatentRow {
  readonly latents: 1 | 2 | 4
  /** Of n heads, those that attend latent l: [start, end). */
  readonly headsOf: (latent: number, heads: number) => readonly [number, number]
  /** Multiplies the sum over latents. */
  readonly outputFactor: number
  /** n_head must be a multiple of it. */
  readonly headMultiple: number
  readonly normKey: (latent: number) => string
  /** One parameter [L, D, heads * 2N] for all latents, or a Linear weight [heads * 2N, D] for each. */
  readonly upKey: string | ((latent: number) => string)
}

const STACKED = 'kv_b_proj'
const GATE = 'gated_proj.weight'
const stackedKeys = { normKey: (l: number) => `kv_a_layernorms.${l}.weight`, upKey: STACKED } as const
const halves = (l: number, n: number) => (l % 2 === 0 ? ([0, n / 2] as const) : ([n / 2, n] as const))

const ROWS = {
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
} satisfies Record<string, LatentRow>

type LatentName = keyof typeof ROWS

class LatentVariant implements Variant {
  readonly name: string
  readonly decoder = GPT
  readonly isPlain: boolean
  readonly row: LatentRow
  readonly isGated: boolean
  /** The factors sqrt(E/QL), sqrt(E/D) and outputFactor are there; in no_scale models they are 1. */
  readonly #isScaled: boolean

  constructor(row: LatentName, kind: 'plain' | 'gated' | 'no_scale') {
    this.name = kind === 'plain' ? row : `${row}_${kind}`
    this.row = ROWS[row]
    this.isPlain = kind === 'plain'
    this.isGated = kind === 'gated'
    this.#isScaled = kind !== 'no_scale'
  }

  matches(config: ModelConfig, shapeOf: ShapeOf): boolean {
    return (shapeOf(GATE) !== undefined) === this.isGated && this.matchesLatents(config, shapeOf)
  }

  /** The same, gated or not. */
  matchesLatents(config: ModelConfig, shapeOf: ShapeOf): boolean {
    const { normKey, upKey } = this.row
    if (typeof upKey !== 'string') return shapeOf(normKey(0)) !== undefined && shapeOf(upKey(0)) !== undefined
    return shapeOf(upKey)?.join() === this.stackedShape(config).join()
  }

  /** Shape of the parameter of all latents, by the configuration. */
  stackedShape({ dims, heads }: ModelConfig): number[] {
    const { latents, headsOf } = this.row
    const [start, end] = headsOf(0, heads)
    return [latents, (dims.kvRank ?? 0) / latents, (end - start) * 2 * (dims.nopeDim ?? 0)]
  }

  lower(config: ModelConfig): LoweredAttention {
    const [queryRank, kvRank] = [need(config, 'queryRank'), need(config, 'kvRank')]
    const [nopeDim, ropeDim] = [need(config, 'nopeDim'), need(config, 'ropeDim')]
    const { heads, embed, normEps } = config
    const { latents, headsOf, headMultiple, outputFactor } = this.row
    if (kvRank % latents !== 0)
      throw invalidConfig(`${keyOf(config, 'kvRank')} cannot be cut into ${latents} latent heads`, `a multiple of ${latents}`, String(kvRank))
    if (ropeDim % 2 !== 0) throw invalidConfig(`${keyOf(config, 'ropeDim')} is odd`, 'an even number', String(ropeDim))
    if (heads % headMultiple !== 0)
      throw invalidConfig(`${config.decoder.config.heads} cannot be cut as ${this.name} does`, `a multiple of ${headMultiple}`, String(heads))
    const width = kvRank / latents
    // 4 / latents shards share a latent and split its heads.
    const each = SHARDS / latents
    const units = eachShard((s) => {
      const stream = Math.floor(s / each)
      const [start, end] = headsOf(stream, heads)
      const at = (i: number) => start + Math.floor((i * (end - start)) / each)
      return unit(stream, at(s % each), at((s % each) + 1))
    })
    return {
      attention: {
        heads,
        nopeDim,
        ropeDim,
        valueDim: nopeDim,
        queryRank,
        queryNormed: true,
        headNormed: false,
        biased: false,
        streams: latents,
        stream: { width, keyWidth: width, valueOffset: 0, valueWidth: width, normWidth: width, ropeVectors: 0 },
        absorbed: true,
        sharedRopeDim: ropeDim,
        factors: undefined,
        gated: this.isGated,
        units,
        headCuts: cutsOf(heads),
        scale: (nopeDim + ropeDim) ** -0.5,
        outputFactor: this.#isScaled ? outputFactor : 1,
        normEps,
      },
      queryNormFactor: this.#isScaled ? Math.fround(Math.sqrt(embed / queryRank)) : 1,
      streamNormFactor: this.#isScaled ? Math.fround(Math.sqrt(embed / width)) : 1,
    }
  }

  tensors({ attention: a, embed, queryNormFactor, streamNormFactor }: AttentionContext): TensorSpec[] {
    const { normKey } = this.row
    const { width } = a.stream
    const latents = a.streams * width
    const each = <T>(of: (latent: number) => T) => Array.from({ length: a.streams }, (_, l) => of(l))
    return [
      norm('q_a_layernorm.weight', a.queryRank, { vector: 'query' }, queryNormFactor),
      whole('q_a_proj.weight', [a.queryRank, embed], { name: 'queryA' }),
      whole('q_b_proj.weight', [a.heads * (a.nopeDim + a.ropeDim), a.queryRank], { name: 'queryB' }, { init: { inputScale: queryNormFactor } }),
      ...each((l) => norm(normKey(l), width, { vector: 'stream', stream: l }, streamNormFactor)),
      matrix(
        'kv_a_proj_with_mqa.weight',
        [latents + a.ropeDim, embed],
        [
          ...each((l) => part({ row: l * width, rows: width, col: 0, cols: embed }, { name: 'stream', stream: l })),
          part({ row: latents, rows: a.ropeDim, col: 0, cols: embed }, { name: 'ropeKey' }),
        ],
      ),
      ...this.#upTensors(a, streamNormFactor),
      ...(this.isGated ? [whole(GATE, [a.heads * a.valueDim, embed], { name: 'outputGate' })] : []),
    ]
  }

  /** W_UK and W_UV, interleaved by heads: N columns (rows of a Linear weight) of W_UK, then N of W_UV. */
  #upTensors(a: AttentionContext['attention'], inputScale: number): TensorSpec[] {
    const { upKey, headsOf } = this.row
    const { width } = a.stream
    const { nopeDim } = a
    const headsAt = (l: number) => {
      const [start, end] = headsOf(l, a.heads)
      return Array.from({ length: end - start }, (_, i) => start + i)
    }
    const latents = Array.from({ length: a.streams }, (_, l) => l)
    const parts = (l: number, area: (at: number) => MatrixPart['area'], isStacked: boolean) =>
      headsAt(l).flatMap((head, i) => [
        part(area(2 * i * nopeDim), { name: 'keyUp', stream: l, head }, 0, !isStacked),
        part(area((2 * i + 1) * nopeDim), { name: 'valueUp', stream: l, head }, 0, isStacked),
      ])
    if (typeof upKey === 'string') {
      const all = latents.flatMap((l) => parts(l, (at) => ({ row: l * width, rows: width, col: at, cols: nopeDim }), true))
      return [matrix(upKey, [a.streams, width, headsAt(0).length * 2 * nopeDim], all, { inputs: width, init: { inputScale } })]
    }
    return latents.map((l) => {
      const all = parts(l, (at) => ({ row: at, rows: nopeDim, col: 0, cols: width }), false)
      return matrix(upKey(l), [headsAt(l).length * 2 * nopeDim, width], all, { init: { inputScale } })
    })
  }

  presetFields({ latent }: PresetSize): Record<string, number> {
    return {
      q_lora_rank: latent.queryRank(this.row.latents),
      kv_lora_rank: latent.kvRank,
      qk_nope_head_dim: latent.nopeDim,
      qk_rope_head_dim: latent.ropeDim,
    }
  }
}

export const LATENT_VARIANTS = [
  new LatentVariant('mlra_4', 'plain'),
  new LatentVariant('mlra_2', 'plain'),
  new LatentVariant('gla_4', 'plain'),
  new LatentVariant('gla_2', 'plain'),
  new LatentVariant('mla', 'plain'),
  new LatentVariant('mlra_4', 'gated'),
  new LatentVariant('mlra_2', 'gated'),
  new LatentVariant('gla_2', 'gated'),
  new LatentVariant('mla', 'gated'),
  new LatentVariant('mlra_2', 'no_scale'),
  new LatentVariant('gla_2', 'no_scale'),
  new LatentVariant('mla', 'no_scale'),
] as const

/** Why a checkpoint with the stacked parameter of latent variants is none that Tetrad runs. */
export type StackedMismatch =
  | { readonly reason: 'rank' }
  | { readonly reason: 'gate'; readonly variant: string }
  | { readonly reason: 'shape'; readonly shape: readonly number[]; readonly expected: string }

/** Undefined: the checkpoint has no such parameter. */
export function explainStacked(config: ModelConfig, shapeOf: ShapeOf): StackedMismatch | undefined {
  const shape = shapeOf(STACKED)
  if (!shape) return undefined
  if ((config.dims.kvRank ?? 0) % 4 !== 0) return { reason: 'rank' }
  const rows = LATENT_VARIANTS.filter(({ row }) => row.upKey === STACKED)
  const isGated = shapeOf(GATE) !== undefined
  const other = rows.find((v) => v.isGated !== isGated && v.matchesLatents(config, shapeOf))
  if (other) return { reason: 'gate', variant: isGated ? `${other.name}_gated` : other.name }
  return { reason: 'shape', shape, expected: rows.map((v) => `${v.name}: [${v.stackedShape(config).join(', ')}]`).join(', ') }
}
