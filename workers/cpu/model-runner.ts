// One rank's part of a step, top to bottom: embedding, layers, logits, sampling. Between two collectives it computes from
// its own shards only; a rank that carries several shards keeps their partials apart (docs/determinism.md, rule 3).
import type { KernelBackend, SharedMemory } from '../../kernels/backend.js'
import { instructionLevel, openBackend } from '../../kernels/open-backend.js'
import type { PackedMatrix } from '../../kernels/packing.js'
import { copyRows, type Rows } from '../../kernels/rows.js'
import type { SimdLevel } from '../../kernels/wasm/simd-level.js'
import type { Collectives } from '../collectives/collectives.js'
import type { Exchange } from '../collectives/exchange.js'
import { queriesFromLatent } from '../layout/attention-geometry.js'
import type { ModelLayout } from '../layout/model-layout.js'
import type { RankLayout } from '../layout/rank-layout.js'
import { COUNTERS, ROW } from '../mailbox/mailbox-layout.js'
import type { RankCounterSlots, StepReader } from '../mailbox/step-buffer.js'
import { PhaseClock } from '../profile/phase-clock.js'
import { type EventName, eventId, type ProfileRecorder } from '../profile/profile-recorder.js'
import { profiledBackend } from '../profile/profiled-backend.js'
import { type ModelShape, type RankInit, type RankReport, SHARDS } from '../protocol.js'
import { openRank } from '../rank-parts.js'
import type { RankRunner } from '../rank-runner.js'
import type { StepResults } from '../sampling/step-results.js'
import type { TokenInputs } from '../token-inputs.js'
import { AdapterWork } from './adapter-work.js'
import { AttentionBlock } from './attention-block.js'
import type { ShardWork } from './shard-work.js'

export class ModelRunner implements RankRunner {
  readonly #shape: ModelShape
  readonly #kernels: KernelBackend
  readonly #layout: RankLayout
  readonly #shards: readonly ShardWork[]
  readonly #own: readonly number[]
  readonly #exchange: Exchange
  readonly #attention: AttentionBlock
  readonly #adapters: AdapterWork
  readonly #collectives: Collectives
  readonly #step: StepReader
  readonly #recorder: ProfileRecorder | undefined
  readonly #simd: SimdLevel
  readonly #results: StepResults
  readonly #counters: RankCounterSlots
  readonly #clock: PhaseClock
  readonly #inputs: TokenInputs

  // Rows in the rank's memory; [T, width].
  readonly #residual: Rows
  readonly #residualAt: readonly Rows[]
  readonly #normed: Rows
  readonly #normedAt: readonly Rows[]
  readonly #delta: Rows
  readonly #ropeTable: Rows

