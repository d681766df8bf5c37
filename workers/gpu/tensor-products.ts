// Products on tensor cores as dispatches: the activations of a product become float16 tiles, then one kernel multiplies them, in the
// tiling that the step's rows call for. Owns the buffers that activations go through, which layers share.
/// <reference types="@webgpu/types" />
import type { Dispatch, ProgramParts, StepSize } from '../../kernels/gpu/program.js'
import { OWN_BINDINGS, type ProductTiling, productBytes, productThreads, tensorProduct } from '../../kernels/gpu/wgsl/tensor-matmul.js'
import {
  BLOCK_WORDS,
  blockTable,
  panels,
  SIDE,
  stepsOf,
  type TensorRows,
  TILE_VECTORS,
  weightVectors,
} from '../../kernels/gpu/wgsl/tensor-matmul-shape.js'
import { PRODUCT_STORAGE, tilingsOf } from '../../kernels/gpu/wgsl/tensor-matmul-tiling.js'
import {
  OWN_THREADS,
  type OwnRows,
  ownRows,
  packRows,
  plainRows,
  type Region,
  type RowPacking,
  regionsOfGroup,
  regionTable,
} from '../../kernels/gpu/wgsl/tensor-rows.js'
import { TILE_ROWS } from '../../kernels/packing.js'
import type { Product } from './kernel-set.js'
import { type Tile, WEIGHT_SLACK } from './weights.js'

interface Activations {
  readonly tiles: GPUBuffer
  readonly scales: GPUBuffer
}

export class TensorProducts {
  readonly #program: ProgramParts
  /** Rows of every buffer. */
  readonly #rows: number
  readonly #pair: boolean
  /** By regions and steps. */
  readonly #activations = new Map<string, Activations>()

  /** pair: activations are two float16 a scalar, nearly float32. */
  constructor(program: ProgramParts, rows: number, pair: boolean) {
    this.#pair = pair
    this.#program = program
    this.#rows = rows
  }

