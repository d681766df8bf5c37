// The attention of one layer as a rank runs it: projections, cache, attention, and the output's partial sums. Which of
// these a model has follows from its shape; between two collectives a rank computes from its own shards only.
import type { KernelBackend } from '../../kernels/backend.js'
import { paddedRows } from '../../kernels/packing.js'
import { copyRows, type Rows } from '../../kernels/rows.js'
import type { Collectives } from '../collectives/collectives.js'
import { type Exchange, type PartialSum, perShard } from '../collectives/exchange.js'
import { queriesFromLatent, queryWidth } from '../layout/attention-geometry.js'
import {
  cacheRows,
  cacheWidth,
  contextWidth,
  isLocal,
  ownStreams,
  segmentHeads,
  shardHeads,
  sharedStreams,
  unitsOf,
} from '../layout/attention-plan.js'
import { cut, part } from '../layout/cuts.js'
import { preparedColumns } from '../layout/prepared-layout.js'
import type { RankLayout } from '../layout/rank-layout.js'
import type { StepReader } from '../mailbox/step-buffer.js'
import type { PhaseClock } from '../profile/phase-clock.js'
import { type ModelShape, type RunPlan, SHARDS } from '../protocol.js'
import type { AdapterWork } from './adapter-work.js'
import { copyAll, type Move } from './moves.js'
import { PagedAttention, type UnitWork } from './paged-attention.js'
import { SequenceExchange } from './sequence-exchange.js'
import type { ShardWork } from './shard-work.js'

/** A rank's memory, shards and collectives, as its blocks share them. */
export interface RankContext {
  readonly shape: ModelShape
  readonly plan: RunPlan
  readonly layout: RankLayout
  readonly kernels: KernelBackend
  /** All four; a rank reads another's only for what is replicated. */
  readonly shards: readonly ShardWork[]
  readonly exchange: Exchange
  readonly collectives: Collectives
  readonly clock: PhaseClock
  readonly step: StepReader
  readonly adapters: AdapterWork
  /** [T, embed]: the block's input after its norm. */
  readonly normed: Rows
  /** [T, ropeDim]: cos half, sin half */
  readonly ropeTable: Rows
}

/** What an own shard takes from and gives to the rank's buffers, as columns made once. */
interface ShardMoves {
  /** Own streams: shard -> rank. */
  readonly streams: readonly Move[]
  readonly coefficients: readonly Move[]
  /** Queries in the streams' space: shard -> units. */
  readonly absorbed: readonly Move[]
  /** Weighted sums: units -> the shard's input, or the exchange slot when values need no projection. */
  readonly context: readonly Move[]
}

export class AttentionBlock {
  readonly #c: RankContext
  readonly #own: readonly number[]
  readonly #local: boolean
  readonly #paged: PagedAttention
  /** Where the cache is cut along the sequence. */
  readonly #sequence: SequenceExchange | undefined
  readonly #moves: readonly ShardMoves[]
  /** [T, queryRank], and its part of each shard. */
  readonly #queryLatent: Rows
  readonly #queryLatentParts: readonly Rows[]
  /** [T, heads * (nope + rope)] */
  readonly #queries: Rows
  /** By shard: where the result of queryB goes. */
  readonly #queryParts: readonly Rows[]
  /** With factors: [T, own heads * factors.queryRank] and the queries made of them. */
  readonly #queryCoefficients: Rows
  readonly #ownQueries: Rows
  readonly #ropeQueries: Rows
  /** [T, shared rows] */
  readonly #shared: Rows
  /** [T, width], indexed as the rank's streams. */
  readonly #streams: readonly Rows[]
  readonly #ropeKey: Rows
  /** Every rank projects the streams that this one projects. */
  readonly #sharedByAll: boolean

