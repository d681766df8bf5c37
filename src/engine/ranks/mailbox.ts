// The coordinator's side of the mailbox: sequences to steps, results to outcomes. Decides nothing.
import { COUNTERS, type MailboxSize, ROW_FLAGS, STEP_RING } from '../../../workers/mailbox/mailbox-layout.js'
import { ringOf, StepBuffer, type StepWriter } from '../../../workers/mailbox/step-buffer.js'
import { PHASES, type Phase, STAGES, type Stage } from '../../../workers/protocol.js'
import type { PageCopy } from '../scheduling/prefix-cache.js'
import type { StepRow } from '../scheduling/scheduler.js'
import type { Sequence } from '../scheduling/sequence.js'
import type { LogitsObserver, LogitsRow, StepOutcome } from '../scheduling/step-outcome.js'

/** What a rank has read and where its time went, since it was loaded. */
export interface RankCounters {
  readonly shardedWeightBytes: number
  readonly replicatedWeightBytes: number
  readonly cacheBytes: number
  readonly steps: number
  /** Milliseconds in steps, and of those waiting at each collective. */
  readonly stepMs: number
  readonly waitMs: Readonly<Partial<Record<Stage, number>>>
  /** Milliseconds of computing in each phase of the steps; the rest are norms, sums and copies. Empty on the gpu backend. */
  readonly computeMs: Readonly<Partial<Record<Phase, number>>>
}

/** What a slot of the mailbox holds. */
interface WrittenSlot {
  readonly sequence: Sequence
  /** Tokens of the sequence in the slot's history. */
  tokens: number
}

/** A published row whose mask is still to come. */
interface MaskWanted {
  readonly epoch: number
  readonly position: number
}

export class Mailbox {
  readonly #buffer: StepBuffer
  readonly #writer: StepWriter
  /** By ring index, [stepRows][vocab]. */
  readonly #logits: readonly LogitsRow[]
  readonly #vocab: number
  readonly #written: (WrittenSlot | undefined)[] = []
  /** By ring index. */
  readonly #masksWanted = Array.from({ length: STEP_RING }, () => new Map<Sequence, MaskWanted>())
  #serial = 0

  /** logits: where the ranks leave those of a step, by ring index, [stepRows][vocab]. */
  constructor(buffer: SharedArrayBuffer, size: MailboxSize, logits: readonly LogitsRow[]) {
    this.#buffer = new StepBuffer(buffer, size)
    this.#writer = this.#buffer.writer()
    this.#logits = logits
    this.#vocab = size.vocab
  }

  /** Writes a step and what its slots need; the ranks may read it once its epoch is published. */
  write(epoch: number, rows: readonly StepRow[], copies: readonly PageCopy[]): void {
    const records = rows.map(({ sequence, position, token, flags }) => ({
      slot: sequence.slot,
      position,
      token,
      flags,
      target: sequence.target(position),
      adapter: sequence.adapter === undefined ? 0 : sequence.adapter.place + 1,
    }))
    this.#writer.writeStep(epoch, records, copies)
    this.#writeMasks(epoch, rows)
    for (const sequence of new Set(rows.map((row) => row.sequence))) {
      const written = this.#slotOf(sequence)
      if (isPenalized(sequence)) {
        this.#writer.writeHistory(sequence.slot, written.tokens, sequence.tokens.slice(written.tokens))
        written.tokens = sequence.tokens.length
      }
      this.#writer.writePages(sequence.slot, sequence.pages)
    }
    // Drafts, which are not among the sequence's tokens yet.
    for (const { sequence, position, token } of rows) {
      if (position >= sequence.tokens.length && token >= 0 && isPenalized(sequence)) this.#writer.writeHistory(sequence.slot, position, [token])
    }
  }

