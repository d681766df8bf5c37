// Low-rank adapters as a rank runs them: for the rows of each adapter, y += B (A x) after the model's own product, which is left as it is.
// A product that is summed over shards gets B times the shard's own A x, before the sum: no exchange, and the same order of sums at any
// rank count. Operands are copied to and from the adapters' memory.
import type { KernelBackend } from '../../kernels/backend.js'
import { bufferOf, openBackend } from '../../kernels/open-backend.js'
import type { PackedMatrix } from '../../kernels/packing.js'
import { addRowsAcross, copyRows, type Rows } from '../../kernels/rows.js'
import {
  type AdapterInput,
  type AdapterLayer,
  type AdapterMemoryLayout,
  type AdapterScratch,
  type JoinedSite,
  layoutAdapter,
  layoutAdapterMemory,
  type OwnSite,
  readAdapterTable,
  TABLE,
} from '../layout/adapter-layout.js'
import type { ModelLayout } from '../layout/model-layout.js'
import { ROW } from '../mailbox/mailbox-layout.js'
import type { StepReader } from '../mailbox/step-buffer.js'
import type { AdapterMemory, RankInit } from '../protocol.js'

/** The rows first..first + count - 1 of a step have this adapter. */
interface Segment {
  first: number
  count: number
  layers: readonly AdapterLayer[]
}

interface Known {
  readonly serial: number
  readonly layers: readonly AdapterLayer[]
}

/** Where the product with A of an input is kept. */
const INPUT_OF = {
  queryA: 'attention',
  streams: 'attention',
  coefficients: 'attention',
  outputGate: 'attention',
  gate: 'mlp',
  up: 'mlp',
} as const satisfies Partial<Record<JoinedSite, AdapterInput>>

export class AdapterWork {
  readonly #init: RankInit
  readonly #rank: number
  readonly #model: ModelLayout
  readonly #queryInput: AdapterInput
  #opened: OpenAdapters | undefined
  readonly #segments: Segment[] = []
  #count = 0

  /** queryInput: what queryB reads. */
  constructor(rank: number, init: RankInit, model: ModelLayout, queryInput: AdapterInput) {
    this.#rank = rank
    this.#init = init
    this.#model = model
    this.#queryInput = queryInput
  }

  /** Finds the rows of the step that have adapters: call before the first layer. */
  begin(step: StepReader, tokens: number): void {
    this.#count = 0
    // Those without one come first.
    if (tokens === 0 || step.int(tokens - 1, ROW.adapter) === 0) return
    let before = 0
    for (let t = 0; t < tokens; t++) {
      const adapter = step.int(t, ROW.adapter)
      if (adapter === 0) continue
      if (adapter !== before) this.#begin(t, adapter - 1)
      before = adapter
      ;(this.#segments[this.#count - 1] as Segment).count++
    }
  }

  /** The product of A with what several matrices of the layer have as input. */
  input(input: AdapterInput, layer: number, x: Rows): void {
    for (let i = 0; i < this.#count; i++) {
      const { first, count, layers } = this.#segments[i] as Segment
      const { inputs } = layers[layer] as AdapterLayer
      this.#open.down(inputs[input], x.from(first), this.#open.products[input], first, count)
    }
  }

  /** y += B times the input's product, of a shard's matrix. */
  add(site: JoinedSite, layer: number, shard: number, y: Rows): void {
    for (let i = 0; i < this.#count; i++) {
      const { first, count, layers } = this.#segments[i] as Segment
      const { ranks, shards } = layers[layer] as AdapterLayer
      const input = site === 'queryB' ? this.#queryInput : INPUT_OF[site]
      this.#open.add((shards[shard] as AdapterLayer['shards'][number])[site], this.#open.products[input], ranks[site].from, y, first, count)
    }
  }

  /** The same of the rank's own projection. */
  addShared(layer: number, y: Rows): void {
    for (let i = 0; i < this.#count; i++) {
      const { first, count, layers } = this.#segments[i] as Segment
      const { ranks, shared } = layers[layer] as AdapterLayer
      this.#open.add(shared[this.#rank] as PackedMatrix, this.#open.products.attention, ranks.shared.from, y, first, count)
    }
  }

  /** y += B A x of a matrix whose input only its shard has. */
  addOwn(site: OwnSite, layer: number, shard: number, x: Rows, y: Rows): void {
    for (let i = 0; i < this.#count; i++) {
      const { first, count, layers } = this.#segments[i] as Segment
      const { down, up } = ((layers[layer] as AdapterLayer).shards[shard] as AdapterLayer['shards'][number])[site]
      if (down.rows === 0 || up.rows === 0) continue
      this.#open.down(down, x.from(first), this.#open.products.own, first, count)
      this.#open.add(up, this.#open.products.own, 0, y, first, count)
    }
  }

  #begin(first: number, place: number): void {
    const layers = this.#open.layers(place)
    const made = this.#segments[this.#count]
    if (made) {
      made.first = first
      made.count = 0
      made.layers = layers
    } else this.#segments.push({ first, count: 0, layers })
    this.#count++
  }

