// One rank's part of a step on its own GPU device: what model-runner.ts is for the CPU. The device computes; the CPU looks up
// embeddings, carries partials to and from the exchange memory, and samples. At one rank a step is one submit and one readback; at
// several, each segment of a layer is.
/// <reference types="@webgpu/types" />
import type { SharedMemory } from '../../kernels/backend.js'
import type { AdapterFacts } from '../../kernels/gpu/adapter.js'
import type { GpuContext } from '../../kernels/gpu/context.js'
import { type Command, Program } from '../../kernels/gpu/program.js'
import { bufferOf, openBackend } from '../../kernels/open-backend.js'
import type { Rows } from '../../kernels/rows.js'
import type { Collectives } from '../collectives/collectives.js'
import { type Exchange, openExchange, perShard } from '../collectives/exchange.js'
import { ShardWork } from '../cpu/shard-work.js'
import { cut } from '../layout/cuts.js'
import { layoutModel, type ModelLayout } from '../layout/model-layout.js'
import type { RankLayout } from '../layout/rank-layout.js'
import { COUNTERS, layoutMailbox } from '../mailbox/mailbox-layout.js'
import { StepView } from '../mailbox/step-view.js'
import { eventId, type ProfileRecorder } from '../profile/profile-recorder.js'
import type { DispatchFacts, ModelShape, RankInit } from '../protocol.js'
import { StepResults } from '../sampling/step-results.js'
import { TokenInputs } from '../token-inputs.js'
import { GpuBuffers } from './buffers.js'
import { CacheCopies } from './cache-copies.js'
import { readPages, writePages } from './cache-pages.js'
import { buildCommands } from './commands.js'
import { GpuGather } from './gather.js'
import { GpuInputs } from './inputs.js'
import type { LayerSegments } from './layer.js'
import { factsOf } from './list-dispatches.js'
import { checkBuffers, shortage } from './memory.js'
import { GpuPlan } from './plan.js'
import { GpuQueue } from './queue.js'

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
  readonly #gather: GpuGather
  readonly #copies: CacheCopies
  readonly #queue: GpuQueue
  readonly #recorder: ProfileRecorder | undefined
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
    const open = (memory: SharedMemory) => openBackend(init.module, memory)
    this.#exchange = openExchange(shape, layout.exchange, open(init.exchange ?? init.rankMemory), rank, mine.shards)
    this.#step = new StepView(init.mailbox, plan.stepRows, plan.slots, plan.pagesPerSlot)
    this.#results = new StepResults(rank, plan.ranks, shape.vocab, plan.slots, this.#step, this.#exchange)
    const shards = layout.shards.map((shard, s) => new ShardWork(open(init.shards[s] as SharedMemory), shard, shape, s, rank))
    const tokens = new TokenInputs(shape, shards)
    this.#inputs = new GpuInputs(this.#program, this.#plan, this.#b, this.#step, this.#results, tokens, plan)
    this.#starts = perShard((s) => cut(shape.vocab, s))
    const mailbox = layoutMailbox(plan.stepRows, plan.slots, plan.pagesPerSlot)
    this.#counters = new Float64Array(init.mailbox, mailbox.counters + rank * COUNTERS.values * 8, COUNTERS.values)
    const { stepRows, own, vocab } = this.#plan
    this.#copies = new CacheCopies(this.#program, this.#plan, this.#b)
    const widest = Math.max(shape.embed, shape.attention.heads * shape.attention.valueDim)
    const most = Math.max(vocab * stepRows, own.length * stepRows * widest)
    this.#recorder = recorder
    this.#queue = new GpuQueue(context, this.#program, Math.ceil(most / 4) * 16, init.deadlineMs, recorder)
    this.#gather = new GpuGather(context.device.queue, this.#queue, this.#plan.own, collectives, stepRows * widest)
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
    checkBuffers(plan, context.adapter.largestBuffer)
    const runner = await context.withMemory(
      () => new GpuRunner(context, plan, rank, init, layout, collectives, recorder),
      () => shortage(plan, 'activations and cache', 0),
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
    const memory = new Float32Array(bufferOf(this.#init.rankMemory))
    const commands = await buildCommands(this.#context, this.#program, this.#plan, this.#b, this.#inputs, mine, memory, this.#init.plan.contextTokens)
    const { layers } = commands
    this.#layers = layers
    this.#head = commands.head
    const cuts = this.#recorder ? [layers.length] : PARTS_OF_STEP.map((share) => Math.ceil(share * layers.length))
    const commandsOf = (l: LayerSegments) => [...l.attention, ...l.output, ...l.mlp, ...l.end]
    this.#stepParts = cuts.map((to, i) => layers.slice(cuts[i - 1] ?? 0, to).flatMap(commandsOf))
    await this.#program.device.queue.onSubmittedWorkDone()
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
      this.#copies.record(encoder, this.#step)
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
    this.#copies.record(encoder, this.#step)
    for (const layer of this.#layers) {
      queue.encode(encoder, layer.attention)
      if (!local) {
        await this.#gather.run(encoder, values, this.#exchange.attention, rows, 'reduce-scatter of attention outputs')
        encoder = queue.encoder()
      }
      queue.encode(encoder, layer.output)
      await this.#gather.run(encoder, attentionOut, this.#exchange.attentionOut, rows, 'all-reduce of the attention projection')
      encoder = queue.encoder()
      queue.encode(encoder, layer.mlp)
      await this.#gather.run(encoder, mlp, this.#exchange.mlp, rows, 'all-reduce of the MLP')
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
    const words = Int32Array.from({ length: 1 << 18 }, (_, i) => this.#plan.format.randomWord(i))
    for (const cache of this.#b.caches) {
      for (let at = 0; at < cache.size; at += words.byteLength) queue.writeBuffer(cache, at, words, 0, Math.min(words.length, (cache.size - at) / 4))
      queue.submit([])
    }
    await this.#context.settle(queue.onSubmittedWorkDone())
  }

  readCache(layer: number, pages: readonly number[]): Promise<Uint8Array> {
    return readPages(this.#context, this.#plan, this.#b.caches[layer] as GPUBuffer, pages)
  }

  writeCache(layer: number, pages: readonly number[], bytes: Uint8Array): Promise<void> {
    return writePages(this.#context, this.#plan, this.#b.caches[layer] as GPUBuffer, pages, bytes)
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
