// One rank's part of a step on its own GPU device: what model-runner.ts is for the CPU. The device computes; the CPU looks up
// embeddings, carries partials to and from the exchange memory, and samples. At one rank a step is one submit and one readback; at
// several, each segment of a layer is.
/// <reference types="@webgpu/types" />
import type { SharedMemory } from '../../kernels/backend.js'
import type { AdapterFacts } from '../../kernels/gpu/adapter.js'
import type { GpuContext } from '../../kernels/gpu/context.js'
import { type Dispatch, Program, type Shaped } from '../../kernels/gpu/program.js'
import { cacheBytes, PAGE } from '../../kernels/gpu/wgsl/cache-rows.js'
import { bufferOf, openSpace } from '../../kernels/open-space.js'
import type { Rows } from '../../kernels/rows.js'
import { cacheWidth } from '../attention-plan.js'
import type { Collectives } from '../collectives.js'
import { cut } from '../cuts.js'
import { type Exchange, openExchange, perShard } from '../exchange.js'
import { COPY, COUNTERS, layoutMailbox, ROW } from '../layout.js'
import { layoutModel, type ModelLayout } from '../model-layout.js'
import { eventId, type ProfileRecorder } from '../profile-recorder.js'
import { type ModelShape, type RankInit, SHARDS } from '../protocol.js'
import type { RankLayout } from '../rank-layout.js'
import { ShardWork } from '../shard-work.js'
import { StepResults } from '../step-results.js'
import { StepView } from '../step-view.js'
import { TokenInputs } from '../token-inputs.js'
import { GpuBuffers } from './gpu-buffers.js'
import { LayerBuilder, type LayerSegments } from './gpu-layer.js'
import { GpuPlan } from './gpu-plan.js'
import { GpuQueue } from './gpu-queue.js'

const STEP = eventId('step')

export class GpuRunner {
  readonly #context: GpuContext
  readonly #program: Program
  readonly #plan: GpuPlan
  readonly #b: GpuBuffers
  readonly #shape: ModelShape
  readonly #init: RankInit
  readonly #collectives: Collectives
  readonly #exchange: Exchange
  readonly #step: StepView
  readonly #results: StepResults
  readonly #inputs: TokenInputs
  /** First token id of each shard. */
  readonly #starts: readonly number[]
  readonly #counters: Float64Array
  readonly #tables: Uint32Array
  readonly #queue: GpuQueue
  readonly #recorder: ProfileRecorder | undefined
  /** On its way from one page to another. */
  readonly #copied: GPUBuffer
  #layers: readonly LayerSegments[] = []
  #head: readonly Dispatch[] = []
  #cacheBytesRead = 0

  private constructor(
    context: GpuContext,
    rank: number,
    init: RankInit,
    layout: ModelLayout,
    collectives: Collectives,
    recorder: ProfileRecorder | undefined,
  ) {
    const { shape, plan } = init
    const mine = layout.ranks[rank] as RankLayout
    this.#context = context
    this.#init = init
    this.#shape = shape
    this.#collectives = collectives
    this.#program = new Program(context)
    this.#plan = new GpuPlan(shape, plan, layout, rank, { shards: init.shards, rank: init.rankMemory })
    this.#tables = new Uint32Array(plan.slots * plan.pagesPerSlot)
    this.#b = new GpuBuffers(this.#program, this.#plan, this.#tables.length)
    const open = (memory: SharedMemory) => openSpace(init.module, memory)
    this.#exchange = openExchange(shape, layout.exchange, open(init.exchange ?? init.rankMemory), rank, mine.shards)
    this.#step = new StepView(init.mailbox, plan.stepRows, plan.slots, plan.pagesPerSlot)
    this.#results = new StepResults(rank, plan.ranks, shape.vocab, plan.slots, this.#step, this.#exchange)
    const shards = layout.shards.map((shard, s) => new ShardWork(open(init.shards[s] as SharedMemory), shard, shape, s, rank))
    this.#inputs = new TokenInputs(shape, shards)
    this.#starts = perShard((s) => cut(shape.vocab, s))
    const mailbox = layoutMailbox(plan.stepRows, plan.slots, plan.pagesPerSlot)
    this.#counters = new Float64Array(init.mailbox, mailbox.counters + rank * COUNTERS.values * 8, COUNTERS.values)
    const { a, lanes, regions, stepRows, own, vocab } = this.#plan
    this.#copied = this.#program.buffer(PAGE * 4 * Math.max(regions.streamRow, cacheWidth(a.sharedRopeDim), 2 * (a.factors?.rank ?? 0) * lanes))
    const most = Math.max(vocab * stepRows, own.length * stepRows * Math.max(shape.embed, shape.attention.heads * shape.attention.valueDim))
    this.#recorder = recorder
    this.#queue = new GpuQueue(context, this.#program, Math.ceil(most / 4) * 16, init.deadlineMs, recorder)
  }

