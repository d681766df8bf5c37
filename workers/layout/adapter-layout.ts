// Where low-rank adapters lie in the memory that all of them share: tables, scratch of each rank, then the matrices of each adapter. Both
// sides compute the addresses of an adapter from its table and its base. Knows no tensor names.
import { matmulScratchBytes } from '../../kernels/backend.js'
import { scalarBytes } from '../../kernels/open-backend.js'
import { type PackedMatrix, packedBytes, paddedRows } from '../../kernels/packing.js'
import { type AdapterLimits, type ModelShape, type RunPlan, SHARDS } from '../protocol.js'
import { Arena, bufferRows } from './arena.js'
import type { ModelLayout } from './model-layout.js'
import type { ShardLayer } from './shard-layout.js'

/** Inputs that several matrices of a layer have: their A are one matrix, computed once in each rank. */
export const ADAPTER_INPUTS = ['attention', 'latent', 'mlp'] as const
export type AdapterInput = (typeof ADAPTER_INPUTS)[number]
/** Matrices whose product is B times columns of such a product. */
export const JOINED_SITES = ['queryA', 'queryB', 'streams', 'coefficients', 'outputGate', 'gate', 'up'] as const
export type JoinedSite = (typeof JOINED_SITES)[number]
/** Matrices whose input only their shard has. */
export const OWN_SITES = ['keyUp', 'valueUp', 'attentionOut', 'down'] as const
export type OwnSite = (typeof OWN_SITES)[number]
/** 'shared': of the ranks' own projection. */
export const ADAPTER_SITES = [...ADAPTER_INPUTS, ...JOINED_SITES, 'shared', ...OWN_SITES] as const
export type AdapterSite = (typeof ADAPTER_SITES)[number]

/** A site's columns of the product with A. Rank 0: the adapter does not change the site. */
export interface SiteRank {
  readonly from: number
  readonly rank: number
}

/** Of a layer. */
export type AdapterRanks = Readonly<Record<AdapterSite, SiteRank>>

/** W + up down. */
export interface LowRank {
  /** [rank, inputs] */
  readonly down: PackedMatrix
  /** [outputs, rank] */
  readonly up: PackedMatrix
}

/** Matrices without columns are of sites that the adapter does not change. */
export interface AdapterShard extends Readonly<Record<JoinedSite, PackedMatrix>>, Readonly<Record<OwnSite, LowRank>> {}

export interface AdapterLayer {
  readonly ranks: AdapterRanks
  /** [rank, inputs] each */
  readonly inputs: Readonly<Record<AdapterInput, PackedMatrix>>
  readonly shards: readonly AdapterShard[]
  /** By rank of threads: [rows of the shared projection, rank] */
  readonly shared: readonly PackedMatrix[]
}

export interface AdapterLayout {
  readonly layers: readonly AdapterLayer[]
  /** From its base on. */
  readonly bytes: number
}

/** Most projections over one input: q, k, v, a gate and a rope key, or the six of factors. */
const MOST_JOINED = 6

interface Placed {
  readonly batch?: number
  /** All matrices of the batch are one. */
  readonly same?: boolean
  readonly inStride?: number
  readonly outStride?: number
}

/** Addresses of an adapter's matrices. `base`: a multiple of 64. */
export function layoutAdapter(model: ModelLayout, shape: ModelShape, table: readonly AdapterRanks[], base: number): AdapterLayout {
  const arena = new Arena(base)
  const matrix = (rows: number, cols: number, { batch = 1, same = false, inStride = 0, outStride = 0 }: Placed = {}): PackedMatrix => {
    const isThere = rows > 0 && cols > 0
    const batchBytes = isThere ? packedBytes(rows, cols, 'f32') : 0
    const bytes = (same ? 1 : batch) * batchBytes
    const ptr = arena.take(bytes)
    return { ptr, rows: isThere ? rows : 0, cols, format: 'f32', batch, batchBytes: same ? 0 : batchBytes, inStride, outStride, bytes }
  }
  const { attention: a, embed, intermediate } = shape
  const layers = table.map((ranks, l): AdapterLayer => {
    const of = (site: AdapterSite) => ranks[site].rank
    const attentionOut = matrix(embed, of('attentionOut'))
    const down = matrix(embed, of('down'))
    const shards = Array.from({ length: SHARDS }, (_, s): AdapterShard => {
      const w = model.shards[s]?.layers[l] as ShardLayer
      const joined = (site: JoinedSite, rows: number) => matrix(rows, of(site))
      // Of W_UK = B A, transposed, A is the same for all heads; of W_UV it is too.
      const perHead = (site: 'keyUp' | 'valueUp', { rows, cols, batch, inStride, outStride }: PackedMatrix): LowRank => {
        const rank = batch > 0 ? of(site) : 0
        const between = paddedRows(rank)
        const isKey = site === 'keyUp'
        return {
          down: matrix(rank, rank > 0 ? cols : 0, { batch, same: !isKey, inStride, outStride: between }),
          up: matrix(rank > 0 ? rows : 0, rank, { batch, same: isKey, inStride: between, outStride }),
        }
      }
      return {
        queryA: joined('queryA', w.queryA.rows),
        queryB: joined('queryB', w.queryB.rows),
        streams: joined('streams', w.streams.rows),
        coefficients: joined('coefficients', w.coefficients.rows),
        outputGate: joined('outputGate', w.outputGate.rows),
        gate: joined('gate', w.gateUp.rows),
        up: joined('up', w.gateUp.rows),
        keyUp: perHead('keyUp', w.keyUp),
        valueUp: perHead('valueUp', w.valueUp),
        attentionOut: { down: matrix(of('attentionOut'), w.attentionOut.cols), up: attentionOut },
        down: { down: matrix(of('down'), w.down.cols), up: down },
      }
    })
    return {
      ranks,
      inputs: {
        attention: matrix(of('attention'), embed),
        latent: matrix(of('latent'), a.queryRank),
        mlp: matrix(of('mlp'), intermediate > 0 ? embed : 0),
      },
      shards,
      shared: model.ranks.map((rank) => matrix(rank.layers[l]?.shared.rows ?? 0, of('shared'))),
    }
  })
  return { layers, bytes: arena.bytes - base }
}

