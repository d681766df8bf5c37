// One request as the scheduler sees it: tokens known, tokens scheduled, pages held. Knows no ranks and no text.

import type { SamplingParams } from '../../options/generate-params.js'
import type { NgramDrafts } from './ngram-drafts.js'

export type FinishReason = 'length' | 'stop' | 'abort'

/** What a sequence tells its owner. Called by the coordinator, never within another call. */
export interface SequenceSink {
  /** It has got a slot; called again after each preemption. */
  onAdmitted(): void
  onToken(token: number): void
  /** Of a row with logprobs, for the token at `position`: before its onToken, if it was sampled. */
  onLogprobs(position: number, logprobs: RowLogprobs): void
  /** Of a sequence with `score`: log-probability of the token at `position`, and whether it is the most likely one. */
  onScore(position: number, logProbability: number, isGreedy: boolean): void
  /** Logits of one position, [vocab]; the view is reused: copy what is kept. */
  onLogits(position: number, logits: Float32Array | Float64Array): void
  /** `by`: the token id that ended it, if one did. */
  onFinish(reason: FinishReason, by?: number): void
  onError(error: Error): void
}

/** What a row leaves: its token's logarithm of the probability, and the most likely tokens with theirs. */
export interface RowLogprobs {
  readonly logprob: number
  readonly top: readonly { readonly token: number; readonly logprob: number }[]
}

/** What adjusts sampling beside temperature and seed; undefined: nothing. */
export type Adjustments = Pick<
  SamplingParams,
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
  /** Tokens to generate; 0 for a pass that only wants logits. */
  readonly maxTokens: number
  readonly temperature: number
  readonly seed: number
  /** Ids that end the text; they are not emitted. */
  readonly endOfText: ReadonlySet<number>
  /** Ids that may not be sampled below minTokens. Default: endOfText. */
  readonly barred?: ReadonlySet<number>
  readonly everyLogits: boolean
  readonly adjustments?: Adjustments
  /** Others with the same prompt wait for it: its last page is a source of copies once the prompt is computed. */
  readonly sharesPrompt?: boolean
  /** Scores the tokens from position `from` (1 or more) on; `next` is the one after the prompt. maxTokens is 0 then. */
  readonly score?: { readonly from: number; readonly next: number }
  /** Guesses tokens ahead; the output stays the same. */
  readonly drafts?: NgramDrafts | undefined
  /** Places it moves ahead in the queue, times PRIORITY_STEP. */
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
  readonly drafts: NgramDrafts | undefined
  readonly priority: number
  readonly sink: SequenceSink
  readonly adjustments: Adjustments | undefined
  readonly barred: ReadonlySet<number>
  sharesPrompt: boolean
  /** Page numbers in sequence order; owned by the block manager. */
  readonly pages: number[] = []
  /** Of those, full pages that the prefix cache knows: their chain ids, in order. */
  readonly chain: number[] = []
  /** Lower is served first; set by the scheduler. */
  order = 0
  /** Slot of the block table, while running. */
  slot = -1
  /** Positions 0..scheduled-1 have been put into published steps, or came from the prefix cache. */
  scheduled = 0
  /** Positions 0..computed-1 are in the cache for sure: their steps have completed. */
  computed = 0
  /** Published steps that hold rows of this sequence and have not completed. */
  inFlight = 0
  /** Rows in those steps that will sample a token. */
  pendingSamples = 0
  /** Prompt tokens that the first admission found in the prefix cache. */
  cachedTokens = 0
  wasAdmitted = false
  /** Its reader is behind: no new rows until it catches up. */
  paused = false
  /** It gives its pages back as soon as its steps in flight have completed, and is computed again later. */
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
    this.priority = init.priority
    this.sink = init.sink
    this.adjustments = init.adjustments
    this.barred = init.barred ?? init.endOfText
    this.sharesPrompt = init.sharesPrompt ?? false
  }

  /** Leading tokens that may come from the prefix cache: one at least is computed, and all whose results are wanted. */
  get reusable(): number {
    if (this.everyLogits || this.adjustments?.promptLogprobs !== undefined) return 0
    return this.score ? Math.min(this.tokens.length, this.score.from) - 1 : this.tokens.length - 1
  }

  /** What the row of a position is asked for the probability of. */
  target(position: number): number {
    return this.tokens[position + 1] ?? this.score?.next ?? 0
  }

  get generated(): number {
    return this.tokens.length - this.promptLength
  }
}
