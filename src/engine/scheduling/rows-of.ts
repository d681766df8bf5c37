// What a sequence's rows are asked for, and what its state allows. Pure functions.
import { ROW_FLAGS } from '../../../workers/mailbox/mailbox-layout.js'
import type { Sequence } from './sequence.js'
import type { StepRow } from './step-rows.js'

export function sampleFlags({ sampling }: Sequence): number {
  return ROW_FLAGS.sample | (sampling?.logprobs === undefined ? 0 : ROW_FLAGS.logprobs)
}

/** The row of a position reports the probability of the token after it; once generation has begun, it has done so already. */
export function wantsPromptLogprobs({ sampling, promptLength, generated }: Sequence, position: number): boolean {
  return sampling?.promptLogprobs !== undefined && generated === 0 && position + 1 < promptLength
}

/** One known token after generation began: after a pause, a restart, or without running ahead, too. */
export function decodes({ tokens, scheduled, generated }: Sequence): boolean {
  return tokens.length - scheduled === 1 && generated > 0
}

export function schedulable(sequence: Sequence): boolean {
  return !sequence.ended && !sequence.paused && !sequence.preempted && sequence.slot >= 0
}

/** Draft rows that each sequence may have in a step: drafts count as prompt rows, `most` together, of which prompts come first. */
export function draftShare(running: readonly Sequence[], most: number): number {
  const schedulables = running.filter(schedulable)
  const prompts = schedulables.filter((s) => !decodes(s)).reduce((sum, s) => sum + s.tokens.length - s.scheduled, 0)
  const drafting = schedulables.filter((s) => s.drafts && decodes(s)).length
  return Math.floor(Math.max(0, most - prompts) / Math.max(1, drafting))
}

/** The last row of a sequence that generates nothing. */
export function endsPrompt({ sequence, position }: StepRow): boolean {
  return sequence.maxTokens === 0 && position === sequence.tokens.length - 1
}
