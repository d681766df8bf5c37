// One rank's part of a step on its own GPU device: what model-runner.ts is for the CPU. The device computes; the CPU looks up
// embeddings, carries partials to and from the exchange memory, and samples. At one rank a step is one submit and one readback; at
// several, each segment of a layer is.
/// <reference types="@webgpu/types" />
import type { GpuContext } from '../../kernels/gpu/context.js'
import { type Command, Program, type StepSize } from '../../kernels/gpu/program.js'
import { ARGMAX_SLICES, ARGMAX_WORDS, argmaxOf } from '../../kernels/gpu/wgsl/argmax.js'
import type { Rows } from '../../kernels/rows.js'
import type { Collectives } from '../collectives/collectives.js'
import { perShard } from '../collectives/exchange.js'
import { cut } from '../layout/cuts.js'
import { COUNTERS } from '../mailbox/mailbox-layout.js'
import { eventId, type ProfileRecorder } from '../profile/profile-recorder.js'
import type { RankInit, RankReport } from '../protocol.js'
import { openRank, type RankParts } from '../rank-parts.js'
import type { DeviceCache, RankRunner } from '../rank-runner.js'
import { roomForParts } from './attention-plan.js'
import { GpuBuffers } from './buffers.js'
import { CacheCopies } from './cache-copies.js'
import { CachePages } from './cache-pages.js'
import { DeviceWeights } from './device-weights.js'
import { Embeddings } from './embeddings.js'
import { GpuGather } from './gather.js'
import { GpuInputs } from './inputs.js'
import { checkBuffers, shortage } from './memory.js'
import { GpuPlan } from './plan.js'
import { GpuQueue } from './queue.js'
import { StepProgram } from './step-program.js'

const STEP = eventId('step')
/** Part of the determinism key: counts the orders of sums that attention on tensor cores has had. */
const ATTENTION_ORDER = 33
/** Bytes of what the device finds in a row of logits. */
const GREEDY_BYTES = ARGMAX_SLICES * ARGMAX_WORDS * 4

/** Rows of a step whose logits are computed. */
interface Wanted {
  readonly rows: readonly number[]
  /** Places in `rows` of those whose logits are read back; the device finds the largest of the others. */
  readonly whole: readonly number[]
}

/** A step encoded before its inputs were known: for these wanted rows, and a size of which `parts` may be too large. */
interface EncodedStep {
  readonly size: StepSize
  readonly wanted: Wanted
  readonly commands: readonly GPUCommandBuffer[]
}

export class GpuRunner implements RankRunner {
  readonly cache: DeviceCache
  readonly #context: GpuContext
  readonly #program: Program
  readonly #plan: GpuPlan
  readonly #buffers: GpuBuffers
  readonly #rank: RankParts
  readonly #collectives: Collectives
  readonly #inputs: GpuInputs
  /** First token id of each shard. */
  readonly #starts: readonly number[]
  readonly #gather: GpuGather
  readonly #copies: CacheCopies
  readonly #queue: GpuQueue
  readonly #recorder: ProfileRecorder | undefined
  #step: StepProgram | undefined
  /** Every layer, in order, by submits. */
  #submits: readonly (readonly Command[])[] = []
  /** By wanted row of the last step: the id of its largest logit, where the device found it. */
  #largest: (number | undefined)[] = []
  /** The next step, encoded while the device ran the last one. */
  #ahead: EncodedStep | undefined

