// Which part of which tensor goes where: the authors' key names on one side, the model layout on the other.
// Reads no data. A tensor that is missing, surplus or of another shape is named here.
import type { PackedMatrix } from '../../kernels/packing.js'
import { cut, type ModelLayout, type RankLayout, type ShardLayer, unitOf } from '../../workers/model-layout.js'
import { type MatrixPiece, type MemoryName, SHARDS, type VectorPiece } from '../../workers/protocol.js'
import type { LoweredModel, Variant } from '../config/attention-variants.js'
import { CheckpointError } from '../errors.js'
import type { TensorSource } from './tensor-source.js'

/** One tensor's way into the memories. As [rows, cols]: cols is its last dimension, rows all others. */
export interface TensorPlan {
  readonly source: TensorSource
  readonly rows: number
  readonly cols: number
  readonly pieces: readonly MatrixPiece[]
  readonly vectors: readonly VectorPiece[]
}

/** Plans every tensor of the checkpoint. Throws TENSOR_MISSING, TENSOR_SURPLUS or TENSOR_SHAPE. */
export function planShards(tensors: ReadonlyMap<string, TensorSource>, model: LoweredModel, variant: Variant, layout: ModelLayout): TensorPlan[] {
  const { shape } = model
  const { embed, intermediate, attention: a } = shape
  const planner = new Planner(tensors)
  const eachShard = (of: (s: number) => MatrixPiece[]) => Array.from({ length: SHARDS }, (_, s) => of(s)).flat()
  const eachRank = <T>(of: (rank: RankLayout, index: number) => T[]) => layout.ranks.flatMap(of)
  const shardMemory = (index: number): MemoryName => ({ kind: 'shard', index })
  const rankMemory = (index: number): MemoryName => ({ kind: 'rank', index })
  const queryWidth = a.nopeDim + a.ropeDim

  for (let i = 0; i < shape.layers; i++) {
    const prefix = `transformer.h.${i}.`
    const of = (s: number) => layout.shards[s]?.layers[i] as ShardLayer
    const rankLayer = (rank: RankLayout) => rank.layers[i] as RankLayout['layers'][number]
    const norm = (name: string, n: number, factor: number, pick: (layer: RankLayout['layers'][number], rank: RankLayout) => (number | undefined)[]) =>
      planner.vector(
        prefix + name,
        n,
        eachRank((rank, r) => pick(rankLayer(rank), rank).flatMap((ptr) => (ptr === undefined ? [] : [{ memory: rankMemory(r), ptr, factor }]))),
      )
    norm('input_layernorm.weight', embed, 1, (layer) => [layer.inputNorm])
    norm('post_attention_layernorm.weight', embed, 1, (layer) => [layer.mlpNorm])
    norm('attn.q_a_layernorm.weight', a.queryRank, model.queryNormFactor, (layer) => [layer.queryNorm])
    for (let stream = 0; stream < a.units.length; stream++) {
      norm(`attn.kv_a_layernorms.${stream}.weight`, a.latentDim, model.latentNormFactor, (layer, rank) =>
        rank.shards.map((s, u) => (unitOf(shape, s).stream === stream ? layer.latentNorms[u] : undefined)),
      )
    }

    const attn = `${prefix}attn.`
    planner.matrix(
      `${attn}q_a_proj.weight`,
      [a.queryRank, embed],
      eachShard((s) => [rowsOf(shardMemory(s), of(s).queryA, cut(a.queryRank, s))]),
    )
    planner.matrix(
      `${attn}q_b_proj.weight`,
      [a.heads * queryWidth, a.queryRank],
      eachShard((s) => [rowsOf(shardMemory(s), of(s).queryB, cut(a.heads, s) * queryWidth)]),
    )
    const latents = a.units.length * a.latentDim
    planner.matrix(
      `${attn}kv_a_proj_with_mqa.weight`,
      [latents + a.ropeDim, embed],
      [
        ...eachShard((s) => [rowsOf(shardMemory(s), of(s).latent, unitOf(shape, s).stream * a.latentDim)]),
        ...eachRank((rank, r) => [rowsOf(rankMemory(r), rankLayer(rank).ropeKey, latents)]),
      ],
    )
    const [firstHead, endHead] = variant.headsOf(0, a.heads)
    planner.matrix(
      `${attn}kv_b_proj`,
      [a.units.length, a.latentDim, (endHead - firstHead) * 2 * a.nopeDim],
      eachShard((s) => {
        const unit = unitOf(shape, s)
        const row = unit.stream * a.latentDim
        const [latentStart] = variant.headsOf(unit.stream, a.heads)
        return Array.from({ length: unit.headEnd - unit.headStart }, (_, h) => {
          const col = (unit.headStart + h - latentStart) * 2 * a.nopeDim
          return upPieces(shardMemory(s), of(s), h, row, col, a.nopeDim, a.latentDim)
        }).flat()
      }),
    )
    planner.matrix(
      `${attn}c_proj.weight`,
      [embed, a.heads * a.nopeDim],
      eachShard((s) => [columnsOf(shardMemory(s), of(s).attentionOut, cut(a.heads, s) * a.nopeDim)]),
    )
    planner.matrix(
      `${prefix}mlp.c_fc1.weight`,
      [intermediate, embed],
      eachShard((s) => [rowsOf(shardMemory(s), of(s).gate, cut(intermediate, s))]),
    )
    planner.matrix(
      `${prefix}mlp.c_fc2.weight`,
      [intermediate, embed],
      eachShard((s) => [rowsOf(shardMemory(s), of(s).up, cut(intermediate, s))]),
    )
    planner.matrix(
      `${prefix}mlp.c_proj.weight`,
      [embed, intermediate],
      eachShard((s) => [columnsOf(shardMemory(s), of(s).down, cut(intermediate, s))]),
    )
  }
  planner.vector(
    'layernorm.weight',
    embed,
    eachRank((rank, r) => [{ memory: rankMemory(r), ptr: rank.finalNorm, factor: 1 }]),
  )

  // Tied: either name or both; the first is loaded.
  const tied = ['lm_head.weight', 'transformer.wte.weight'].filter((name) => tensors.has(name))
  const head = eachShard((s) => [rowsOf(shardMemory(s), layout.shards[s]?.head as PackedMatrix, cut(shape.vocab, s))])
  planner.matrix(tied[0] ?? 'lm_head.weight', [shape.vocab, embed], head)
  if (tied[1]) planner.skip(tied[1], [shape.vocab, embed])
  return planner.finish()
}

