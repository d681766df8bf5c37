// The coordinator's side of the mailbox: writes steps, reads what the ranks left. Knows the layout, decides nothing.
import { COPY, COUNTERS, layoutMailbox, type MailboxLayout, ROW, STEP_HEADER, STEP_RING } from '../../workers/layout.js'
import { SITES, type Site } from '../../workers/protocol.js'
import type { PageCopy, StepRow } from './scheduler.js'
import type { Sequence } from './sequence.js'

/** What a rank has read and where its time went, since it was loaded. */
export interface RankCounters {
  readonly shardedWeightBytes: number
  readonly replicatedWeightBytes: number
  readonly cacheBytes: number
  readonly steps: number
  /** Milliseconds in steps, and of those waiting at each collective. */
  readonly stepMs: number
  readonly waitMs: Readonly<Partial<Record<Site, number>>>
}

export class Mailbox {
  readonly #buffer: SharedArrayBuffer
  readonly #ints: Int32Array
  readonly #floats: Float32Array
  readonly #doubles: Float64Array
  readonly #layout: MailboxLayout
  readonly #stepRows: number
  readonly #pagesPerSlot: number

  constructor(buffer: SharedArrayBuffer, stepRows: number, slots: number, pagesPerSlot: number) {
    this.#buffer = buffer
    this.#ints = new Int32Array(buffer)
    this.#floats = new Float32Array(buffer)
    this.#doubles = new Float64Array(buffer)
    this.#layout = layoutMailbox(stepRows, slots, pagesPerSlot)
    this.#stepRows = stepRows
    this.#pagesPerSlot = pagesPerSlot
  }

  /** Writes a step and the block tables it needs; the ranks may read it once the step epoch says so. */
  write(epoch: number, rows: readonly StepRow[], copies: readonly PageCopy[]): void {
    const base = ringOf(epoch) * this.#layout.stepInts
    this.#ints[base + STEP_HEADER.rows] = rows.length
    this.#ints[base + STEP_HEADER.copies] = copies.length
    for (const [i, { from, to, rows }] of copies.entries()) {
      const at = base + this.#layout.copies + i * COPY.ints
      this.#ints[at + COPY.from] = from
      this.#ints[at + COPY.to] = to
      this.#ints[at + COPY.rows] = rows
    }
    for (const [t, { sequence, position, token, flags }] of rows.entries()) {
      const at = base + STEP_HEADER.ints + t * ROW.ints
      this.#ints[at + ROW.slot] = sequence.slot
      this.#ints[at + ROW.position] = position
      this.#ints[at + ROW.token] = token
      this.#ints[at + ROW.flags] = flags
      this.#ints[at + ROW.target] = sequence.target(position)
      this.#floats[at + ROW.temperature] = sequence.temperature
      this.#ints[at + ROW.seedLow] = sequence.seed >>> 0
      this.#ints[at + ROW.seedHigh] = Math.floor(sequence.seed / 4294967296)
    }
    // A step in flight reads only earlier entries of a block table, which stay as they are.
    for (const { pages, slot } of sequencesOf(rows)) this.#ints.set(pages, this.#layout.blockTables + slot * this.#pagesPerSlot)
  }

  /** Token sampled from row t of a completed step; -1 if its logits were not finite. */
  sampled(epoch: number, t: number): number {
    return this.#ints[this.#layout.sampled + ringOf(epoch) * this.#stepRows + t] as number
  }

  /** Log-probability that row t of a completed step was asked for; NaN if its logits were not finite. */
  score(epoch: number, t: number): number {
    return this.#doubles[this.#layout.scores + ringOf(epoch) * this.#stepRows + t] as number
  }

  counters(rank: number): RankCounters {
    const c = new Float64Array(this.#buffer, this.#layout.counters + rank * COUNTERS.values * 8, COUNTERS.values)
    const waits = SITES.map((site, i) => [site, c[COUNTERS.waitMs + i] as number] as const).filter(([, ms]) => ms > 0)
    return {
      shardedWeightBytes: c[COUNTERS.shardedWeightBytes] as number,
      replicatedWeightBytes: c[COUNTERS.replicatedWeightBytes] as number,
      cacheBytes: c[COUNTERS.cacheBytes] as number,
      steps: c[COUNTERS.steps] as number,
      stepMs: c[COUNTERS.stepMs] as number,
      waitMs: Object.fromEntries(waits),
    }
  }
}

/** Which of the two step slots an epoch uses. */
export function ringOf(epoch: number): number {
  return epoch & (STEP_RING - 1)
}

export function sequencesOf(rows: readonly StepRow[]): Set<Sequence> {
  return new Set(rows.map((row) => row.sequence))
}
