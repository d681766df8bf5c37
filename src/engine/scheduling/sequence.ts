// One request as the scheduler sees it: known tokens, scheduled tokens, pages. Knows no ranks and no text.

import type { ResolvedGenerateParams } from '../../options/generate-params.js'
import type { Drafts } from './drafts.js'
import type { OutputConstraint } from './output-constraint.js'

/** Why a completion ended: see Completion.finishReason. */
export type FinishReason = 'length' | 'stop' | 'abort'

/**
 * What a sequence tells its owner, within Scheduler.next (onAdmitted) and Scheduler.commit, or when it is ended. The owner may end the
 * sequence in any of these calls, so onFinish or onError can come within another call of the sink. They come once, and last.
 */
export interface SequenceSink {
  /** It was given a slot; called again after each preemption. */
  onAdmitted(): void
  onToken(token: number): void
  /** With logprobs: those of the token at `position`; before its onToken, if it was sampled. */
  onLogprobs(position: number, logprobs: RowLogprobs): void
  /** With `score`: log-probability of the token at `position`, and whether it is the most likely one. */
  onScore(position: number, logProbability: number, isGreedy: boolean): void
  /** Logits of one position, [vocab]. The view is reused: copy what you keep. */
  onLogits(position: number, logits: Float32Array | Float64Array): void
  /** `by`: the token id that ended it, if one did. */
  onFinish(reason: FinishReason, by?: number): void
  onError(error: Error): void
}

/** Log-probabilities of a row's token and of the most likely tokens. */
export interface RowLogprobs {
  readonly logprob: number
  readonly top: readonly { readonly token: number; readonly logprob: number }[]
}

/** An adapter as rows name it. */
export interface SequenceAdapter {
  /** Its place in the adapters' memory, from 0 on. */
  readonly place: number
  /** From 1 on; no other adapter of the engine has had it. */
  readonly serial: number
}

/** Sampling parameters beside temperature and seed. */
export type SamplerParams = Pick<
  ResolvedGenerateParams,
  | 'minTokens'
  | 'topK'
  | 'topP'
  | 'minP'
  | 'typicalP'
  | 'repetitionPenalty'
  | 'presencePenalty'
  | 'frequencyPenalty'
  | 'logitBias'
  | 'logprobs'
  | 'promptLogprobs'
> & { readonly choice: number }

export interface SequenceInit {
  readonly prompt: readonly number[]
  /** Tokens to generate; 0: only the prompt is computed. */
  readonly maxTokens: number
  readonly temperature: number
  readonly seed: number
  /** Ids that end the text; they are not emitted. */
  readonly endOfText: ReadonlySet<number>
  readonly everyLogits: boolean
  /** Default: none of them is in use. */
  readonly sampling?: SamplerParams
  /** Other sequences with the same prompt wait for it: its last page is cached as soon as the prompt is computed. */
  readonly sharesPrompt?: boolean
  /** Scores the tokens from position `from` (1 or more) on; `next` is the one after the prompt. maxTokens is 0 then. */
  readonly score?: { readonly from: number; readonly next: number }
  /** Proposes draft tokens; the output stays the same. */
  readonly drafts?: Drafts | undefined
  /** What the output must match. Not with drafts. */
  readonly constraint?: OutputConstraint | undefined
  /** Default: the model alone. */
  readonly adapter?: SequenceAdapter | undefined
  /** Units of PRIORITY_STEP places that it moves ahead in the queue. */
  readonly priority: number
  readonly sink: SequenceSink
}

export class Sequence {
  /** Prompt, then what was generated. */
  readonly tokens: number[]
  readonly promptLength: number
  readonly maxTokens: number
  readonly temperature: number
  readonly seed: number
  readonly endOfText: ReadonlySet<number>
  readonly everyLogits: boolean
  readonly score: { readonly from: number; readonly next: number } | undefined
  readonly drafts: Drafts | undefined
  readonly constraint: OutputConstraint | undefined
  readonly adapter: SequenceAdapter | undefined
  readonly priority: number
  readonly sink: SequenceSink
  readonly sampling: SamplerParams | undefined
  sharesPrompt: boolean
  /** Page numbers in sequence order. */
  readonly pages: number[] = []
  /** Chain ids of those that are full and in the prefix cache, in order. */
  readonly chain: number[] = []
  /** Lower is served first; set by the scheduler. */
  order = 0
  /** Slot of the block table, while running. */
  slot = -1
  /** Positions 0..scheduled-1 have been put into published steps, or came from the prefix cache. */
  scheduled = 0
  /** Positions 0..computed-1 are in the cache: their steps have completed. */
  computed = 0
  /** Published steps that hold rows of this sequence and have not completed. */
  inFlight = 0
  /** Rows in those steps that will sample a token. */
  pendingSamples = 0
  /** Prompt tokens that the first admission found in the prefix cache. */
  cachedTokens = 0
  wasAdmitted = false
  /** A row's mask came too late: its last known row is run again, once nothing is in flight and the mask is there. */
  missedMask = false
  /** Its reader is slow: no new rows until it catches up. */
  paused = false
  /** Its pages are released when its steps in flight have completed, and it is computed again later. */
  preempted = false
  /** Set once; no more rows are scheduled, and results of steps in flight are dropped. */
  ended = false

  constructor(init: SequenceInit) {
    this.tokens = [...init.prompt]
    this.promptLength = init.prompt.length
    this.maxTokens = init.maxTokens
    this.temperature = init.temperature
    this.seed = init.seed
    this.endOfText = init.endOfText
    this.everyLogits = init.everyLogits
    this.score = init.score
    this.drafts = init.drafts
    this.constraint = init.constraint
    this.adapter = init.adapter
    this.priority = init.priority
    this.sink = init.sink
    this.sampling = init.sampling
    this.sharesPrompt = init.sharesPrompt ?? false
  }

  /** How many leading tokens may come from the prefix cache: at least one is computed, and all whose results are wanted. */
  get reusable(): number {
    if (this.everyLogits || this.sampling?.promptLogprobs !== undefined) return 0
    return this.score ? Math.min(this.tokens.length, this.score.from) - 1 : this.tokens.length - 1
  }

  /** Token whose log-probability the row at this position reports. */
  target(position: number): number {
    return this.tokens[position + 1] ?? this.score?.next ?? 0
  }

  /** The chain before its first page: rows of one adapter are not those of another. */
  get root(): number {
    return this.adapter ? -this.adapter.serial : 0
  }

  get generated(): number {
    return this.tokens.length - this.promptLength
  }
}
