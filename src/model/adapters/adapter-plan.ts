// Where the parts of an adapter's A and B go: through the same placement as the tensors that they change, so rows that are cut, permuted,
// interleaved or transposed at load are cut, permuted, interleaved and transposed here too. Reads no data.
import { inBatch, type PackedMatrix } from '../../../kernels/packing.js'
import {
  ADAPTER_SITES,
  type AdapterInput,
  type AdapterLayout,
  type AdapterRanks,
  type AdapterSite,
  type JoinedSite,
  layoutAdapter,
  OWN_SITES,
  type OwnSite,
  type SiteRank,
} from '../../../workers/layout/adapter-layout.js'
import { queriesFromLatent } from '../../../workers/layout/attention-geometry.js'
import type { ModelLayout } from '../../../workers/layout/model-layout.js'
import type { MatrixPiece, MemoryName, ModelShape } from '../../../workers/protocol.js'
import { Placement } from '../checkpoint/placement.js'
import type { LowRankTensor } from './open-adapter.js'

/** A rectangle of A or B and where its first element goes in a matrix. `turned`: stored columns become rows. */
export interface Fill {
  readonly matrix: PackedMatrix
  readonly row: number
  readonly rows: number
  readonly col: number
  readonly cols: number
  /** Stored columns from one to the next. */
  readonly step: number
  readonly toRow: number
  readonly toCol: number
  readonly turned: boolean
}

/** A tensor of the adapter and what it fills. */
export interface TensorFills {
  readonly tensor: LowRankTensor
  readonly ofA: readonly Fill[]
  readonly ofB: readonly Fill[]
}

/** A matrix of the model that an adapter changes. */
interface Target {
  readonly site: AdapterSite
  readonly memory: MemoryName
  readonly layer: number
  readonly batch: number
}

const isOwn = (site: AdapterSite): site is OwnSite => OWN_SITES.some((own) => own === site)

export class AdapterPlanner {
  readonly #layout: ModelLayout
  readonly #shape: ModelShape
  readonly #placement: Placement
  /** By memory and byte offset of the model's matrix. */
  readonly #targets: ReadonlyMap<string, Target>

  constructor(shape: ModelShape, layout: ModelLayout) {
    this.#shape = shape
    this.#layout = layout
    this.#placement = new Placement(shape, layout)
    this.#targets = new Map(targetsOf(layout))
  }