  async product(product: Product): Promise<Dispatch[]> {
    const bySteps = new Map<number, Tile[]>()
    for (const tile of product.tiles) bySteps.set(stepsOf(tile.k), [...(bySteps.get(stepsOf(tile.k)) ?? []), tile])
    if (product.source?.rows.store !== undefined && bySteps.size > 1) throw new RangeError(`${product.label} has inputs of several lengths`)
    const dispatches: Dispatch[] = []
    for (const [steps, tiles] of bySteps) dispatches.push(...(await this.#ofSteps(product, tiles, steps)))
    return dispatches
  }

  async #ofSteps(
    { label, weights, x, y, rowSet = 'step', halves, norm, source }: Product,
    tiles: readonly Tile[],
    steps: number,
  ): Promise<Dispatch[]> {
    const program = this.#program
    if (!weights.scales) throw new RangeError(`the weights of ${label} are not float16 tiles`)
    const vectors = panels(this.#rows) * steps * TILE_VECTORS * (this.#pair ? 2 : 1)
    const regions: Region[] = []
    const indexOf = new Map<string, number>()
    const regionOf = ({ x, k }: Tile): Region => {
      const key = `${x} ${k}`
      const index = indexOf.get(key) ?? regions.length
      indexOf.set(key, index)
      regions[index] ??= { from: x, to: index * vectors, scale: index * this.#rows, cols: k }
      return regions[index]
    }
    const matrices = joinTiles(tiles, steps).map((tile): TensorRows => {
      const { to, scale, from, cols } = regionOf(tile)
      return { w: tile.word, x: to, xScale: scale, y: tile.y, rows: tile.rows, source: { from, cols } }
    })
    const activations = this.#activationsOf(regions.length, vectors)
    const rowsOf = (step: StepSize) => (rowSet === 'selected' ? step.selected : step.rows)
    const { rows, buffers } = source ?? { rows: plainRows(x.dims[0] ?? 1), buffers: [x.buffer] }
    const code = packRows({ regions: regions.length, steps, pair: this.#pair, epsilon: norm?.epsilon, source: rows })
    const packing = [program.upload(regionTable(regions)), activations.tiles, activations.scales, norm?.weight.buffer, ...buffers]
    const tilings = tilingsOf(
      matrices.map((matrix) => matrix.rows),
      this.#pair,
    )
    const self = packsItself(tilings[0]?.tiling, this.#pair, { steps, pair: this.#pair, epsilon: norm?.epsilon, source: rows }, matrices)
    const itself = self?.own.rows ?? 0
    const groups = Math.ceil(regions.length / regionsOfGroup(steps))
    const packed = (step: StepSize): [number, number, number] => (rowsOf(step) <= itself ? [0, 0, 0] : [groups, rowsOf(step), 1])
    const dispatches = [await program.wgsl('pack activations', code, packing, packed)]
    const yDims = program.uniform(Uint32Array.of(0, y.dims[0] ?? 1, 0, 0))
    const dispatch = async (tiling: ProductTiling, from: number, to: number, own?: OwnRows) => {
      const blocks = blockTable(matrices, tiling.columns, steps)
      const ofProduct = (of: readonly (GPUBuffer | undefined)[]) => [
        yDims,
        program.count(rowSet),
        weights.buffer,
        program.upload(blocks),
        ...of,
        weights.scales,
        y.buffer,
      ]
      const bound = own
        ? [...bindingsOf([undefined, undefined, undefined, norm?.weight.buffer, ...buffers]), ...ofProduct([undefined, undefined])]
        : ofProduct([activations.tiles, activations.scales])
      const groups = (step: StepSize): [number, number, number] => {
        const n = rowsOf(step)
        return n < from || n > to ? [0, 0, 0] : [Math.ceil(n / tiling.rows), blocks.length / BLOCK_WORDS, 1]
      }
      dispatches.push(await program.wgsl(label, tensorProduct(steps, tiling, this.#pair, halves, own), bound, groups))
    }
    if (self) await dispatch(self.tiling, 1, itself, self.own)
    let least = itself + 1
    for (const { rows: most = Number.POSITIVE_INFINITY, tiling } of tilings) {
      if (least > this.#rows) break
      if (most < least) continue
      await dispatch(tiling, least, most)
      least = most + 1
    }
    return dispatches
  }

  #activationsOf(regions: number, vectors: number): Activations {
    const key = `${regions} ${vectors}`
    const made = this.#activations.get(key) ?? {
      tiles: this.#program.buffer((regions * vectors + WEIGHT_SLACK) * 16),
      scales: this.#program.buffer(regions * this.#rows * 4),
    }
    this.#activations.set(key, made)
    return made
  }
}

/** Bytes that all workgroups of a product may read to pack their rows themselves: beyond, a dispatch before it is faster. */
const OWN_BYTES = 16e6

/** How a product of few rows packs them in each of its workgroups; undefined: it does not. */
function packsItself(
  tiling: ProductTiling | undefined,
  pair: boolean,
  packing: Omit<RowPacking, 'regions'>,
  matrices: readonly TensorRows[],
): { readonly tiling: ProductTiling; readonly own: OwnRows } | undefined {
  if (!tiling || productThreads(tiling) % OWN_THREADS !== 0) return undefined
  const { reads, store } = packing.source
  // One workgroup stores what the source stores: all of it, if it is one region.
  if (store !== undefined && new Set(matrices.map(({ x }) => x)).size > 1) return undefined
  const scalars = matrices.reduce((sum, { rows, source }) => sum + Math.ceil(rows / tiling.columns) * (source?.cols ?? 0), 0)
  // Blocks of fewer columns leave room for the rows.
  const tilings = [tiling, { ...tiling, steps: tiling.steps / 2 }].filter(({ steps }) => steps % 4 === 0)
  return [true, false]
    .map((several) => ownRows(packing, productThreads(tiling), several))
    .filter((own) => 4 * reads * scalars * own.rows <= OWN_BYTES)
    .flatMap((own) => tilings.map((one) => ({ tiling: one, own })))
    .find((way) => productBytes(way.tiling, pair, way.own) <= PRODUCT_STORAGE)
}

function bindingsOf(buffers: readonly (GPUBuffer | undefined)[]): (GPUBuffer | undefined)[] {
  return Array.from({ length: OWN_BINDINGS }, (_, i) => buffers[i])
}

/** Tiles of 32 rows that follow each other in the weights and in the outputs, as matrices of many rows. */
export function joinTiles(tiles: readonly Tile[], steps: number): Tile[] {
  const joined: Tile[] = []
  for (const tile of tiles) {
    const last = joined.at(-1)
    const follows =
      last !== undefined &&
      last.rows % TILE_ROWS === 0 &&
      last.x === tile.x &&
      last.k === tile.k &&
      tile.y === last.y + last.rows &&
      tile.word === last.word + weightVectors(last.rows, steps)
    if (follows) joined[joined.length - 1] = { ...last, rows: last.rows + tile.rows }
    else joined.push(tile)
  }
  if (joined.some(({ word }) => word % (SIDE / 2) !== 0)) throw new RangeError('a matrix of float16 tiles begins within a tile')
  return joined
}
