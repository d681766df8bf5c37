// One rank's part of a step, top to bottom: embedding, layers, logits, sampling. Between two collectives it computes from
// its own shards only; a rank that carries several shards keeps their partials apart (design rule 3).
import type { BackendName, KernelSpace } from '../kernels/backend.js'
import { openSpace } from '../kernels/open-space.js'
import { cosSin, ropeFrequencies } from '../kernels/portable-math.js'
import { copyRows, type Rows } from '../kernels/rows.js'
import { LatentAttentionRunner } from './attention/latent-attention.js'
import type { Collectives } from './collectives.js'
import { COUNTERS, LAST_SAMPLED, layoutMailbox, ROW, ROW_FLAGS } from './layout.js'
import { cut, layoutModel, part, type RankLayout, unitOf } from './model-layout.js'
import { type ModelShape, type RankInit, type Replication, SHARDS } from './protocol.js'
import { sampleRow } from './sampler.js'
import { ShardWork } from './shard-work.js'
import { StepView } from './step-view.js'

/** Heads of one segment of the attention projection with the same contributors: columns of a sum and its sources. */
interface PartialSum {
  readonly to: Rows
  readonly from: readonly Rows[]
  readonly width: number
}

/** The exchange memory as this rank uses it. */
interface Exchange {
  readonly space: KernelSpace
  readonly queryA: readonly Rows[]
  readonly queryB: readonly Rows[]
  readonly attention: readonly Rows[]
  readonly attentionOut: readonly Rows[]
  readonly mlp: readonly Rows[]
  readonly segments: readonly Rows[]
  readonly partialSums: readonly (readonly PartialSum[])[]
  readonly reduced: Rows
  readonly logits: readonly Rows[]
  /** By ring index and shard: that shard's columns. */
  readonly logitParts: readonly (readonly Rows[])[]
  readonly sampling: number
}

export class ModelRunner {
  readonly #rank: number
  readonly #shape: ModelShape
  readonly #replicate: Replication
  readonly #space: KernelSpace
  readonly #layout: RankLayout
  readonly #shards: readonly ShardWork[]
  readonly #own: readonly number[]
  readonly #exchange: Exchange
  readonly #attention: LatentAttentionRunner
  readonly #collectives: Collectives
  readonly #step: StepView
  readonly #lastSampled: Int32Array
  readonly #counters: Float64Array
  readonly #frequencies: Float64Array
  readonly #embedding: { readonly starts: readonly number[] }

  // Rows in the rank's memory; [T, width].
  readonly #residual: Rows
  readonly #residualAt: readonly Rows[]
  readonly #normed: Rows
  readonly #normedAt: readonly Rows[]
  readonly #delta: Rows
  readonly #queryLatent: Rows
  readonly #queryLatentParts: readonly Rows[]
  readonly #queries: Rows
  readonly #queryParts: readonly Rows[]
  readonly #ropeQueries: Rows
  readonly #ropeKey: Rows
  readonly #ropeTable: Rows