  /** Which sites the tensors change, and which columns of the joint products are theirs: by layer. */
  ranks(tensors: readonly LowRankTensor[]): AdapterRanks[] {
    const layers = Array.from({ length: this.#shape.layers }, () => none())
    for (const tensor of tensors) {
      const ranks = layers[tensor.spec.layer as number] as Record<AdapterSite, SiteRank>
      const sites = new Set(this.#pieces(tensor).map(({ target }) => target.site))
      const input = this.#inputOf(sites)
      const from = input === undefined ? 0 : ranks[input].rank
      if (input !== undefined) ranks[input] = { from: 0, rank: from + tensor.rank }
      for (const site of sites) {
        const before = ranks[site]
        // Own products are one after the other in the same columns: of each head or shard there is one.
        if (isOwn(site)) ranks[site] = { from: 0, rank: Math.max(before.rank, tensor.rank) }
        else if (before.rank === 0) ranks[site] = { from, rank: tensor.rank }
        else ranks[site] = { from: before.from, rank: from + tensor.rank - before.from }
      }
    }
    return layers
  }

  /** The layout at a base, and what fills it. */
  place(tensors: readonly LowRankTensor[], table: readonly AdapterRanks[], base: number): { layout: AdapterLayout; fills: TensorFills[] } {
    const layout = layoutAdapter(this.#layout, this.#shape, table, base)
    const used = table.map(() => new Map<AdapterInput, number>())
    const fills = tensors.map((tensor): TensorFills => {
      const layer = tensor.spec.layer as number
      const pieces = this.#pieces(tensor)
      const input = this.#inputOf(new Set(pieces.map(({ target }) => target.site)))
      const of = (target: Target) => matricesOf(layout, target)
      if (input === undefined) {
        const both = pieces.map(({ piece, target }) => ownFills(piece, of(target), tensor))
        return { tensor, ofA: both.map(({ a }) => a), ofB: both.map(({ b }) => b) }
      }
      const at = used[layer]?.get(input) ?? 0
      used[layer]?.set(input, at + tensor.rank)
      const matrix = (layout.layers[layer] as AdapterLayout['layers'][number]).inputs[input]
      const ofA = [{ matrix, row: 0, rows: tensor.rank, col: 0, cols: matrix.cols, step: 1, toRow: at, toCol: 0, turned: false }]
      const ofB = pieces.map(({ piece, target }): Fill => {
        const toCol = at - (table[layer] as AdapterRanks)[target.site].from
        const area = { row: piece.row, rows: piece.rows, col: 0, cols: tensor.rank, step: 1 }
        return { matrix: of(target).up, ...area, toRow: piece.packedRow, toCol, turned: false }
      })
      return { tensor, ofA, ofB }
    })
    return { layout, fills }
  }

  #pieces({ spec }: LowRankTensor): { piece: MatrixPiece; target: Target }[] {
    return spec.parts
      .flatMap((part) => this.#placement.pieces(part, spec.layer))
      .filter(({ rows, cols }) => rows > 0 && cols > 0)
      .map((piece) => {
        const target = this.#targets.get(keyOf(piece.memory, piece.ptr))
        if (!target) throw new RangeError(`${spec.name} goes to a matrix that no adapter changes`)
        return { piece, target }
      })
  }

  /** The joint product of a tensor's sites; undefined: each has its own. */
  #inputOf(sites: ReadonlySet<AdapterSite>): AdapterInput | undefined {
    const [site] = sites
    if (site === undefined || isOwn(site)) return undefined
    if (site === 'gate' || site === 'up') return 'mlp'
    return site === 'queryB' && queriesFromLatent(this.#shape.attention) ? 'latent' : 'attention'
  }
}

function none(): Record<AdapterSite, SiteRank> {
  return Object.fromEntries(ADAPTER_SITES.map((site) => [site, { from: 0, rank: 0 }])) as Record<AdapterSite, SiteRank>
}

function ownFills(piece: MatrixPiece, { down, up }: Matrices, tensor: LowRankTensor): { a: Fill; b: Fill } {
  const { packedRow, packedCol } = piece
  const { ofA, ofB, turned } = areasOf(piece, tensor)
  if (turned) {
    // (B A) turned is A turned times B turned.
    return {
      a: { matrix: up, ...ofA, toRow: packedRow, toCol: 0, turned },
      b: { matrix: down as PackedMatrix, ...ofB, toRow: 0, toCol: packedCol, turned },
    }
  }
  return {
    a: { matrix: down as PackedMatrix, ...ofA, toRow: 0, toCol: packedCol, turned },
    b: { matrix: up, ...ofB, toRow: packedRow, toCol: 0, turned },
  }
}

type Area = Pick<Fill, 'row' | 'rows' | 'col' | 'cols' | 'step'>

/** The parts of A and B whose product a piece of the stored matrix is, or, turned, becomes in the packed one. */
function areasOf({ row, rows, col, cols, transposed }: MatrixPiece, { rank, parts, spec }: LowRankTensor): { ofA: Area; ofB: Area; turned: boolean } {
  if (spec.shape.length === 2) {
    return { ofA: { row: 0, rows: rank, col, cols, step: 1 }, ofB: { row, rows, col: 0, cols: rank, step: 1 }, turned: transposed }
  }
  // Stored rows are inputs, of one part after the other, and stored columns outputs.
  const inputs = spec.shape[1] as number
  const part = Math.floor(row / inputs)
  const ofA = { row: part * rank, rows: rank, col: row % inputs, cols: rows, step: 1 }
  return { ofA, ofB: { row: col, rows: cols, col: part, cols: rank, step: parts }, turned: !transposed }
}

interface Matrices {
  /** Undefined: the product with A is a joint one. */
  readonly down: PackedMatrix | undefined
  readonly up: PackedMatrix
}

function matricesOf(layout: AdapterLayout, { site, memory, layer, batch }: Target): Matrices {
  const { shards, shared } = layout.layers[layer] as AdapterLayout['layers'][number]
  if (memory.kind === 'rank') return { down: undefined, up: shared[memory.index] as PackedMatrix }
  const shard = shards[memory.index] as AdapterLayout['layers'][number]['shards'][number]
  if (!isOwn(site)) return { down: undefined, up: shard[site as JoinedSite] }
  const { down, up } = shard[site]
  return { down: inBatch(down, batch), up: inBatch(up, batch) }
}

function keyOf({ kind, index }: MemoryName, ptr: number): string {
  return `${kind} ${index} ${ptr}`
}

/** Matrices of the model by where they lie. Empty ones share their address with the next. */
function* targetsOf({ shards, ranks }: ModelLayout): Generator<[string, Target]> {
  for (const [index, { layers }] of shards.entries()) {
    const memory = { kind: 'shard', index } as const
    for (const [layer, { gateUp, ...others }] of layers.entries()) {
      for (const [site, matrix] of Object.entries(others) as [Exclude<AdapterSite, AdapterInput | 'shared' | 'gate' | 'up'>, PackedMatrix][]) {
        if (matrix.rows * matrix.cols === 0) continue
        for (let batch = 0; batch < matrix.batch; batch++) yield [keyOf(memory, inBatch(matrix, batch).ptr), { site, memory, layer, batch }]
      }
      if (gateUp.rows === 0) continue
      yield [keyOf(memory, inBatch(gateUp, 0).ptr), { site: 'gate', memory, layer, batch: 0 }]
      yield [keyOf(memory, inBatch(gateUp, 1).ptr), { site: 'up', memory, layer, batch: 0 }]
    }
  }
  for (const [index, { layers }] of ranks.entries()) {
    const memory = { kind: 'rank', index } as const
    for (const [layer, { shared }] of layers.entries())
      if (shared.rows > 0) yield [keyOf(memory, shared.ptr), { site: 'shared', memory, layer, batch: 0 }]
  }
}