  constructor(context: RankContext) {
    this.#c = context
    const { shape, layout, kernels, plan } = context
    const a = shape.attention
    const perHead = queryWidth(a)
    const own = layout.shards
    this.#own = own
    this.#local = isLocal(a)
    this.#queryLatent = kernels.rows(layout.queryLatent, a.queryRank)
    this.#queryLatentParts = perShard((s) => this.#queryLatent.columns(cut(a.queryRank, s), part(a.queryRank, s)))
    this.#queries = kernels.rows(layout.queries, a.heads * perHead)
    const produced = a.factors?.queryRank ?? perHead
    const target = a.factors ? kernels.rows(layout.queryCoefficients, a.heads * produced) : this.#queries
    this.#queryParts = perShard((s) => {
      const { start, end } = segmentHeads(a, s)
      return target.columns(start * produced, (end - start) * produced)
    })
    this.#queryCoefficients = target.columns(layout.headStart * produced, (layout.headEnd - layout.headStart) * produced)
    const first = layout.headStart * perHead
    this.#ownQueries = this.#queries.columns(first, this.#queries.width - first)
    this.#ropeQueries = this.#queries.columns(first + a.nopeDim, this.#queries.width - first - a.nopeDim)
    const sharedRows = layout.layers[0]?.shared.rows ?? 0
    this.#shared = kernels.rows(layout.shared, sharedRows, paddedRows(sharedRows))
    this.#streams = layout.streams.map(({ shard, foreign, row, rows }) =>
      shard === undefined && !foreign ? this.#shared.columns(row, a.stream.width) : kernels.rows(rows, a.stream.width),
    )
    this.#ropeKey = this.#shared.columns(sharedStreams(a, own).length * a.stream.width, a.sharedRopeDim)
    this.#sharedByAll = sharedStreams(a, own).every((stream) => a.units.every((units) => units.some((unit) => unit.stream === stream)))
    const coefficientLanes = cacheWidth(layout.attendEnd - layout.attendStart)
    const coefficients = kernels.rows(layout.coefficients, 2 * (a.factors?.rank ?? 0) * coefficientLanes)
    const inputs = { streams: this.#streams, ropeKey: this.#ropeKey, coefficients }
    this.#paged = new PagedAttention(kernels, cacheRows(a, own, plan), a, plan, layout, this.#queries, inputs)
    const rows = { queries: this.#queries, streams: this.#streams, coefficients, coefficientLanes, units: this.#paged.units }
    this.#sequence = plan.partition === 'sequence' ? new SequenceExchange(a, layout, context.exchange, rows) : undefined
    this.#moves = own.map((s) => this.#movesOf(s, coefficients, coefficientLanes))
  }

  /** Copies of cached rows that the step begins with. */
  copyPages(): void {
    this.#paged.copyPages(this.#c.step)
  }

  /** Leaves each shard's partial of the projected output in the exchange memory; the residual stays as it is. */
  run(layer: number, tokens: number): void {
    const { shape, kernels, collectives, layout, step, clock, adapters } = this.#c
    const a = shape.attention
    const weights = layout.layers[layer] as RankLayout['layers'][number]
    const perHead = queryWidth(a)
    clock.enter('projections')
    adapters.input('attention', layer, this.#c.normed)
    if (weights.shared.rows > 0 && this.#needsShared(tokens)) {
      kernels.matmul(weights.shared, this.#c.normed, this.#shared, tokens, layout.matmul)
      adapters.addShared(layer, this.#shared)
    }
    this.#projectInputs(layer, tokens)
    if (a.queryRank > 0 && a.queryNormed) kernels.rmsNorm(this.#queryLatent, weights.queryNorm, this.#queryLatent, a.queryRank, tokens, a.normEps)
    if (queriesFromLatent(a)) adapters.input('latent', layer, this.#queryLatent)
    this.#projectQueries(layer, tokens)
    this.#finishQueries(weights, tokens)
    kernels.rope(this.#ropeQueries, perHead, a.factors ? 0 : layout.headEnd - layout.headStart, a.ropeDim / 2, this.#c.ropeTable, tokens)
    if (a.sharedRopeDim > 0) kernels.rope(this.#ropeKey, 0, 1, a.sharedRopeDim / 2, this.#c.ropeTable, tokens)
    for (let i = 0; i < this.#streams.length; i++) {
      if (layout.streams[i]?.foreign) continue
      const rows = this.#streams[i] as Rows
      const { width, normWidth } = a.stream
      if (a.biased) kernels.addVector(rows, weights.streamBiases[i] as number, width, tokens)
      if (normWidth > 0) kernels.rmsNorm(rows, weights.streamNorms[i] as number, rows, normWidth, tokens, a.normEps)
      kernels.rope(rows, a.ropeDim, a.stream.ropeVectors, a.ropeDim / 2, this.#c.ropeTable, tokens)
    }
    if (a.absorbed) this.#absorb(layer, tokens)
    if (this.#sequence) this.#attendInParts(this.#sequence, layer, tokens)
    else {
      this.#paged.writeCache(layer, step, tokens)
      clock.enter('attention')
      this.#paged.attend(layer, step, tokens)
    }
    clock.enter('projections')
    for (let i = 0; i < this.#own.length; i++) this.#values(layer, i, tokens)
    if (!this.#local) collectives.barrier('reduce-scatter of attention outputs')
    for (let i = 0; i < this.#own.length; i++) this.#projectOutput(layer, i, tokens)
    clock.enter(undefined)
  }

  /** All heads over the pages of own shards; the outputs of own shards' units in the slots of combined sums. */
  #attendInParts(sequence: SequenceExchange, layer: number, tokens: number): void {
    const { collectives, step, clock } = this.#c
    sequence.give(tokens)
    collectives.barrier('gather of queries and rows to cache')
    sequence.take(tokens)
    this.#paged.writeCache(layer, step, tokens)
    clock.enter('attention')
    for (let i = 0; i < this.#own.length; i++) {
      this.#paged.attend(layer, step, tokens, this.#own[i] as number, SHARDS)
      sequence.givePartial(i, tokens)
    }
    collectives.barrier('exchange of partial attention')
    sequence.combine(tokens)
  }

  /** A rank that holds none of the pages that a step writes to needs none of what every rank projects. */
  #needsShared(tokens: number): boolean {
    if (!this.#sequence || !this.#sharedByAll) return true
    for (let t = 0; t < tokens; t++) if (this.#paged.holds(this.#c.step, t)) return true
    return false
  }

  /** From the block's input: parts of the query latent, own streams, coefficients. */
  #projectInputs(layer: number, tokens: number): void {
    const { shape, plan, exchange, collectives, normed, adapters } = this.#c
    const whole = plan.replicate.queryA
    const latent = shape.attention.queryRank > 0
    for (let s = 0; s < SHARDS; s++) {
      const own = this.#own.indexOf(s)
      if (own < 0 && !(whole && latent)) continue
      const shard = this.#shard(s)
      const weights = shard.layer(layer)
      copyRows(shard.normed, normed, tokens)
      if (latent) {
        shard.matmul(weights.queryA, shard.normed, shard.queryA, tokens)
        adapters.add('queryA', layer, s, shard.queryA)
        copyRows((whole ? this.#queryLatentParts[s] : exchange.queryA[s]) as Rows, shard.queryA, tokens)
      }
      if (own < 0) continue
      const moves = this.#moves[own] as ShardMoves
      shard.matmul(weights.streams, shard.normed, shard.streams, tokens)
      adapters.add('streams', layer, s, shard.streams)
      copyAll(moves.streams, tokens)
      shard.matmul(weights.coefficients, shard.normed, shard.coefficients, tokens)
      adapters.add('coefficients', layer, s, shard.coefficients)
      copyAll(moves.coefficients, tokens)
    }
    if (!latent || whole) return
    collectives.barrier('gather of query latents')
    for (let s = 0; s < SHARDS; s++) copyRows(this.#queryLatentParts[s] as Rows, exchange.queryA[s] as Rows, tokens)
  }

  /** The queries of all heads that this rank attends with. */
  #projectQueries(layer: number, tokens: number): void {
    const { shape, plan, exchange, collectives, kernels, normed, ropeTable, adapters } = this.#c
    const a = shape.attention
    const whole = plan.replicate.queryB && !this.#local
    const direct = this.#local || whole
    const fromLatent = queriesFromLatent(a)
    for (let s = 0; s < SHARDS; s++) {
      if (!whole && !this.#own.includes(s)) continue
      const shard = this.#shard(s)
      const input = fromLatent ? shard.queryLatent : shard.normed
      copyRows(input, fromLatent ? this.#queryLatent : normed, tokens)
      shard.matmul(shard.layer(layer).queryB, input, shard.queryB, tokens)
      adapters.add('queryB', layer, s, shard.queryB)
      copyRows((direct ? this.#queryParts[s] : exchange.queryB[s]) as Rows, shard.queryB, tokens)
    }
    if (!direct) {
      collectives.barrier('gather of queries')
      for (let s = 0; s < SHARDS; s++) copyRows(this.#queryParts[s] as Rows, exchange.queryB[s] as Rows, tokens)
    }
    if (!a.factors) return
    const { layout } = this.#c
    const width = queryWidth(a)
    kernels.rope(this.#queryLatent, a.ropeDim, a.factors.queryRank, a.ropeDim / 2, ropeTable, tokens)
    const heads = layout.headEnd - layout.headStart
    kernels.combineFactors(this.#ownQueries, this.#queryCoefficients, this.#queryLatent, heads, a.factors.queryRank, width, tokens)
  }

  /** The biases and norms of the heads that this rank attends with, before they are rotated. */
  #finishQueries({ queryBias, headNorm }: RankLayout['layers'][number], tokens: number): void {
    const { shape, kernels, layout } = this.#c
    const a = shape.attention
    const width = queryWidth(a)
    const heads = layout.headEnd - layout.headStart
    if (a.biased) kernels.addVector(this.#ownQueries, queryBias + layout.headStart * width * 4, heads * width, tokens)
    if (a.headNormed) kernels.rmsNormHeads(this.#ownQueries, width, heads, headNorm, width, tokens, a.normEps)
  }

  /** Queries to the streams' space. */
  #absorb(layer: number, tokens: number): void {
    for (let i = 0; i < this.#own.length; i++) {
      const s = this.#own[i] as number
      const shard = this.#shard(s)
      copyRows(shard.queries, this.#queries, tokens)
      shard.matmul(shard.layer(layer).keyUp, shard.ownQueries, shard.absorbed, tokens)
      this.#c.adapters.addOwn('keyUp', layer, s, shard.ownQueries, shard.absorbed)
      copyAll((this.#moves[i] as ShardMoves).absorbed, tokens)
    }
  }

  /** The weighted sums of own shard i as head outputs, in its exchange slot. */
  #values(layer: number, i: number, tokens: number): void {
    const s = this.#own[i] as number
    copyAll((this.#moves[i] as ShardMoves).context, tokens)
    if (!this.#c.shape.attention.absorbed) return
    const shard = this.#shard(s)
    shard.matmul(shard.layer(layer).valueUp, shard.context, shard.values, tokens)
    this.#c.adapters.addOwn('valueUp', layer, s, shard.context, shard.values)
    copyRows(this.#c.exchange.attention[s] as Rows, shard.values, tokens)
  }

  /** Own shard i's segment: sums over shards, the gate, and its partial of the output projection. */
  #projectOutput(layer: number, i: number, tokens: number): void {
    const { shape, exchange, normed, adapters } = this.#c
    const s = this.#own[i] as number
    const shard = this.#shard(s)
    const weights = shard.layer(layer)
    const sums = exchange.partialSums[i] as readonly PartialSum[]
    for (let k = 0; k < sums.length; k++) {
      const sum = sums[k] as PartialSum
      exchange.kernels.sumPartials(sum.to, sum.from, sum.width, tokens, shape.attention.outputFactor)
    }
    if (shape.attention.gated) {
      copyRows(shard.normed, normed, tokens)
      shard.matmul(weights.outputGate, shard.normed, shard.outputGate, tokens)
      adapters.add('outputGate', layer, s, shard.outputGate)
    }
    copyRows(shard.segment, exchange.segments[i] as Rows, tokens)
    if (shape.attention.gated) shard.kernels.gateRows(shard.segment, shard.outputGate, shard.segment.stride, tokens)
    shard.matmul(weights.attentionOut, shard.segment, shard.attentionOut, tokens)
    adapters.addOwn('attentionOut', layer, s, shard.segment, shard.attentionOut)
    copyRows(exchange.attentionOut[s] as Rows, shard.attentionOut, tokens)
  }

  #movesOf(s: number, coefficients: Rows, coefficientLanes: number): ShardMoves {
    const { shape, layout } = this.#c
    const a = shape.attention
    const shard = this.#shard(s)
    const attends = shardHeads(a, s)
    const heads = attends.end - attends.start
    const pad = contextWidth(a)
    const units = unitsOf(a, s).map((unit) => ({
      unit,
      work: this.#paged.units.find((work) => layout.streams[work.stream]?.stream === unit.stream) as UnitWork,
      count: unit.headEnd - unit.headStart,
    }))
    const { valueDim } = a
    const out = this.#c.exchange.attention[s] as Rows
    const columns = preparedColumns(a, s)
    const prepared = this.#sequence && this.#c.exchange.prepared[s]
    return {
      streams: ownStreams(a, s).map((stream, i) => ({
        to: this.#streams[layout.streams.findIndex((r) => r.stream === stream)] as Rows,
        from: shard.streams.columns(i * a.stream.width, a.stream.width),
      })),
      coefficients: Array.from({ length: a.factors && heads > 0 ? 2 * a.factors.rank : 0 }, (_, j) => ({
        to: prepared
          ? prepared.columns(columns.coefficients + j * heads, heads)
          : coefficients.columns(j * coefficientLanes + attends.start - layout.headStart, heads),
        from: shard.coefficients.columns(j * heads, heads),
      })),
      absorbed: units.map(({ unit, work, count }) => ({
        to: prepared
          ? prepared.columns((unit.headStart - attends.start) * work.queryStride, count * work.queryStride)
          : work.queries.columns((unit.headStart - work.headStart) * work.queryStride, count * work.queryStride),
        from: shard.absorbed.columns((unit.headStart - attends.start) * work.queryStride, count * work.queryStride),
      })),
      context: units.flatMap(({ unit, work, count }) => {
        const first = unit.headStart - attends.start
        const at = (prepared ? first : unit.headStart - work.headStart) * pad
        const context = prepared ? (this.#c.exchange.combined[s] as Rows) : work.context
        if (a.absorbed) return [{ to: shard.context.columns(first * pad, count * pad), from: context.columns(at, count * pad) }]
        if (pad === valueDim) return [{ to: out.columns(first * pad, count * pad), from: context.columns(at, count * pad) }]
        return Array.from({ length: count }, (_, h) => ({
          to: out.columns((first + h) * valueDim, valueDim),
          from: context.columns(at + h * pad, valueDim),
        }))
      }),
    }
  }

  #shard(s: number): ShardWork {
    return this.#c.shards[s] as ShardWork
  }
}
