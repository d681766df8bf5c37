// One rank's part of a step on its own GPU device: what model-runner.ts is for the CPU. The device computes; the CPU looks up
// embeddings, carries partials to and from the exchange memory, and samples. At one rank a step is one submit and one readback; at
// several, each segment of a layer is.
/// <reference types="@webgpu/types" />
import type { SharedMemory } from '../../kernels/backend.js'
import type { AdapterFacts } from '../../kernels/gpu/adapter.js'
import type { GpuContext } from '../../kernels/gpu/context.js'
import { type Command, Program, type Shaped } from '../../kernels/gpu/program.js'
import { cacheBytes, PAGE } from '../../kernels/gpu/wgsl/cache-rows.js'
import { bufferOf, openSpace } from '../../kernels/open-space.js'
import type { Rows } from '../../kernels/rows.js'
import { cacheWidth } from '../attention-plan.js'
import type { Collectives } from '../collectives.js'
import { cut } from '../cuts.js'
import { type Exchange, openExchange, perShard } from '../exchange.js'
import { COPY, COUNTERS, layoutMailbox } from '../layout.js'
import { layoutModel, type ModelLayout } from '../model-layout.js'
import { eventId, type ProfileRecorder } from '../profile-recorder.js'
import { type DispatchFacts, type ModelShape, type RankInit, SHARDS } from '../protocol.js'
import type { RankLayout } from '../rank-layout.js'
import { ShardWork } from '../shard-work.js'
import { StepResults } from '../step-results.js'
import { StepView } from '../step-view.js'
import { TokenInputs } from '../token-inputs.js'
import { GpuBuffers } from './gpu-buffers.js'
import { GpuInputs } from './gpu-inputs.js'
import { GpuJsKernels } from './gpu-js-kernels.js'
import { LayerBuilder, type LayerSegments } from './gpu-layer.js'
import { GpuPlan } from './gpu-plan.js'
import { GpuQueue } from './gpu-queue.js'
import type { WeightBuffer } from './gpu-weights.js'
import { factsOf } from './list-dispatches.js'
import { WgslKernels } from './wgsl-kernels.js'