  constructor(rank: number, init: RankInit, collectives: Collectives) {
    const { shape, plan } = init
    const a = shape.attention
    const layout = layoutModel(shape, plan)
    const mine = layout.ranks[rank]
    if (!mine) throw new RangeError(`no rank ${rank} in a plan for ${plan.ranks}`)
    const space = openSpace(init.module, init.rankMemory)
    this.#rank = rank
    this.#shape = shape
    this.#replicate = plan.replicate
    this.#space = space
    this.#layout = mine
    this.#own = mine.shards
    this.#collectives = collectives
    this.#shards = layout.shards.map((shard, s) => {
      const memory = init.shards[s]
      if (!memory) throw new RangeError(`no memory for shard ${s}`)
      return new ShardWork(openSpace(init.module, memory), shard, shape, s, rank)
    })
    this.#exchange = openExchange(rank, init, layout.exchange, init.exchange ? openSpace(init.module, init.exchange) : space, mine.shards)
    const queryWidth = a.nopeDim + a.ropeDim
    const perRow = (rows: Rows) => Array.from({ length: plan.stepRows }, (_, t) => rows.from(t))
    this.#residual = space.rows(mine.residual, shape.embed)
    this.#residualAt = perRow(this.#residual)
    this.#normed = space.rows(mine.normed, shape.embed)
    this.#normedAt = perRow(this.#normed)
    this.#delta = space.rows(mine.delta, shape.embed)
    this.#queryLatent = space.rows(mine.queryLatent, a.queryRank)
    this.#queryLatentParts = parts((s) => this.#queryLatent.columns(cut(a.queryRank, s), part(a.queryRank, s)))
    this.#queries = space.rows(mine.queries, a.heads * queryWidth)
    this.#queryParts = parts((s) => this.#queries.columns(cut(a.heads, s) * queryWidth, part(a.heads, s) * queryWidth))
    this.#ropeQueries = this.#queries.columns(a.nopeDim, a.heads * queryWidth - a.nopeDim)
    this.#ropeKey = space.rows(mine.ropeKey, a.ropeDim, Math.ceil(a.ropeDim / 32) * 32)
    this.#ropeTable = space.rows(mine.ropeTable, a.ropeDim)
    this.#attention = new LatentAttentionRunner(space, plan.cache, shape, mine, this.#queries, this.#ropeKey)
    this.#step = new StepView(init.mailbox, plan.stepRows, plan.slots, plan.pagesPerSlot)
    this.#lastSampled = new Int32Array(plan.slots)
    const mailbox = layoutMailbox(plan.stepRows, plan.slots, plan.pagesPerSlot)
    this.#counters = new Float64Array(init.mailbox, mailbox.counters + rank * COUNTERS.values * 8, COUNTERS.values)
    this.#frequencies = ropeFrequencies(a.ropeDim / 2)
    this.#embedding = { starts: parts((s) => cut(shape.vocab, s)) }
  }

  get backend(): BackendName {
    return this.#space.backend
  }

  /** Runs the published step of this epoch. Mutates the cache, the exchange slots and the mailbox's results. */
  run(epoch: number): void {
    const step = this.#step
    step.open(epoch)
    const tokens = step.rows
    const start = performance.now()
    this.#collectives.at('start of step')
    this.#embed(tokens)
    for (let layer = 0; layer < this.#shape.layers; layer++) {
      this.#attend(layer, tokens)
      this.#feedForward(layer, tokens)
    }
    this.#logits(tokens)
    this.#count(performance.now() - start)
  }

  #embed(tokens: number): void {
    this.#collectives.at('embedding')
    const { starts } = this.#embedding
    const half = this.#frequencies.length
    for (let t = 0; t < tokens; t++) {
      const given = this.#step.int(t, ROW.token)
      const token = given === LAST_SAMPLED ? (this.#lastSampled[this.#step.int(t, ROW.slot)] as number) : given
      let s = SHARDS - 1
      while (s > 0 && token < (starts[s] as number)) s--
      const shard = this.#shard(s)
      shard.space.gatherRow(shard.head, token - (starts[s] as number), shard.normed)
      copyRows(this.#residualAt[t] as Rows, shard.normed, 1)
      const position = this.#step.int(t, ROW.position)
      const row = this.#ropeTable.row(t)
      for (let i = 0; i < half; i++) cosSin(position * (this.#frequencies[i] as number), row, i, half + i)
    }
  }

  #attend(layer: number, tokens: number): void {
    const space = this.#space
    const weights = this.#layout.layers[layer]
    if (!weights) throw new RangeError(`no layer ${layer}`)
    const a = this.#shape.attention
    const queryWidth = a.nopeDim + a.ropeDim

    space.rmsNorm(this.#residual, weights.inputNorm, this.#normed, this.#shape.embed, tokens)
    space.matmul(weights.ropeKey, this.#normed, this.#ropeKey, tokens, this.#layout.matmul)
    this.#projectQueryLatents(layer, tokens)
    space.rmsNorm(this.#queryLatent, weights.queryNorm, this.#queryLatent, a.queryRank, tokens)
    this.#projectQueries(layer, tokens)
    space.rope(this.#ropeQueries, queryWidth, a.heads, a.ropeDim / 2, this.#ropeTable, tokens)
    space.rope(this.#ropeKey, 0, 1, a.ropeDim / 2, this.#ropeTable, tokens)

    for (let u = 0; u < this.#own.length; u++) {
      const unit = this.#unit(u)
      space.rmsNorm(unit.latent, weights.latentNorms[u] as number, unit.latent, a.latentDim, tokens)
      const shard = this.#shard(this.#own[u] as number)
      copyRows(shard.queries, this.#queries, tokens)
      shard.space.matmul(shardLayer(shard, layer).keyUp, shard.unitQueries, shard.absorbed, tokens, shard.scratch)
      copyRows(unit.absorbed, shard.absorbed, tokens)
    }
    this.#attention.writeCache(layer, this.#step, tokens)
    this.#attention.attend(layer, this.#step, tokens)
    for (let u = 0; u < this.#own.length; u++) {
      const s = this.#own[u] as number
      const shard = this.#shard(s)
      copyRows(shard.context, this.#unit(u).context, tokens)
      shard.space.matmul(shardLayer(shard, layer).valueUp, shard.context, shard.values, tokens, shard.scratch)
      copyRows(this.#exchange.attention[s] as Rows, shard.values, tokens)
    }
    this.#collectives.barrier('reduce-scatter of attention outputs')
    for (let u = 0; u < this.#own.length; u++) {
      const s = this.#own[u] as number
      const shard = this.#shard(s)
      const sums = this.#exchange.partialSums[u] as readonly PartialSum[]
      for (let i = 0; i < sums.length; i++) {
        const sum = sums[i] as PartialSum
        this.#exchange.space.sumPartials(sum.to, sum.from, sum.width, tokens, a.outputFactor)
      }
      copyRows(shard.segment, this.#exchange.segments[u] as Rows, tokens)
      shard.space.matmul(shardLayer(shard, layer).attentionOut, shard.segment, shard.attentionOut, tokens, shard.scratch)
      copyRows(this.#exchange.attentionOut[s] as Rows, shard.attentionOut, tokens)
    }
    this.#collectives.barrier('all-reduce of the attention projection')
    this.#addSum(this.#exchange.attentionOut, tokens)
  }

  /** queryLatent = q_a_proj x whole, and each own unit's latent. */
  #projectQueryLatents(layer: number, tokens: number): void {
    const whole = this.#replicate.queryA
    for (let s = 0; s < SHARDS; s++) {
      const u = this.#own.indexOf(s)
      if (u < 0 && !whole) continue
      const shard = this.#shard(s)
      const weights = shardLayer(shard, layer)
      copyRows(shard.normed, this.#normed, tokens)
      shard.space.matmul(weights.queryA, shard.normed, shard.queryA, tokens, shard.scratch)
      copyRows((whole ? this.#queryLatentParts[s] : this.#exchange.queryA[s]) as Rows, shard.queryA, tokens)
      if (u < 0) continue
      shard.space.matmul(weights.latent, shard.normed, shard.latent, tokens, shard.scratch)
      copyRows(this.#unit(u).latent, shard.latent, tokens)
    }
    if (whole) return
    this.#collectives.barrier('gather of query latents')
    for (let s = 0; s < SHARDS; s++) copyRows(this.#queryLatentParts[s] as Rows, this.#exchange.queryA[s] as Rows, tokens)
  }

  /** queries = q_b_proj of the normed query latents, all heads. */
  #projectQueries(layer: number, tokens: number): void {
    const whole = this.#replicate.queryB
    for (let s = 0; s < SHARDS; s++) {
      if (!whole && !this.#own.includes(s)) continue
      const shard = this.#shard(s)
      copyRows(shard.queryLatent, this.#queryLatent, tokens)
      shard.space.matmul(shardLayer(shard, layer).queryB, shard.queryLatent, shard.queryB, tokens, shard.scratch)
      copyRows((whole ? this.#queryParts[s] : this.#exchange.queryB[s]) as Rows, shard.queryB, tokens)
    }
    if (whole) return
    this.#collectives.barrier('gather of queries')
    for (let s = 0; s < SHARDS; s++) copyRows(this.#queryParts[s] as Rows, this.#exchange.queryB[s] as Rows, tokens)
  }

  #feedForward(layer: number, tokens: number): void {
    const weights = this.#layout.layers[layer]
    if (!weights) throw new RangeError(`no layer ${layer}`)
    this.#space.rmsNorm(this.#residual, weights.mlpNorm, this.#normed, this.#shape.embed, tokens)
    for (let u = 0; u < this.#own.length; u++) {
      const s = this.#own[u] as number
      const shard = this.#shard(s)
      const matrices = shardLayer(shard, layer)
      copyRows(shard.normed, this.#normed, tokens)
      shard.space.matmul(matrices.gate, shard.normed, shard.gate, tokens, shard.scratch)
      shard.space.matmul(matrices.up, shard.normed, shard.up, tokens, shard.scratch)
      shard.space.swiglu(shard.gate, shard.up, shard.gateWidth, tokens)
      shard.space.matmul(matrices.down, shard.gate, shard.down, tokens, shard.scratch)
      copyRows(this.#exchange.mlp[s] as Rows, shard.down, tokens)
    }
    this.#collectives.barrier('all-reduce of the MLP')
    this.#addSum(this.#exchange.mlp, tokens)
  }

  /** residual += ((p0 + p1) + p2) + p3. */
  #addSum(partials: readonly Rows[], tokens: number): void {
    const exchange = this.#exchange
    exchange.space.sumPartials(exchange.reduced, partials, this.#shape.embed, tokens, 1)
    if (exchange.space === this.#space) {
      this.#space.addRows(this.#residual, exchange.reduced, this.#shape.embed, tokens)
      return
    }
    copyRows(this.#delta, exchange.reduced, tokens)
    this.#space.addRows(this.#residual, this.#delta, this.#shape.embed, tokens)
  }

  #logits(tokens: number): void {
    const step = this.#step
    const wanted = ROW_FLAGS.logits | ROW_FLAGS.sample
    let selected = 0
    for (let t = 0; t < tokens; t++) {
      if ((step.int(t, ROW.flags) & wanted) === 0) continue
      const to = this.#normedAt[selected++] as Rows
      this.#space.rmsNorm(this.#residualAt[t] as Rows, this.#layout.finalNorm, to, this.#shape.embed, 1)
    }
    if (selected === 0) return
    const columns = this.#exchange.logitParts[step.ring] as readonly Rows[]
    for (let u = 0; u < this.#own.length; u++) {
      const s = this.#own[u] as number
      const shard = this.#shard(s)
      copyRows(shard.normed, this.#normed, selected)
      shard.space.matmul(shard.head, shard.normed, shard.logits, selected, shard.scratch)
      copyRows(columns[s] as Rows, shard.logits, selected)
    }
    this.#collectives.barrier('gather of logits')
    this.#collectives.at('sampling')
    const logits = this.#exchange.logits[step.ring] as Rows
    for (let t = 0, at = 0; t < tokens; t++) {
      const flags = step.int(t, ROW.flags)
      if ((flags & wanted) === 0) continue
      if ((flags & ROW_FLAGS.sample) !== 0) {
        // -1: not finite. The coordinator ends that request; a row that was scheduled ahead of it computes from token 0.
        const token = sampleRow(this.#exchange.space, step, t, logits, at, this.#shape.vocab, this.#exchange.sampling)
        this.#lastSampled[step.int(t, ROW.slot)] = Math.max(0, token)
        if (this.#rank === 0) step.setSampled(t, token)
      }
      at++
    }
  }

  #count(ms: number): void {
    let sharded = 0
    let replicated = this.#space.weightBytesRead
    for (let s = 0; s < SHARDS; s++) {
      const read = this.#shard(s).space.weightBytesRead
      if (this.#own.includes(s)) sharded += read
      else replicated += read
    }
    this.#counters[COUNTERS.shardedWeightBytes] = sharded
    this.#counters[COUNTERS.replicatedWeightBytes] = replicated
    this.#counters[COUNTERS.cacheBytes] = this.#space.cacheBytesRead
    this.#counters[COUNTERS.steps] = (this.#counters[COUNTERS.steps] as number) + 1
    this.#counters[COUNTERS.stepMs] = (this.#counters[COUNTERS.stepMs] as number) + ms
    this.#counters.set(this.#collectives.waitMs, COUNTERS.waitMs)
  }

  #shard(s: number): ShardWork {
    return this.#shards[s] as ShardWork
  }

  #unit(u: number) {
    return this.#attention.units[u] as LatentAttentionRunner['units'][number]
  }
}

function shardLayer(shard: ShardWork, layer: number) {
  return shard.layers[layer] as ShardWork['layers'][number]
}

function parts<T>(of: (shard: number) => T): T[] {
  return Array.from({ length: SHARDS }, (_, s) => of(s))
}

function openExchange(
  rank: number,
  init: RankInit,
  layout: import('./model-layout.js').ExchangeLayout,
  space: KernelSpace,
  own: readonly number[],
): Exchange {
  const { shape } = init
  const a = shape.attention
  const queryWidth = a.nopeDim + a.ropeDim
  const pointer = (list: readonly number[], i: number) => {
    const ptr = list[i]
    if (ptr === undefined) throw new RangeError(`no exchange slot ${i}`)
    return ptr
  }
  const attentionStride = a.heads * a.nopeDim
  const attention = parts((s) => {
    const unit = unitOf(shape, s)
    return space.rows(pointer(layout.attention, s), (unit.headEnd - unit.headStart) * a.nopeDim, attentionStride)
  })
  const wholeSegment = space.rows(pointer(layout.segments, rank), attentionStride)
  const segments = own.map((s) => wholeSegment.columns(0, part(a.heads, s) * a.nopeDim))
  const logits = layout.logits.map((ptr) => space.rows(ptr, shape.vocab))
  return {
    space,
    queryA: parts((s) => space.rows(pointer(layout.queryA, s), part(a.queryRank, s))),
    queryB: parts((s) => space.rows(pointer(layout.queryB, s), part(a.heads, s) * queryWidth)),
    attention,
    attentionOut: parts((s) => space.rows(pointer(layout.attentionOut, s), shape.embed)),
    mlp: parts((s) => space.rows(pointer(layout.mlp, s), shape.embed)),
    segments,
    partialSums: own.map((s) => partialSums(shape, s, attention, wholeSegment)),
    reduced: space.rows(pointer(layout.reduced, rank), shape.embed),
    logits,
    logitParts: logits.map((rows) => parts((s) => rows.columns(cut(shape.vocab, s), part(shape.vocab, s)))),
    sampling: pointer(layout.sampling, rank),
  }
}

/** Segment s's heads in runs that the same units serve: each run is one sum, over units in ascending order. */
function partialSums(shape: ModelShape, s: number, attention: readonly Rows[], segment: Rows): PartialSum[] {
  const { heads, nopeDim, units } = shape.attention
  const serving = (head: number) => units.flatMap((unit, i) => (head >= unit.headStart && head < unit.headEnd ? [i] : []))
  const sums: PartialSum[] = []
  const end = cut(heads, s + 1)
  for (let head = cut(heads, s); head < end; ) {
    const by = serving(head)
    let next = head + 1
    while (next < end && serving(next).join() === by.join()) next++
    const width = (next - head) * nopeDim
    sums.push({
      to: segment.columns((head - cut(heads, s)) * nopeDim, width),
      from: by.map((i) => (attention[i] as Rows).columns((head - unitOf(shape, i).headStart) * nopeDim, width)),
      width,
    })
    head = next
  }
  return sums
}