/** A matrix that is whole rows of its tensor, from `row` on. */
function rowsOf(memory: MemoryName, matrix: PackedMatrix, row: number): MatrixPiece {
  return piece(memory, matrix, { row, rows: matrix.rows, col: 0, cols: matrix.cols })
}

/** A matrix that is whole columns of its tensor, from `col` on. */
function columnsOf(memory: MemoryName, matrix: PackedMatrix, col: number): MatrixPiece {
  return piece(memory, matrix, { row: 0, rows: matrix.rows, col, cols: matrix.cols })
}

/** Head h's W_UK (as it lies) and W_UV (transposed) in a latent's [D, heads * 2N]. */
function upPieces(memory: MemoryName, layer: ShardLayer, h: number, row: number, col: number, nopeDim: number, latentDim: number): MatrixPiece[] {
  const area = { row, rows: latentDim, cols: nopeDim }
  return [
    { ...piece(memory, layer.keyUp, { ...area, col }), ptr: layer.keyUp.ptr + h * layer.keyUp.batchBytes },
    { ...piece(memory, layer.valueUp, { ...area, col: col + nopeDim }), ptr: layer.valueUp.ptr + h * layer.valueUp.batchBytes, transposed: true },
  ]
}

function piece(memory: MemoryName, matrix: PackedMatrix, area: { row: number; rows: number; col: number; cols: number }): MatrixPiece {
  return { memory, ptr: matrix.ptr, format: matrix.format, packedCols: matrix.cols, ...area, packedRow: 0, packedCol: 0, transposed: false }
}

class Planner {
  readonly #tensors: ReadonlyMap<string, TensorSource>
  readonly #plans: TensorPlan[] = []
  readonly #used = new Set<string>()

  constructor(tensors: ReadonlyMap<string, TensorSource>) {
    this.#tensors = tensors
  }

  matrix(name: string, shape: readonly number[], pieces: readonly MatrixPiece[]): void {
    const source = this.#find(name, shape)
    const cols = shape.at(-1) as number
    const rows = shape.slice(0, -1).reduce((n, d) => n * d, 1)
    const taken = pieces.filter((p) => p.rows > 0 && p.cols > 0)
    if (shape.length === 2 && source.strides?.[0] === 1 && source.strides[1] === rows) {
      // A transposed view of a contiguous matrix: read that one, and turn the pieces instead.
      const { strides: _, ...contiguous } = source
      const turned = taken.map((p) => ({ ...p, row: p.col, rows: p.cols, col: p.row, cols: p.rows, transposed: !p.transposed }))
      this.#plans.push({ source: contiguous, rows: cols, cols: rows, pieces: turned, vectors: [] })
      return
    }
    this.#plans.push({ source, rows, cols, pieces: taken, vectors: [] })
  }

  vector(name: string, n: number, vectors: readonly VectorPiece[]): void {
    this.#plans.push({ source: this.#find(name, [n]), rows: 1, cols: n, pieces: [], vectors })
  }

  /** A tensor that must be right but is not loaded. */
  skip(name: string, shape: readonly number[]): void {
    this.#find(name, shape)
  }

  finish(): TensorPlan[] {
    const surplus = [...this.#tensors.keys()].filter((name) => !this.#used.has(name))
    if (surplus.length === 0) return this.#plans
    throw new CheckpointError('TENSOR_SURPLUS', {
      what: `the checkpoint has ${surplus.length} tensors that its variant does not, among them ${surplus[0]}`,
      expected: `${this.#used.size} tensors`,
      actual: `${this.#tensors.size}`,
      remedy: 'Check that config.json belongs to these weights.',
    })
  }

  #find(name: string, shape: readonly number[]): TensorSource {
    const source = this.#tensors.get(name)
    if (!source) {
      throw new CheckpointError('TENSOR_MISSING', {
        what: `the checkpoint has no ${name}`,
        expected: `a tensor [${shape.join(', ')}]`,
        remedy: 'Check that all shards of the checkpoint are there and config.json belongs to them.',
      })
    }
    if (source.shape.join() !== shape.join()) {
      throw new CheckpointError('TENSOR_SHAPE', {
        what: `${name} has another shape than config.json says`,
        expected: `[${shape.join(', ')}]`,
        actual: `[${source.shape.join(', ')}]`,
        remedy: 'Check that config.json belongs to these weights.',
      })
    }
    this.#used.add(name)
    return source
  }
}