/** Scratch of one rank in the adapters' memory; pointers in bytes, widths in scalars. */
export interface AdapterScratch {
  readonly input: number
  readonly inputWidth: number
  /** Products with A that are kept while their layer runs, by input, and one that is used at once. */
  readonly products: Readonly<Record<AdapterInput | 'own', number>>
  readonly productWidths: Readonly<Record<AdapterInput | 'own', number>>
  readonly output: number
  readonly outputWidth: number
  readonly matmul: number
}

export interface AdapterMemoryLayout {
  /** Byte offset of the table of each place: serial, base, then `from` and `rank` of each site of each layer, as Int32. */
  readonly tables: readonly number[]
  /** By rank. */
  readonly scratch: readonly AdapterScratch[]
  /** Bytes that are there before the first adapter, so that its table can be written. */
  readonly tableBytes: number
  /** Where adapters begin. */
  readonly start: number
}

export const TABLE = { serial: 0, base: 1, ranks: 2 } as const

export function layoutAdapterMemory(model: ModelLayout, shape: ModelShape, plan: RunPlan, limits: AdapterLimits): AdapterMemoryLayout {
  const arena = new Arena()
  const ints = TABLE.ranks + shape.layers * ADAPTER_SITES.length * 2
  const tables = Array.from({ length: limits.places }, () => arena.take(ints * 4))
  const tableBytes = arena.bytes
  const rows = bufferRows(plan)
  const size = scalarBytes(plan.backend)
  const most = (of: (shard: ModelLayout['shards'][number]) => number) => Math.max(...model.shards.map(of))
  const mlp = most(({ layers }) => paddedRows(layers[0]?.gateUp.rows ?? 0))
  const heads = most(({ layers }) => layers[0]?.keyUp.batch ?? 0)
  const inputWidth = Math.max(
    mlp,
    most(({ scratch }) => scratch[0]?.inputWidth ?? 0),
  )
  const outputWidth = Math.max(
    most(({ scratch }) => Math.max(scratch[0]?.outputWidth ?? 0, scratch[0]?.secondWidth ?? 0)),
    ...model.ranks.map(({ layers }) => paddedRows(layers[0]?.shared.rows ?? 0)),
  )
  const productWidths = {
    attention: paddedRows(MOST_JOINED * limits.rank),
    latent: paddedRows(limits.rank),
    mlp: paddedRows(2 * limits.rank),
    own: Math.max(1, heads) * paddedRows(limits.rank),
  }
  const buffer = (width: number) => arena.take(rows * width * size)
  const scratch = Array.from(
    { length: plan.ranks },
    (): AdapterScratch => ({
      input: buffer(inputWidth),
      inputWidth,
      products: {
        attention: buffer(productWidths.attention),
        latent: buffer(productWidths.latent),
        mlp: buffer(productWidths.mlp),
        own: buffer(productWidths.own),
      },
      productWidths,
      output: buffer(outputWidth),
      outputWidth,
      matmul: arena.take(matmulScratchBytes(rows, Math.max(inputWidth, productWidths.attention, productWidths.own))),
    }),
  )
  return { tables, scratch, tableBytes, start: arena.bytes }
}

/** Writes an adapter's table; a rank sees it with the first step that names the place. serial: no other adapter has had it. */
export function writeAdapterTable(buffer: SharedArrayBuffer, ptr: number, serial: number, base: number, table: readonly AdapterRanks[]): void {
  const ints = new Int32Array(buffer)
  const at = ptr / 4
  ints[at + TABLE.base] = base / 64
  const values = table.flatMap((ranks) => ADAPTER_SITES.flatMap((site) => [ranks[site].from, ranks[site].rank]))
  ints.set(values, at + TABLE.ranks)
  ints[at + TABLE.serial] = serial
}

export function readAdapterTable(ints: Int32Array, ptr: number, layers: number): { serial: number; base: number; table: AdapterRanks[] } {
  const at = ptr / 4
  const int = (i: number) => ints[at + i] as number
  const table = Array.from({ length: layers }, (_, l) => {
    const first = TABLE.ranks + l * ADAPTER_SITES.length * 2
    const entries = ADAPTER_SITES.map((site, i) => [site, { from: int(first + 2 * i), rank: int(first + 2 * i + 1) }] as const)
    return Object.fromEntries(entries) as Record<AdapterSite, SiteRank>
  })
  return { serial: int(TABLE.serial), base: int(TABLE.base) * 64, table }
}