  private constructor(context: GpuContext, plan: GpuPlan, rank: RankParts) {
    const { init, collectives, recorder } = rank
    const { shape } = init
    const { stepRows, own, vocab } = plan
    this.#context = context
    this.#plan = plan
    this.#rank = rank
    this.#collectives = collectives
    this.#recorder = recorder
    this.#program = new Program(context)
    this.#buffers = new GpuBuffers(this.#program, plan, init.plan.slots * init.plan.pagesPerSlot)
    // Only products on tensor cores are so fast that embeddings would hold them up.
    const memories = { shards: init.shards, rank: init.rankMemory }
    const embeddings = plan.kernels.products === 'tiles' ? Embeddings.copy(shape, rank.model, memories) : undefined
    this.#inputs = new GpuInputs(this.#program, plan, this.#buffers, rank.step, rank.results, rank.inputs, init.plan, embeddings)
    this.#starts = perShard((s) => cut(shape.vocab, s))
    this.#copies = new CacheCopies(this.#program, plan, this.#buffers)
    const widest = Math.max(shape.embed, shape.attention.heads * shape.attention.valueDim)
    const scalars = Math.max((vocab + GREEDY_BYTES / 4) * stepRows, own.length * stepRows * widest)
    this.#queue = new GpuQueue(context, this.#program, Math.ceil(scalars / 4) * 16, init.deadlineMs, recorder)
    this.#gather = new GpuGather(context.device.queue, this.#queue, own, collectives, stepRows * widest)
    this.cache = new CachePages(context, plan, this.#buffers.caches)
  }

  /** Uploads the rank's weights to a device and compiles every kernel. The device stays the caller's. Throws GpuFailure, DeviceMemory. */
  static async create(
    rank: number,
    init: RankInit,
    collectives: Collectives,
    context: GpuContext,
    recorder: ProfileRecorder | undefined,
  ): Promise<GpuRunner> {
    const parts = openRank(rank, init, collectives, recorder)
    const plan = new GpuPlan(init.shape, init.plan, parts.model, rank, context.adapter)
    checkBuffers(plan, context.adapter.largestBuffer)
    const runner = await context.withMemory(
      () => new GpuRunner(context, plan, parts),
      () => shortage(plan, 'activations and cache', 0),
    )
    const building = runner.#build()
    try {
      await context.settle(building)
    } finally {
      // Dawn aborts the process when a device is destroyed while it compiles.
      await building.catch(() => {})
    }
    return runner
  }

  get report(): RankReport {
    const { adapter } = this.#context
    const { vendor, architecture, description } = adapter
    // The build of the wasm kernels is part of the key: tokens are sampled on the CPU.
    const { name, products } = this.#plan.kernels
    const attention = name === 'tensor' ? `${name}${ATTENTION_ORDER}` : name
    const key = `${vendor}-${architecture}-${description}-${attention}${products === 'tiles' ? '-tiles' : ''}-${this.#rank.init.plan.simd}`
    return { backend: 'gpu', instructions: key.replace(/[^\w.-]+/g, '_'), adapter, dispatches: this.#steps.dispatches }
  }

  /** Throws Error before the kernels are compiled. */
  get #steps(): StepProgram {
    if (!this.#step) throw new Error('the kernels are not compiled yet')
    return this.#step
  }

  async #build(): Promise<void> {
    const { layout, init } = this.#rank
    const memories = { shards: init.shards, rank: init.rankMemory }
    const weights = new DeviceWeights(this.#context, this.#program, this.#plan, layout, memories)
    this.#step = await StepProgram.build(
      this.#program,
      this.#plan,
      this.#buffers,
      this.#inputs,
      weights,
      init.plan.contextTokens,
      this.#inputs.widens,
    )
    weights.close()
    this.#submits = this.#step.submits(this.#recorder !== undefined)
    await this.#program.device.queue.onSubmittedWorkDone()
  }

  /** Runs the published step of this epoch. Mutates the cache on the device, the exchange slots and the mailbox's results. */
  async run(epoch: number): Promise<void> {
    const { step, results, counters } = this.#rank
    step.open(epoch)
    const { rows } = step
    const start = performance.now()
    const recordedAt = this.#recorder?.now()
    this.#context.check()
    this.#collectives.enter('start of step')
    this.#collectives.enter('embedding')
    const { now, next } = this.#inputs.write(rows)
    const wanted = this.#wanted(rows)
    const size = { rows, selected: wanted.rows.length, ...now }
    if (this.#rank.init.plan.ranks === 1) await this.#runAlone(size, wanted, { ...size, ...next })
    else await this.#runWithOthers(size, wanted)
    this.#collectives.enter('sampling')
    if (wanted.rows.length > 0) results.take(rows, this.#largest)
    if (recordedAt !== undefined) this.#recorder?.add(STEP, recordedAt)
    counters.add(COUNTERS.shardedWeightBytes, this.#plan.shardedBytes)
    counters.add(COUNTERS.replicatedWeightBytes, this.#plan.replicatedBytes)
    counters.set(COUNTERS.cacheBytes, this.#inputs.cacheBytesRead)
    counters.endStep(performance.now() - start, this.#collectives.waitMs)
  }

  #wanted(count: number): Wanted {
    const { results } = this.#rank
    const rows = Array.from({ length: count }, (_, t) => t).filter((t) => results.wants(t))
    const finds = this.#steps.argmax.length > 0
    return { rows, whole: [...rows.keys()].filter((i) => !finds || !results.wantsLargest(rows[i] as number)) }
  }

  /** One readback. While the device works, the next step is encoded for the same rows one token later (`next`). */
  async #runAlone(size: StepSize, wanted: Wanted, next: StepSize): Promise<void> {
    const queue = this.#queue
    const { step } = this.#rank
    const ahead = this.#ahead
    this.#ahead = undefined
    const fits = ahead !== undefined && this.#covers(ahead.size, size) && sameRows(ahead.wanted, wanted)
    const commands = fits ? [...ahead.commands] : this.#encodeStep(size, wanted)
    if (step.copies > 0) {
      const encoder = queue.encoder()
      this.#copies.record(encoder, step)
      commands.unshift(queue.end(encoder))
    }
    // A profile times one step at a time.
    const encodesAhead = this.#recorder === undefined && this.#plan.kernels.encodesAhead
    const encodeNext = () => {
      if (encodesAhead) this.#ahead = { size: next, wanted, commands: this.#encodeStep(next, wanted) }
    }
    if (wanted.rows.length === 0) {
      await queue.finish(commands, encodeNext)
      return
    }
    await queue.read(
      commands,
      this.#logitsAt(wanted) + wanted.whole.length * this.#plan.vocab * 4,
      (data) => this.#takeResults(data, wanted),
      encodeNext,
    )
    await this.#collectives.barrierAsync('gather of logits')
  }

  /** Commands encoded for a step of size `encoded` compute one of size `size`. */
  #covers(encoded: StepSize, size: StepSize): boolean {
    const { tensor } = this.#plan
    if (encoded.rows !== size.rows || encoded.singles !== size.singles || encoded.prompts !== size.prompts || encoded.parts < size.parts) return false
    return !tensor || roomForParts(tensor, encoded.parts) === roomForParts(tensor, size.parts)
  }

  /**
   * A whole step at one rank, in parts that are submitted one after another: Dawn makes the driver's commands at the submit, and the
   * device works at the first part while Dawn makes the next.
   */
  #encodeStep(size: StepSize, wanted: Wanted): GPUCommandBuffer[] {
    const queue = this.#queue
    return this.#submits.map((commands, i) => {
      const encoder = queue.encoder()
      queue.encode(encoder, commands, size)
      if (i === this.#submits.length - 1) this.#encodeLogits(encoder, size, wanted)
      return queue.end(encoder)
    })
  }

  async #runWithOthers(size: StepSize, wanted: Wanted): Promise<void> {
    const queue = this.#queue
    const { exchange, step } = this.#rank
    const { values, attentionOut, mlp } = this.#buffers
    const { rows } = size
    let encoder = queue.encoder()
    this.#copies.record(encoder, step)
    queue.encode(encoder, this.#steps.start, size)
    for (const layer of this.#steps.layers) {
      queue.encode(encoder, layer.attention, size)
      if (!this.#plan.local) {
        await this.#gather.run(encoder, values, exchange.attention, rows, 'reduce-scatter of attention outputs')
        encoder = queue.encoder()
      }
      queue.encode(encoder, layer.output, size)
      await this.#gather.run(encoder, attentionOut, exchange.attentionOut, rows, 'all-reduce of the attention projection')
      encoder = queue.encoder()
      queue.encode(encoder, layer.mlp, size)
      await this.#gather.run(encoder, mlp, exchange.mlp, rows, 'all-reduce of the MLP')
      encoder = queue.encoder()
      queue.encode(encoder, layer.end, size)
    }
    if (wanted.rows.length === 0) {
      await queue.finish([queue.end(encoder)])
      return
    }
    this.#encodeLogits(encoder, size, wanted)
    await queue.read([queue.end(encoder)], wanted.rows.length * this.#plan.vocab * 4, (data) => this.#takeResults(data, wanted))
    await this.#collectives.barrierAsync('gather of logits')
  }

  /** Byte of the staging buffer where logits begin: after what the device found, if it looked for something. */
  #logitsAt({ rows, whole }: Wanted): number {
    return whole.length === rows.length ? 0 : rows.length * GREEDY_BYTES
  }

  /** Of the wanted rows, the logits or where their largest is, to the staging buffer. */
  #encodeLogits(encoder: GPUCommandEncoder, size: StepSize, wanted: Wanted): void {
    const { rows, whole } = wanted
    if (rows.length === 0) return
    const { staging } = this.#queue
    const rowBytes = this.#plan.shape.embed * 4
    const { residual, selected, logits, greedy } = this.#buffers
    for (let i = 0, n = 1; i < rows.length; i += n) {
      // Rows that follow each other in one copy.
      for (n = 1; rows[i + n] === (rows[i] as number) + n; ) n++
      encoder.copyBufferToBuffer(residual.buffer, (rows[i] as number) * rowBytes, selected.buffer, i * rowBytes, n * rowBytes)
    }
    this.#queue.encode(encoder, this.#steps.head, size)
    const logitsAt = this.#logitsAt(wanted)
    if (logitsAt > 0) {
      this.#queue.encode(encoder, this.#steps.argmax, size)
      encoder.copyBufferToBuffer(greedy.buffer, 0, staging, 0, logitsAt)
    }
    const bytes = this.#plan.vocab * 4
    if (whole.length === rows.length) encoder.copyBufferToBuffer(logits.buffer, 0, staging, 0, rows.length * bytes)
    else for (const [i, row] of whole.entries()) encoder.copyBufferToBuffer(logits.buffer, row * bytes, staging, logitsAt + i * bytes, bytes)
  }

  /** Notes what the device found, and writes own columns of the other rows' logits to the exchange slots. */
  #takeResults(data: Float32Array, wanted: Wanted): void {
    const { vocab, own } = this.#plan
    const { exchange, step } = this.#rank
    const columns = exchange.logitParts[step.ring] as readonly Rows[]
    const first = this.#starts[own[0] as number] as number
    const logitsAt = this.#logitsAt(wanted)
    const found = new Uint32Array(data.buffer, data.byteOffset, logitsAt / 4)
    this.#largest = logitsAt === 0 ? [] : wanted.rows.map((_, row) => argmaxOf(found, row))
    for (const [i, row] of wanted.whole.entries()) {
      this.#largest[row] = undefined
      for (const s of own) {
        const part = columns[s] as Rows
        const at = logitsAt / 4 + i * vocab + (this.#starts[s] as number) - first
        part.row(row).set(data.subarray(at, at + part.width))
      }
    }
  }
}

function sameRows(a: Wanted, b: Wanted): boolean {
  return a.rows.join() === b.rows.join() && a.whole.join() === b.whole.join()
}
