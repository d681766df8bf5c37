// What ranks exchange where the cache is cut along the sequence: before attention the queries and the rows to cache of all shards, after it
// each shard's part of the sums. A rank makes the outputs of its own shards' units out of all four parts, in the order of shards.
import type { Rows } from '../../kernels/rows.js'
import { type Exchange, perShard } from '../collectives/exchange.js'
import { queryWidth } from '../layout/attention-geometry.js'
import { contextWidth, shardHeads, unitsOf } from '../layout/attention-plan.js'
import { ownUnits, partialColumns, preparedColumns } from '../layout/prepared-layout.js'
import type { RankLayout } from '../layout/rank-layout.js'
import type { AttentionShape } from '../protocol.js'
import { copyAll, type Move } from './moves.js'
import type { UnitWork } from './paged-attention.js'

/** The rank's own buffers. */
export interface SequenceRows {
  /** [T, heads * (nope + rope)] */
  readonly queries: Rows
  /** [T, width], indexed as the rank's streams. */
  readonly streams: readonly Rows[]
  /** [T, 2 * rank * lanes of all heads] */
  readonly coefficients: Rows
  readonly coefficientLanes: number
  readonly units: readonly UnitWork[]
}

/** One of a shard's own units, of four parts. */
interface Combination {
  readonly to: Rows
  readonly parts: readonly Rows[]
  readonly toMax: number
  readonly toSum: number
  readonly heads: number
}

export class SequenceExchange {
  readonly #exchange: Exchange
  readonly #own: readonly number[]
  readonly #width: number
  /** By own shard: finished queries and streams of the rank to the shard's slot. */
  readonly #give: readonly Move[]
  /** What other ranks project. */
  readonly #take: readonly Move[]
  /** By own shard: sums over its pages. */
  readonly #partial: readonly (readonly Move[])[]
  readonly #combinations: readonly Combination[]

  constructor(a: AttentionShape, layout: RankLayout, exchange: Exchange, rows: SequenceRows) {
    this.#exchange = exchange
    this.#own = layout.shards
    this.#width = contextWidth(a)
    const pairs = perShard((s) => this.#pairs(a, layout, rows, s))
    this.#give = this.#own.flatMap((s) => (pairs[s] as Pairs).finished.map(({ slot, rank }) => ({ to: slot, from: rank })))
    this.#take = pairs.flatMap(({ finished, projected }, s) => {
      const taken = this.#own.includes(s) ? projected : [...finished, ...projected]
      return taken.map(({ slot, rank }) => ({ to: rank, from: slot }))
    })
    const { units } = partialColumns(a)
    this.#partial = this.#own.map((s) =>
      units.flatMap(({ context, state, lanes }, u): Move[] => {
        const { context: sums, parts } = rows.units[u] as UnitWork
        const slot = exchange.partial[s] as Rows
        return [
          { to: slot.columns(context, sums.width), from: sums },
          { to: slot.columns(state, 2 * lanes), from: parts },
        ]
      }),
    )
    this.#combinations = this.#own.flatMap((s) =>
      ownUnits(a, s).map(({ heads, from, firstHead, to }) => {
        const first = from.context + firstHead * this.#width
        return {
          to: (exchange.combined[s] as Rows).columns(to, heads * this.#width),
          parts: exchange.partial.map((slot) => slot.columns(first, heads * this.#width)),
          toMax: from.state + firstHead - first,
          toSum: from.state + from.lanes + firstHead - first,
          heads,
        }
      }),
    )
  }

  /** Queries and streams that the rank has finished to its shards' slots. */
  give(tokens: number): void {
    copyAll(this.#give, tokens)
  }

  /** What attention needs of other shards, after the gather. */
  take(tokens: number): void {
    copyAll(this.#take, tokens)
  }

  /** The sums over the pages of own shard i to its slot. */
  givePartial(i: number, tokens: number): void {
    copyAll(this.#partial[i] as readonly Move[], tokens)
  }

  /** The outputs of own shards' units, in the slots of combined sums, after the exchange. */
  combine(tokens: number): void {
    for (let i = 0; i < this.#combinations.length; i++) {
      const { to, parts, toMax, toSum, heads } = this.#combinations[i] as Combination
      this.#exchange.kernels.combinePartials(to, parts, toMax, toSum, heads, this.#width, tokens)
    }
  }

  #pairs(a: AttentionShape, layout: RankLayout, { queries, streams, coefficients, coefficientLanes, units }: SequenceRows, s: number): Pairs {
    const slot = this.#exchange.prepared[s] as Rows
    const columns = preparedColumns(a, s)
    const { start, end } = shardHeads(a, s)
    const width = queryWidth(a)
    const { keyWidth } = a.stream
    // Whole queries of neighbouring heads are one run of columns.
    const whole = columns.queryWidth === width
    const runs = columns.queryWidth === 0 ? 0 : whole ? Math.min(1, columns.heads.end - columns.heads.start) : columns.heads.end - columns.heads.start
    const runWidth = whole ? (columns.heads.end - columns.heads.start) * width : columns.queryWidth
    const streamRows = (stream: number) => streams[layout.streams.findIndex((one) => one.stream === stream)] as Rows
    const count = end - start
    return {
      finished: [
        ...Array.from({ length: runs }, (_, h) => ({
          slot: slot.columns(columns.queries + h * runWidth, runWidth),
          rank: queries.columns((columns.heads.start + h) * width + columns.queryStart, runWidth),
        })),
        ...columns.streams.map((stream, i) => ({
          slot: slot.columns(columns.stream + i * a.stream.width, a.stream.width),
          rank: streamRows(stream),
        })),
      ],
      projected: [
        ...unitsOf(a, s).flatMap(({ stream, headStart, headEnd }) => {
          const work = units.find((one) => layout.streams[one.stream]?.stream === stream) as UnitWork
          if (!a.absorbed) return []
          return [
            {
              slot: slot.columns((headStart - start) * keyWidth, (headEnd - headStart) * keyWidth),
              rank: work.queries.columns((headStart - work.headStart) * keyWidth, (headEnd - headStart) * keyWidth),
            },
          ]
        }),
        ...Array.from({ length: a.factors && count > 0 ? 2 * a.factors.rank : 0 }, (_, j) => ({
          slot: slot.columns(columns.coefficients + j * count, count),
          rank: coefficients.columns(j * coefficientLanes + start, count),
        })),
      ],
    }
  }
}

/** Columns of a shard's slot, and where a rank has them: what it finishes itself in its own buffers, and what a shard projects into the slot. */
interface Pairs {
  readonly finished: readonly Pair[]
  readonly projected: readonly Pair[]
}

interface Pair {
  readonly slot: Rows
  readonly rank: Rows
}