  #writeMasks(epoch: number, rows: readonly StepRow[]): void {
    const wanted = this.#masksWanted[ringOf(epoch)] as Map<Sequence, MaskWanted>
    wanted.clear()
    for (const { sequence, position, flags } of rows) {
      const { constraint, slot, tokens } = sequence
      if (!constraint || (flags & ROW_FLAGS.sample) === 0) continue
      const known = constraint.ready && position === tokens.length - 1
      this.#writer.writeMask(epoch, slot, known ? constraint.mask : undefined)
      if (!known) wanted.set(sequence, { epoch, position })
    }
  }

  /** Gives a row that was published without its mask what has come since. False: there is no such row. */
  offerMask(sequence: Sequence): boolean {
    for (const wanted of this.#masksWanted) {
      const row = wanted.get(sequence)
      if (!row || row.position !== sequence.tokens.length - 1 || !sequence.constraint?.ready || sequence.slot < 0) continue
      wanted.delete(sequence)
      this.#writer.offerMask(row.epoch, sequence.slot, sequence.constraint.mask)
      return true
    }
    return false
  }

  /** Writes a sequence's parameters when it is new in its slot. */
  #slotOf(sequence: Sequence): WrittenSlot {
    const { slot, sampling: s, promptLength, seed, endOfText, constraint } = sequence
    const known = this.#written[slot]
    if (known?.sequence === sequence) return known
    const written: WrittenSlot = { sequence, tokens: 0 }
    this.#written[slot] = written
    const minTokens = s?.minTokens ?? 0
    const suppressed = minTokens > 0 ? [...endOfText] : []
    const biases = s?.logitBias ?? []
    const filters = s !== undefined && (s.topK > 0 || s.topP < 1 || s.minP > 0 || s.typicalP < 1)
    const penalized = isPenalized(sequence)
    const params = {
      adjusted: Number(constraint !== undefined || filters || suppressed.length > 0 || penalized || biases.length > 0),
      topK: s?.topK ?? 0,
      topP: s?.topP ?? 1,
      minP: s?.minP ?? 0,
      typicalP: s?.typicalP ?? 1,
      repetitionPenalty: s?.repetitionPenalty ?? 1,
      presencePenalty: s?.presencePenalty ?? 0,
      frequencyPenalty: s?.frequencyPenalty ?? 0,
      suppressBefore: promptLength + minTokens,
      promptLength,
      choice: s?.choice ?? 0,
      logprobs: Math.max(s?.logprobs ?? 0, s?.promptLogprobs ?? 0),
      penalized: Number(penalized),
      constrained: Number(constraint !== undefined),
      // float32, as the kernels take it.
      temperature: Math.fround(sequence.temperature),
      seedLow: seed | 0,
      seedHigh: Math.floor(seed / 4294967296) | 0,
      serial: ++this.#serial,
    }
    this.#writer.writeSlot(slot, params, biases, suppressed)
    return written
  }

  /** The results of a completed step. */
  outcome(epoch: number, observe: LogitsObserver | undefined): StepOutcome {
    // Masks that come now are for rows that will run again.
    this.#masksWanted[ringOf(epoch)]?.clear()
    const writer = this.#writer
    const vocab = this.#vocab
    const logits = this.#logits[ringOf(epoch)] as LogitsRow
    return {
      sampled: (t) => writer.sampled(epoch, t),
      score: (t) => writer.score(epoch, t),
      logprobs: (t, k) => {
        const value = (i: number) => writer.logprob(epoch, t, i)
        return { logprob: value(0), top: Array.from({ length: k }, (_, i) => ({ token: value(1 + 2 * i), logprob: value(2 + 2 * i) })) }
      },
      logits: (i) => logits.subarray(i * vocab, (i + 1) * vocab),
      observe,
    }
  }

  counters(rank: number): RankCounters {
    const c = this.#buffer.counterSlots(rank)
    const waits = STAGES.map((stage, i) => [stage, c.get(COUNTERS.waitMs + i)] as const).filter(([, ms]) => ms > 0)
    const computed = PHASES.map((phase, i) => [phase, c.get(COUNTERS.computeMs + i)] as const).filter(([, ms]) => ms > 0)
    return {
      shardedWeightBytes: c.get(COUNTERS.shardedWeightBytes),
      replicatedWeightBytes: c.get(COUNTERS.replicatedWeightBytes),
      cacheBytes: c.get(COUNTERS.cacheBytes),
      steps: c.get(COUNTERS.steps),
      stepMs: c.get(COUNTERS.stepMs),
      waitMs: Object.fromEntries(waits),
      computeMs: Object.fromEntries(computed),
    }
  }
}

function isPenalized({ sampling: s }: Sequence): boolean {
  return s !== undefined && (s.repetitionPenalty !== 1 || s.presencePenalty !== 0 || s.frequencyPenalty !== 0)
}