  /** Uploads the rank's weights to a device and compiles every kernel. The device stays the caller's. Throws GpuFailure. */
  static async create(
    rank: number,
    init: RankInit,
    collectives: Collectives,
    context: GpuContext,
    recorder: ProfileRecorder | undefined,
  ): Promise<GpuRunner> {
    const layout = layoutModel(init.shape, init.plan)
    const runner = new GpuRunner(context, rank, init, layout, collectives, recorder)
    const building = runner.#build(layout.ranks[rank] as RankLayout)
    try {
      await context.settle(building)
    } finally {
      // Dawn aborts the process when a device goes while it compiles.
      await building.catch(() => {})
    }
    return runner
  }

  /** What it really runs on. */
  get instructions(): string {
    const { vendor, architecture, description } = this.#context.adapter
    // Tokens are sampled on the CPU.
    return `${vendor}-${architecture}-${description}-${this.#init.plan.simd}`.replace(/[^\w.-]+/g, '_')
  }

  get adapter(): AdapterFacts {
    return this.#context.adapter
  }

  /** Every dispatch of a step, in order. */
  get dispatches(): readonly Dispatch[] {
    return [...this.#layers.flatMap((l) => [...l.attention, ...l.output, ...l.mlp, ...l.end]), ...this.#head]
  }

  async #build(mine: RankLayout): Promise<void> {
    const program = this.#program
    const plan = this.#plan
    const { a, shape } = plan
    const builder = new LayerBuilder(program, plan, this.#b)
    const floats = new Float32Array(bufferOf(this.#init.rankMemory))
    const vector = (ptr: number, n: number): Shaped => ({ buffer: program.upload(floats.slice(ptr / 4, ptr / 4 + n)), dims: [n] })
    const layers: LayerSegments[] = []
    for (const [i, layer] of mine.layers.entries()) {
      const planned = plan.layers[i] as GpuPlan['layers'][number]
      const streams = new Float32Array(Math.max(1, plan.streamCount) * a.stream.width)
      for (const [k, ptr] of layer.streamNorms.entries()) streams.set(floats.subarray(ptr / 4, ptr / 4 + a.stream.width), k * a.stream.width)
      layers.push(
        await builder.build(i, planned.buffer.upload(program), {
          input: vector(layer.inputNorm, shape.embed),
          mlp: vector(layer.mlpNorm, shape.embed),
          query: vector(layer.queryNorm, Math.max(1, a.queryRank)),
          streams: { buffer: program.upload(streams), dims: [a.stream.width, Math.max(1, plan.streamCount)] },
        }),
      )
    }
    this.#layers = layers
    this.#head = [
      ...(await builder.norm(this.#b.selected, 0, shape.embed, vector(mine.finalNorm, shape.embed), this.#b.normed, 'selected')),
      ...(await builder.product('head', plan.head.buffer.upload(program), plan.head.tiles, this.#b.normed, this.#b.logits, 'selected')),
    ]
    await program.device.queue.onSubmittedWorkDone()
  }

  /** Runs the published step of this epoch. Mutates the cache on the device, the exchange slots and the mailbox's results. */
  async run(epoch: number): Promise<void> {
    const step = this.#step
    step.open(epoch)
    const tokens = step.rows
    const start = performance.now()
    const noted = this.#recorder?.now()
    this.#context.check()
    this.#collectives.at('start of step')
    this.#embed(tokens)
    this.#program.setRows('step', tokens)
    this.#writeRows(tokens)
    const queue = this.#queue
    let encoder = queue.encoder()
    this.#copyRows(encoder)
    const { local } = this.#plan
    const alone = this.#init.plan.ranks === 1
    const { values, attentionOut, mlp } = this.#b
    for (const layer of this.#layers) {
      queue.encode(encoder, layer.attention)
      if (!alone && !local) {
        await this.#gather(encoder, values, this.#exchange.attention, tokens, 'reduce-scatter of attention outputs')
        encoder = queue.encoder()
      }
      queue.encode(encoder, layer.output)
      if (!alone) {
        await this.#gather(encoder, attentionOut, this.#exchange.attentionOut, tokens, 'all-reduce of the attention projection')
        encoder = queue.encoder()
      }
      queue.encode(encoder, layer.mlp)
      if (!alone) {
        await this.#gather(encoder, mlp, this.#exchange.mlp, tokens, 'all-reduce of the MLP')
        encoder = queue.encoder()
      }
      queue.encode(encoder, layer.end)
    }
    await this.#logits(encoder, tokens)
    if (noted !== undefined) this.#recorder?.add(STEP, noted)
    this.#count(performance.now() - start)
  }

  #embed(tokens: number): void {
    this.#collectives.at('embedding')
    const { embed, attention } = this.#shape
    const residual = new Float32Array(tokens * embed)
    const rope = new Float32Array(tokens * attention.ropeDim)
    for (let t = 0; t < tokens; t++) {
      residual.set(this.#inputs.embedding(this.#results.token(t)).row(0), t * embed)
      this.#inputs.rope(this.#step.int(t, ROW.position), rope.subarray(t * attention.ropeDim))
    }
    const { queue } = this.#program.device
    queue.writeBuffer(this.#b.residual.buffer, 0, residual)
    if (rope.length > 0) queue.writeBuffer(this.#b.rope.buffer, 0, rope)
  }

  /** Each row's block table, length and parts; and what has changed of the tables. */
  #writeRows(tokens: number): void {
    const { pagesPerSlot } = this.#init.plan
    const { queue } = this.#program.device
    const rows = new Uint32Array(tokens * 4)
    const counts = new Float32Array(tokens)
    let most = 1
    for (let t = 0; t < tokens; t++) {
      const slot = this.#step.int(t, ROW.slot)
      const length = this.#step.int(t, ROW.position) + 1
      const { pages, parts } = this.#plan.partsOf(length)
      rows.set([slot * pagesPerSlot, length, pages, parts], t * 4)
      counts[t] = parts
      most = Math.max(most, parts)
      this.#updateTable(slot, Math.ceil(length / PAGE))
      this.#cacheBytesRead += length * this.#plan.cacheBytesPerToken
    }
    this.#b.mostParts = most
    queue.writeBuffer(this.#b.rows, 0, rows)
    queue.writeBuffer(this.#b.parts.buffer, 0, counts)
  }

  #updateTable(slot: number, pages: number): void {
    const { pagesPerSlot } = this.#init.plan
    const first = slot * pagesPerSlot
    let from = -1
    let to = -1
    for (let i = 0; i < pages; i++) {
      const page = this.#step.page(slot, i)
      if (this.#tables[first + i] === page) continue
      this.#tables[first + i] = page
      if (from < 0) from = i
      to = i + 1
    }
    if (from >= 0) this.#program.device.queue.writeBuffer(this.#b.pages, (first + from) * 4, this.#tables.subarray(first + from, first + to))
  }

  /** The step's copies of cached rows. */
  #copyRows(encoder: GPUCommandEncoder): void {
    const { a, regions, streamCount, format, lanes } = this.#plan
    const scalar = cacheBytes(format)
    for (let i = 0; i < this.#step.copies; i++) {
      const from = this.#step.copy(i, COPY.from)
      const to = this.#step.copy(i, COPY.to)
      const rows = this.#step.copy(i, COPY.rows)
      const copy = (cache: GPUBuffer, region: number, width: number) => {
        const at = (page: number) => (region + page * PAGE * width) * scalar
        if (width === 0) return
        // A buffer can't be copied to itself.
        encoder.copyBufferToBuffer(cache, at(from), this.#copied, 0, rows * width * scalar)
        encoder.copyBufferToBuffer(this.#copied, 0, cache, at(to), rows * width * scalar)
      }
      for (const cache of this.#b.caches) {
        for (let k = 0; k < streamCount; k++) copy(cache, k * regions.stream, regions.streamRow)
        copy(cache, regions.rope, cacheWidth(a.sharedRopeDim))
        if (a.factors) copy(cache, regions.coefficients, 2 * a.factors.rank * lanes)
      }
    }
  }

  /** Own planes to the exchange slots, a barrier, and the other shards' planes to the device. */
  async #gather(
    encoder: GPUCommandEncoder,
    planes: Shaped,
    slots: readonly Rows[],
    tokens: number,
    site: Parameters<Collectives['at']>[0],
  ): Promise<void> {
    const [width = 0, rows = 0] = planes.dims
    const { own } = this.#plan
    const bytes = tokens * width * 4
    for (const [i, s] of own.entries()) encoder.copyBufferToBuffer(planes.buffer, s * rows * width * 4, this.#queue.staging, i * bytes, bytes)
    const read = await this.#queue.read(encoder, own.length * bytes)
    for (const [i, s] of own.entries()) {
      const slot = slots[s] as Rows
      for (let t = 0; t < tokens; t++) slot.row(t).set(read.subarray((i * tokens + t) * width, (i * tokens + t) * width + slot.width))
    }
    await this.#collectives.barrierAsync(site)
    const others = new Float32Array(tokens * width)
    for (let s = 0; s < SHARDS; s++) {
      if (own.includes(s)) continue
      const slot = slots[s] as Rows
      for (let t = 0; t < tokens; t++) others.set(slot.row(t), t * width)
      this.#program.device.queue.writeBuffer(planes.buffer, s * rows * width * 4, others)
    }
  }

  async #logits(encoder: GPUCommandEncoder, tokens: number): Promise<void> {
    const { embed } = this.#shape
    const { vocab, own } = this.#plan
    const b = this.#b
    let selected = 0
    for (let t = 0; t < tokens; t++) {
      if (this.#results.wants(t)) encoder.copyBufferToBuffer(b.residual.buffer, t * embed * 4, b.selected.buffer, selected++ * embed * 4, embed * 4)
    }
    if (selected === 0) {
      await this.#queue.finish(encoder)
      return
    }
    this.#program.setRows('selected', selected)
    this.#queue.encode(encoder, this.#head)
    const bytes = selected * vocab * 4
    encoder.copyBufferToBuffer(b.logits.buffer, 0, this.#queue.staging, 0, bytes)
    const read = await this.#queue.read(encoder, bytes)
    const columns = this.#exchange.logitParts[this.#step.ring] as readonly Rows[]
    const first = this.#starts[own[0] as number] as number
    for (let t = 0; t < selected; t++) {
      for (const s of own) {
        const part = columns[s] as Rows
        const at = t * vocab + (this.#starts[s] as number) - first
        part.row(t).set(read.subarray(at, at + part.width))
      }
    }
    await this.#collectives.barrierAsync('gather of logits')
    this.#collectives.at('sampling')
    this.#results.take(tokens)
  }

  #count(ms: number): void {
    const c = this.#counters
    const add = (slot: number, value: number) => {
      c[slot] = (c[slot] as number) + value
    }
    add(COUNTERS.shardedWeightBytes, this.#plan.shardedBytes)
    add(COUNTERS.replicatedWeightBytes, this.#plan.replicatedBytes)
    c[COUNTERS.cacheBytes] = this.#cacheBytesRead
    add(COUNTERS.steps, 1)
    add(COUNTERS.stepMs, ms)
    c.set(this.#collectives.waitMs, COUNTERS.waitMs)
  }

  /** As if the driver had taken the device away: for tests of faults. */
  loseDevice(): void {
    this.#program.device.destroy()
  }
}