  constructor(rank: number, init: RankInit, collectives: Collectives, recorder?: ProfileRecorder) {
    const parts = openRank(rank, init, collectives, recorder, (memory, model) => openProfiled(init, memory, model, recorder))
    const { layout, kernels } = parts
    const { shape, plan } = init
    this.#recorder = recorder
    this.#simd = plan.simd
    this.#shape = shape
    this.#kernels = kernels
    this.#layout = layout
    this.#own = layout.shards
    this.#collectives = collectives
    this.#shards = parts.shards
    this.#exchange = parts.exchange
    this.#step = parts.step
    this.#results = parts.results
    this.#counters = parts.counters
    this.#inputs = parts.inputs
    const perRow = (rows: Rows) => Array.from({ length: plan.stepRows }, (_, t) => rows.from(t))
    this.#residual = kernels.rows(layout.residual, shape.embed)
    this.#residualAt = perRow(this.#residual)
    this.#normed = kernels.rows(layout.normed, shape.embed)
    this.#normedAt = perRow(this.#normed)
    this.#delta = kernels.rows(layout.delta, shape.embed)
    this.#ropeTable = kernels.rows(layout.ropeTable, shape.attention.ropeDim)
    this.#clock = new PhaseClock(() => collectives.waitedMs)
    const { shards, exchange, step } = parts
    this.#adapters = new AdapterWork(rank, init, parts.model, queriesFromLatent(shape.attention) ? 'latent' : 'attention')
    const rows = { normed: this.#normed, ropeTable: this.#ropeTable }
    const own = { clock: this.#clock, adapters: this.#adapters }
    this.#attention = new AttentionBlock({ shape, plan, layout, kernels, shards, exchange, collectives, step, ...own, ...rows })
  }

  get report(): RankReport {
    const { backend } = this.#kernels
    return { backend, instructions: instructionLevel(backend, this.#simd), adapter: undefined, dispatches: [] }
  }

  /** Runs the published step of this epoch. Mutates the cache, the exchange slots and the mailbox's results. */
  run(epoch: number): undefined {
    const step = this.#step
    step.open(epoch)
    const tokens = step.rows
    const start = performance.now()
    const recordedAt = this.#recorder?.now()
    this.#collectives.enter('start of step')
    this.#adapters.begin(step, tokens)
    this.#attention.copyPages()
    this.#embed(tokens)
    for (let layer = 0; layer < this.#shape.layers; layer++) {
      this.#attend(layer, tokens)
      this.#feedForward(layer, tokens)
    }
    this.#clock.enter('logits and sampling')
    this.#logits(tokens)
    this.#clock.enter(undefined)
    if (recordedAt !== undefined) this.#recorder?.add(STEP, recordedAt)
    this.#count(performance.now() - start)
    return undefined
  }

  #embed(tokens: number): void {
    this.#collectives.enter('embedding')
    for (let t = 0; t < tokens; t++) {
      copyRows(this.#residualAt[t] as Rows, this.#inputs.embedding(this.#results.token(t)), 1)
      this.#inputs.rope(this.#step.int(t, ROW.position), this.#ropeTable.row(t))
    }
  }

  #attend(layer: number, tokens: number): void {
    const weights = this.#layout.layers[layer] as RankLayout['layers'][number]
    this.#kernels.rmsNorm(this.#residual, weights.inputNorm, this.#normed, this.#shape.embed, tokens, this.#shape.normEps)
    this.#attention.run(layer, tokens)
    this.#collectives.barrier('all-reduce of the attention projection')
    this.#addSum(this.#exchange.attentionOut, tokens)
  }

  #feedForward(layer: number, tokens: number): void {
    const weights = this.#layout.layers[layer] as RankLayout['layers'][number]
    this.#kernels.rmsNorm(this.#residual, weights.mlpNorm, this.#normed, this.#shape.embed, tokens, this.#shape.normEps)
    this.#clock.enter('MLP')
    const adapters = this.#adapters
    adapters.input('mlp', layer, this.#normed)
    for (let u = 0; u < this.#own.length; u++) {
      const s = this.#own[u] as number
      const shard = this.#shard(s)
      const matrices = shard.layer(layer)
      copyRows(shard.normed, this.#normed, tokens)
      shard.matmul(matrices.gateUp, shard.normed, shard.gateUp, tokens)
      adapters.add('gate', layer, s, shard.gate)
      adapters.add('up', layer, s, shard.up)
      shard.kernels.swiglu(shard.gate, shard.up, shard.gateWidth, tokens)
      shard.matmul(matrices.down, shard.gate, shard.down, tokens)
      adapters.addOwn('down', layer, s, shard.gate, shard.down)
      copyRows(this.#exchange.mlp[s] as Rows, shard.down, tokens)
    }
    this.#clock.enter(undefined)
    this.#collectives.barrier('all-reduce of the MLP')
    this.#addSum(this.#exchange.mlp, tokens)
  }

  /** residual += ((p0 + p1) + p2) + p3. */
  #addSum(partials: readonly Rows[], tokens: number): void {
    const exchange = this.#exchange
    exchange.kernels.sumPartials(exchange.reduced, partials, this.#shape.embed, tokens, 1)
    if (exchange.kernels === this.#kernels) {
      this.#kernels.addRows(this.#residual, exchange.reduced, this.#shape.embed, tokens)
      return
    }
    copyRows(this.#delta, exchange.reduced, tokens)
    this.#kernels.addRows(this.#residual, this.#delta, this.#shape.embed, tokens)
  }

  #logits(tokens: number): void {
    let selected = 0
    for (let t = 0; t < tokens; t++) {
      if (!this.#results.wants(t)) continue
      const to = this.#normedAt[selected++] as Rows
      this.#kernels.rmsNorm(this.#residualAt[t] as Rows, this.#layout.finalNorm, to, this.#shape.embed, 1, this.#shape.normEps)
    }
    if (selected === 0) return
    const columns = this.#exchange.logitParts[this.#step.ring] as readonly Rows[]
    for (let u = 0; u < this.#own.length; u++) {
      const s = this.#own[u] as number
      const shard = this.#shard(s)
      copyRows(shard.normed, this.#normed, selected)
      shard.matmul(shard.head, shard.normed, shard.logits, selected)
      copyRows(columns[s] as Rows, shard.logits, selected)
    }
    this.#collectives.barrier('gather of logits')
    this.#collectives.enter('sampling')
    this.#results.take(tokens)
  }

  #count(ms: number): void {
    let sharded = 0
    let replicated = this.#kernels.weightBytesRead
    for (let s = 0; s < SHARDS; s++) {
      const read = this.#shard(s).kernels.weightBytesRead
      if (this.#own.includes(s)) sharded += read
      else replicated += read
    }
    this.#counters.set(COUNTERS.shardedWeightBytes, sharded)
    this.#counters.set(COUNTERS.replicatedWeightBytes, replicated)
    this.#counters.set(COUNTERS.cacheBytes, this.#kernels.cacheBytesRead)
    this.#counters.endStep(ms, this.#collectives.waitMs, this.#clock.ms)
  }

  #shard(s: number): ShardWork {
    return this.#shards[s] as ShardWork
  }
}

const STEP = eventId('step')

/** Opens the kernels over a memory; with a recorder, every call is timed. */
function openProfiled(init: RankInit, memory: SharedMemory, layout: ModelLayout, recorder: ProfileRecorder | undefined): KernelBackend {
  const kernels = openBackend(init.module, memory)
  if (!recorder) return kernels
  const matrices = new Map<PackedMatrix, EventName>()
  for (const shard of layout.shards) {
    for (const layer of shard.layers) for (const [name, matrix] of Object.entries(layer)) matrices.set(matrix, name as keyof typeof layer)
    matrices.set(shard.head, 'head')
  }
  for (const rank of layout.ranks) for (const layer of rank.layers) matrices.set(layer.shared, 'shared')
  return profiledBackend(kernels, recorder, matrices)
}