  get #open(): OpenAdapters {
    this.#opened ??= new OpenAdapters(this.#rank, this.#init, this.#model)
    return this.#opened
  }
}

/** The adapters' memory, once there is one. */
class OpenAdapters {
  readonly #init: RankInit
  readonly #model: ModelLayout
  readonly #memory: AdapterMemoryLayout
  readonly #kernels: KernelBackend
  readonly #ints: Int32Array
  readonly #scratch: AdapterScratch
  readonly #known: (Known | undefined)[] = []
  /** By width. */
  readonly #inputs = new Map<number, Rows>()
  readonly #outputs = new Map<number, Rows>()
  /** By input: its columns from each column on. */
  readonly products: Readonly<Record<AdapterInput | 'own', Columns>>

  constructor(rank: number, init: RankInit, model: ModelLayout) {
    const { memory, ...limits } = init.adapters as AdapterMemory
    this.#init = init
    this.#model = model
    this.#memory = layoutAdapterMemory(model, init.shape, init.plan, limits)
    this.#kernels = openBackend(init.module, memory)
    this.#ints = new Int32Array(bufferOf(memory))
    this.#scratch = this.#memory.scratch[rank] as AdapterScratch
    const { products, productWidths } = this.#scratch
    const columns = (input: AdapterInput | 'own') => new Columns(this.#kernels.rows(products[input], productWidths[input]))
    this.products = { attention: columns('attention'), latent: columns('latent'), mlp: columns('mlp'), own: columns('own') }
  }

  /** The matrices of the adapter in a place. */
  layers(place: number): readonly AdapterLayer[] {
    const ptr = this.#memory.tables[place] as number
    const known = this.#known[place]
    if (known && known.serial === this.#ints[ptr / 4 + TABLE.serial]) return known.layers
    const { serial, base, table } = readAdapterTable(this.#ints, ptr, this.#init.shape.layers)
    const { layers } = layoutAdapter(this.#model, this.#init.shape, table, base)
    this.#known[place] = { serial, layers }
    return layers
  }

  /** Rows first.. of `to` = w x. */
  down(w: PackedMatrix, x: Rows, to: Columns, first: number, count: number): void {
    if (w.rows === 0) return
    const input = this.#view(this.#inputs, this.#scratch.input, x.width, x.width)
    copyRows(input, x, count)
    this.#kernels.matmul(w, input, to.at(0).from(first), count, this.#scratch.matmul)
  }

  /** Rows first.. of y += w times rows first.. of `from`, from a column on. */
  add(w: PackedMatrix, from: Columns, column: number, y: Rows, first: number, count: number): void {
    if (w.rows === 0) return
    const width = w.batch > 1 || w.outStride > 0 ? w.batch * w.outStride : w.rows
    const output = this.#view(this.#outputs, this.#scratch.output, width, this.#scratch.outputWidth)
    this.#kernels.matmul(w, from.at(column).from(first), output, count, this.#scratch.matmul)
    addRowsAcross(y.from(first), output, width, count)
  }

  #view(views: Map<number, Rows>, ptr: number, width: number, stride: number): Rows {
    const made = views.get(width)
    if (made) return made
    const view = this.#kernels.rows(ptr, width, stride)
    views.set(width, view)
    return view
  }
}

/** Rows from any of their columns on, made once each. */
class Columns {
  readonly #rows: Rows
  readonly #from: Rows[] = []

  constructor(rows: Rows) {
    this.#rows = rows
  }

  at(column: number): Rows {
    const made = this.#from[column]
    if (made) return made
    const rows = this.#rows.columns(column, this.#rows.width - column)
    this.#from[column] = rows
    return rows
  }
}