const STEP = eventId('step')
/** Where a step is cut into submits, in shares of its layers. */
const PARTS_OF_STEP = [1 / 12, 1 / 3, 2 / 3, 1]

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
  readonly #inputs: GpuInputs
  /** First token id of each shard. */
  readonly #starts: readonly number[]
  readonly #counters: Float64Array
  /** Another shard's plane on its way to the device. */
  readonly #others: Float32Array<ArrayBuffer>
  readonly #queue: GpuQueue
  readonly #recorder: ProfileRecorder | undefined
  /** On its way from one page to another. */
  readonly #copied: GPUBuffer
  #layers: readonly LayerSegments[] = []
  #head: readonly Command[] = []
  /** Every layer, in order, by submits. */
  #stepParts: readonly (readonly Command[])[] = []
  /** The next step, encoded while the last one ran: for rows of this shape and at most so many parts. */
  #ahead: { readonly shape: string; readonly parts: number; readonly commands: readonly GPUCommandBuffer[] } | undefined

  private constructor(
    context: GpuContext,
    gpuPlan: GpuPlan,
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
    this.#plan = gpuPlan
    this.#b = new GpuBuffers(this.#program, this.#plan, plan.slots * plan.pagesPerSlot)
    const open = (memory: SharedMemory) => openSpace(init.module, memory)
    this.#exchange = openExchange(shape, layout.exchange, open(init.exchange ?? init.rankMemory), rank, mine.shards)
    this.#step = new StepView(init.mailbox, plan.stepRows, plan.slots, plan.pagesPerSlot)
    this.#results = new StepResults(rank, plan.ranks, shape.vocab, plan.slots, this.#step, this.#exchange)
    const shards = layout.shards.map((shard, s) => new ShardWork(open(init.shards[s] as SharedMemory), shard, shape, s, rank))
    const tokens = new TokenInputs(shape, shards)
    this.#inputs = new GpuInputs(this.#program, this.#plan, this.#b, this.#step, this.#results, tokens, plan)
    this.#starts = perShard((s) => cut(shape.vocab, s))
    const mailbox = layoutMailbox(plan.stepRows, plan.slots, plan.pagesPerSlot)
    this.#counters = new Float64Array(init.mailbox, mailbox.counters + rank * COUNTERS.values * 8, COUNTERS.values)
    const { a, lanes, regions, stepRows, own, vocab } = this.#plan
    this.#copied = this.#program.buffer(PAGE * 4 * Math.max(regions.streamRow, cacheWidth(a.sharedRopeDim), 2 * (a.factors?.rank ?? 0) * lanes))
    const widest = Math.max(shape.embed, shape.attention.heads * shape.attention.valueDim)
    this.#others = new Float32Array(stepRows * widest)
    const most = Math.max(vocab * stepRows, own.length * stepRows * widest)
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
    const plan = new GpuPlan(init.shape, init.plan, layout, rank, { shards: init.shards, rank: init.rankMemory }, context.adapter)
    plan.checkBuffers(context.adapter.largestBuffer)
    const runner = await context.withMemory(
      () => new GpuRunner(context, plan, rank, init, layout, collectives, recorder),
      () => plan.shortage('activations and cache', 0),
    )
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
    const kernels = this.#plan.portable ? 'gpu.js' : this.#plan.tensor ? 'tensor' : 'wgsl'
    // Tokens are sampled on the CPU.
    return `${vendor}-${architecture}-${description}-${kernels}-${this.#init.plan.simd}`.replace(/[^\w.-]+/g, '_')
  }

  get adapter(): AdapterFacts {
    return this.#context.adapter
  }

  /** What a step of one row dispatches, in order. */
  get dispatches(): readonly DispatchFacts[] {
    return factsOf([...this.#stepParts.flat(), ...this.#head])
  }

  async #build(mine: RankLayout): Promise<void> {
    const program = this.#program
    const plan = this.#plan
    const { a, shape } = plan
    const kernels = plan.portable
      ? new GpuJsKernels(program, plan, this.#b, this.#inputs, this.#init.plan.contextTokens)
      : new WgslKernels(program, plan, this.#b)
    const builder = new LayerBuilder(program, plan, this.#b, kernels)
    const floats = new Float32Array(bufferOf(this.#init.rankMemory))
    const vector = (ptr: number, n: number): Shaped => ({ buffer: program.upload(floats.slice(ptr / 4, ptr / 4 + n)), dims: [n] })
    const layers: LayerSegments[] = []
    for (const [i, layer] of mine.layers.entries()) {
      const planned = plan.layers[i] as GpuPlan['layers'][number]
      const streams = new Float32Array(Math.max(1, plan.streamCount) * a.stream.width)
      for (const [k, ptr] of layer.streamNorms.entries()) streams.set(floats.subarray(ptr / 4, ptr / 4 + a.stream.width), k * a.stream.width)
      layers.push(
        await builder.build(i, await this.#upload(planned.buffer, `weights of layer ${i}`), {
          input: vector(layer.inputNorm, shape.embed),
          mlp: vector(layer.mlpNorm, shape.embed),
          query: vector(layer.queryNorm, Math.max(1, a.queryRank)),
          streams: { buffer: program.upload(streams), dims: [a.stream.width, Math.max(1, plan.streamCount)] },
        }),
      )
    }
    this.#layers = layers
    const cuts = this.#recorder ? [layers.length] : PARTS_OF_STEP.map((share) => Math.ceil(share * layers.length))
    const commandsOf = (l: LayerSegments) => [...l.attention, ...l.output, ...l.mlp, ...l.end]
    this.#stepParts = cuts.map((to, i) => layers.slice(cuts[i - 1] ?? 0, to).flatMap(commandsOf))
    this.#head = await kernels.product({
      name: 'head',
      weights: await this.#upload(plan.head.buffer, 'weights of the output projection'),
      tiles: plan.head.tiles,
      x: this.#b.selected,
      y: this.#b.logits,
      rowSet: 'selected',
      norm: vector(mine.finalNorm, shape.embed),
    })
    await program.device.queue.onSubmittedWorkDone()
  }

  #upload(weights: WeightBuffer, what: string): Promise<GPUBuffer> {
    const before = this.#program.bytes
    return this.#context.withMemory(
      () => weights.upload(this.#program, this.#plan.portable),
      () => this.#plan.shortage(what, before),
    )
  }

  /** Runs the published step of this epoch. Mutates the cache on the device, the exchange slots and the mailbox's results. */
  async run(epoch: number): Promise<void> {
    const step = this.#step
    step.open(epoch)
    const rows = step.rows
    const start = performance.now()
    const noted = this.#recorder?.now()
    this.#context.check()
    this.#collectives.at('start of step')
    this.#collectives.at('embedding')
    this.#inputs.write(rows)
    this.#b.mostParts = this.#inputs.mostParts
    this.#program.setRows('step', rows)
    const wanted: number[] = []
    for (let t = 0; t < rows; t++) if (this.#results.wants(t)) wanted.push(t)
    if (wanted.length > 0) this.#program.setRows('selected', wanted.length)
    if (this.#init.plan.ranks === 1) await this.#runAlone(rows, wanted)
    else await this.#runWithOthers(rows, wanted)
    this.#collectives.at('sampling')
    if (wanted.length > 0) this.#results.take(rows)
    if (noted !== undefined) this.#recorder?.add(STEP, noted)
    this.#count(performance.now() - start)
  }

  /** One readback. While the device works, the next step is encoded as if it had the same rows, a token later. */
  async #runAlone(rows: number, wanted: readonly number[]): Promise<void> {
    const queue = this.#queue
    const { copies } = this.#step
    const shape = `${rows} ${wanted.join()}`
    const ahead = this.#ahead
    this.#ahead = undefined
    const fits = ahead !== undefined && ahead.shape === shape && ahead.parts >= this.#b.mostParts
    const commands = fits ? [...ahead.commands] : this.#encodeStep(wanted)
    if (copies > 0) {
      const encoder = queue.encoder()
      this.#copyRows(encoder)
      commands.unshift(queue.end(encoder))
    }
    if (wanted.length === 0) {
      await queue.finish(commands)
      return
    }
    const encodeNext = () => {
      const parts = this.#inputs.nextParts
      this.#b.mostParts = parts
      this.#ahead = { shape, parts, commands: this.#encodeStep(wanted) }
    }
    // Timestamps of two steps would not fit together, and copies are of this step's positions.
    await queue.read(
      commands,
      wanted.length * this.#plan.vocab * 4,
      (data) => this.#putLogits(data, wanted.length),
      this.#recorder || this.#plan.portable ? undefined : encodeNext,
    )
    await this.#collectives.barrierAsync('gather of logits')
  }

  /**
   * A whole step at one rank, in parts that are submitted one after another: Dawn makes the driver's commands at the submit, and the
   * device works at the first part while it makes the next. One part when it is timed.
   */
  #encodeStep(wanted: readonly number[]): GPUCommandBuffer[] {
    const queue = this.#queue
    return this.#stepParts.map((commands, i) => {
      const encoder = queue.encoder()
      queue.encode(encoder, commands)
      if (i === this.#stepParts.length - 1) this.#encodeLogits(encoder, wanted)
      return queue.end(encoder)
    })
  }

  async #runWithOthers(rows: number, wanted: readonly number[]): Promise<void> {
    const queue = this.#queue
    const { local } = this.#plan
    const { values, attentionOut, mlp } = this.#b
    let encoder = queue.encoder()
    this.#copyRows(encoder)
    for (const layer of this.#layers) {
      queue.encode(encoder, layer.attention)
      if (!local) {
        await this.#gather(encoder, values, this.#exchange.attention, rows, 'reduce-scatter of attention outputs')
        encoder = queue.encoder()
      }
      queue.encode(encoder, layer.output)
      await this.#gather(encoder, attentionOut, this.#exchange.attentionOut, rows, 'all-reduce of the attention projection')
      encoder = queue.encoder()
      queue.encode(encoder, layer.mlp)
      await this.#gather(encoder, mlp, this.#exchange.mlp, rows, 'all-reduce of the MLP')
      encoder = queue.encoder()
      queue.encode(encoder, layer.end)
    }
    if (wanted.length === 0) {
      await queue.finish([queue.end(encoder)])
      return
    }
    this.#encodeLogits(encoder, wanted)
    await queue.read([queue.end(encoder)], wanted.length * this.#plan.vocab * 4, (data) => this.#putLogits(data, wanted.length))
    await this.#collectives.barrierAsync('gather of logits')
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
    await this.#queue.read([this.#queue.end(encoder)], own.length * bytes, (data) => {
      for (const [i, s] of own.entries()) {
        const slot = slots[s] as Rows
        for (let t = 0; t < tokens; t++) slot.row(t).set(data.subarray((i * tokens + t) * width, (i * tokens + t) * width + slot.width))
      }
    })
    await this.#collectives.barrierAsync(site)
    const others = this.#others
    for (let s = 0; s < SHARDS; s++) {
      if (own.includes(s)) continue
      const slot = slots[s] as Rows
      for (let t = 0; t < tokens; t++) others.set(slot.row(t), t * width)
      this.#program.device.queue.writeBuffer(planes.buffer, s * rows * width * 4, others, 0, tokens * width)
    }
  }

  /** The logits of the wanted rows, to the staging buffer. */
  #encodeLogits(encoder: GPUCommandEncoder, wanted: readonly number[]): void {
    if (wanted.length === 0) return
    const row = this.#shape.embed * 4
    const b = this.#b
    for (const [i, t] of wanted.entries()) encoder.copyBufferToBuffer(b.residual.buffer, t * row, b.selected.buffer, i * row, row)
    this.#queue.encode(encoder, this.#head)
    encoder.copyBufferToBuffer(b.logits.buffer, 0, this.#queue.staging, 0, wanted.length * this.#plan.vocab * 4)
  }

  /** Own columns of the logits of `count` rows to the exchange slots. */
  #putLogits(data: Float32Array, count: number): void {
    const { vocab, own } = this.#plan
    const columns = this.#exchange.logitParts[this.#step.ring] as readonly Rows[]
    const first = this.#starts[own[0] as number] as number
    for (let t = 0; t < count; t++) {
      for (const s of own) {
        const part = columns[s] as Rows
        const at = t * vocab + (this.#starts[s] as number) - first
        part.row(t).set(data.subarray(at, at + part.width))
      }
    }
  }

  #count(ms: number): void {
    const c = this.#counters
    const add = (slot: number, value: number) => {
      c[slot] = (c[slot] as number) + value
    }
    add(COUNTERS.shardedWeightBytes, this.#plan.shardedBytes)
    add(COUNTERS.replicatedWeightBytes, this.#plan.replicatedBytes)
    c[COUNTERS.cacheBytes] = this.#inputs.cacheBytesRead
    add(COUNTERS.steps, 1)
    add(COUNTERS.stepMs, ms)
    c.set(this.#collectives.waitMs, COUNTERS.waitMs)
  }

  /** Random values in every row of the cache. */
  async fillCache(): Promise<void> {
    const { queue } = this.#program.device
    // Of either format: exponents that are moderate, no NaN.
    const words = Uint32Array.from({ length: 1 << 18 }, (_, i) => Math.imul(i + 1, 2654435761))
    const mask = this.#plan.format === 'f32' ? 0xbf7fffff : 0xbd7fbd7f
    for (const [i, word] of words.entries()) words[i] = word & mask
    for (const cache of this.#b.caches) {
      for (let at = 0; at < cache.size; at += words.byteLength) queue.writeBuffer(cache, at, words, 0, Math.min(words.length, (cache.size - at) / 4))
      queue.submit([])
    }
    await this.#context.settle(queue.onSubmittedWorkDone())
  }

  /** What Dawn's validation refuses: for tests of faults. */
  sendInvalidCommand(): void {
    // No buffer can be both MAP_READ and STORAGE.
    this.#program.device.createBuffer({ size: 16, usage: 1 | 0x80 })
  }

  /** As if the driver had taken the device away: for tests of faults. */
  loseDevice(): void {
    this.#program.device.destroy()
  }
}
