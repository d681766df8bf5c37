// What a completed step gave: tokens, scores, logprobs and logits to their sequences' sinks. Publishes nothing and knows no ranks.
import { ROW_FLAGS } from '../../../workers/mailbox/mailbox-layout.js'
import { RequestError, type TetradError } from '../../errors.js'
import type { PageCopy, Scheduler, StepRow } from '../scheduling/scheduler.js'
import type { FinishReason, Sequence } from '../scheduling/sequence.js'
import { type Mailbox, ringOf, sequencesOf } from './mailbox.js'
import type { Statistics } from './statistics.js'

export interface PublishedStep {
  readonly epoch: number
  readonly rows: readonly StepRow[]
  readonly copies: readonly PageCopy[]
}

export type LogitsObserver = (sequence: Sequence, position: number, logits: Float32Array | Float64Array) => void

/** How a sequence ends. */
interface Ends {
  finish(sequence: Sequence, reason: FinishReason, by?: number): void
  reject(sequence: Sequence, error: TetradError): void
}

export class StepOutcomes {
  readonly #mailbox: Mailbox
  /** By ring index, [stepRows][vocab]. */
  readonly #logits: readonly (Float32Array | Float64Array)[]
  readonly #vocab: number
  readonly #scheduler: Scheduler
  readonly #statistics: Statistics
  readonly #ends: Ends
  observer: LogitsObserver | undefined

  constructor(
    mailbox: Mailbox,
    logits: readonly (Float32Array | Float64Array)[],
    vocab: number,
    scheduler: Scheduler,
    statistics: Statistics,
    ends: Ends,
  ) {
    this.#mailbox = mailbox
    this.#logits = logits
    this.#vocab = vocab
    this.#scheduler = scheduler
    this.#statistics = statistics
    this.#ends = ends
  }

  /** Of a step that all ranks have ended. */
  take(step: PublishedStep): void {
    const vocab = this.#vocab
    const logits = this.#logits[ringOf(step.epoch)] as Float32Array | Float64Array
    let at = 0
    /** Whose row sampled last: a sequence's second one in a step is of a draft that was right. */
    let previous: Sequence | undefined
    for (const [t, stepRow] of step.rows.entries()) {
      const { sequence, position, flags } = stepRow
      const counts = !sequence.ended && this.#scheduler.computed(stepRow)
      if (flags === 0) continue
      const row = logits.subarray(at * vocab, (at + 1) * vocab)
      at++
      if (!counts) {
        if (!sequence.ended) sequence.pendingSamples--
        continue
      }
      try {
        this.observer?.(sequence, position, row)
        if ((flags & ROW_FLAGS.logits) !== 0) sequence.sink.onLogits(position, row)
        if ((flags & ROW_FLAGS.score) !== 0) this.#takeScore(sequence, position, step.epoch, t)
        if ((flags & ROW_FLAGS.logprobs) !== 0) this.#takeLogprobs(sequence, position, step.epoch, t, flags)
        if (sequence.ended) continue
        if ((flags & ROW_FLAGS.sample) !== 0) {
          const ofDraft = previous === sequence
          previous = sequence
          sequence.pendingSamples--
          if (ofDraft && sequence.drafts) sequence.drafts.accepted++
          this.#takeToken(sequence, this.#mailbox.sampled(step.epoch, t))
        } else if (sequence.maxTokens === 0 && position === sequence.tokens.length - 1) {
          this.#ends.finish(sequence, 'length')
        }
      } catch (error) {
        // What a sink throws is its own request's failure, never the loop's.
        this.#scheduler.end(sequence)
        sequence.sink.onError(error instanceof Error ? error : new Error(String(error)))
      }
    }
    for (const sequence of sequencesOf(step.rows)) this.#scheduler.completed(sequence)
  }

  #takeScore(sequence: Sequence, position: number, epoch: number, t: number): void {
    const token = this.#mailbox.sampled(epoch, t)
    if (token < 0) return this.#ends.reject(sequence, nonFinite(position + 1))
    sequence.sink.onScore(position + 1, this.#mailbox.score(epoch, t), token === sequence.target(position))
  }

  #takeLogprobs(sequence: Sequence, position: number, epoch: number, t: number, flags: number): void {
    const { logprobs = 0, promptLogprobs = 0 } = sequence.adjustments ?? {}
    const left = this.#mailbox.logprobs(epoch, t, (flags & ROW_FLAGS.sample) !== 0 ? logprobs : promptLogprobs)
    if (Number.isNaN(left.logprob)) return this.#ends.reject(sequence, nonFinite(position + 1))
    sequence.sink.onLogprobs(position + 1, left)
  }

  #takeToken(sequence: Sequence, token: number): void {
    if (token < 0) return this.#ends.reject(sequence, nonFinite(sequence.tokens.length))
    if (sequence.endOfText.has(token)) return this.#ends.finish(sequence, 'stop', token)
    sequence.tokens.push(token)
    this.#statistics.token(performance.now())
    sequence.sink.onToken(token)
    const reason = this.#scheduler.finishReason(sequence)
    if (reason) this.#ends.finish(sequence, reason)
  }
}

function nonFinite(position: number): RequestError {
  return new RequestError('NON_FINITE_LOGITS', {
    what: `the logits for position ${position} are not finite`,
    expected: 'finite logits',
    actual: 'NaN or infinity',
    remedy: 'Use another checkpoint, or f32 weights and cache.',
  })
}
