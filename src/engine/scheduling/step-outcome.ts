// What the ranks leave for the rows of a completed step, as the scheduler commits it.
import type { RowLogprobs, Sequence } from './sequence.js'

export type LogitsRow = Float32Array | Float64Array

/** Sees each row of logits that a step leaves (tetrad/testing). */
export type LogitsObserver = (sequence: Sequence, position: number, logits: LogitsRow) => void

/** Results by row t of the step. Each is read only for rows whose flags ask for it. */
export interface StepOutcome {
  /** The token sampled from the row, or -1 if its logits were not finite. Of a row with a score: the most likely token, or -1. */
  sampled(t: number): number
  /** Log-probability of the row's target. */
  score(t: number): number
  /** Of the sampled token (of a row that does not sample: the target), and of the k most likely ones; NaN if not finite. */
  logprobs(t: number, k: number): RowLogprobs
  /** Logits [vocab] of the i-th row of those that have flags; valid until the step's place is used again. */
  logits(i: number): LogitsRow
  readonly observe?: LogitsObserver | undefined
}
