// A second, smaller model in the engine, which guesses what the model will say. It has a rank, a cache and a scheduler of its own, and
// knows nothing of the model that it guesses for but token ids.

import type { EngineParts } from '../engine-info.js'
import type { SamplerParams } from '../scheduling/sequence.js'
import { Sequence } from '../scheduling/sequence.js'
import { ModelDrafts } from './model-drafts.js'

/** Default of draftTokens: a step of twelve rows, which float kernels compute by six and those of integers by four. */
export const DRAFT_TOKENS = 11

/** How the request samples: its guesses are drawn with the same random numbers. */
export interface DraftedRequest {
  readonly promptLength: number
  readonly temperature: number
  readonly seed: number
  readonly endOfText: ReadonlySet<number>
  readonly sampling: SamplerParams
  readonly priority: number
}

export class DraftModel {
  readonly parts: EngineParts
  readonly #maxTokens: number
  #told = false
  #closed = false

  /** maxTokens: most draft tokens of a step and request. */
  constructor(parts: EngineParts, maxTokens: number) {
    this.parts = parts
    this.#maxTokens = maxTokens
  }

  /** Its rank failed more often than maxRestarts: requests go on without drafts. */
  get failed(): boolean {
    return this.parts.coordinator.fatal !== undefined
  }

  /** Drafts for a request. `wake`: called when guesses are there that were asked for. */
  draftsFor(request: DraftedRequest, wake: () => void): ModelDrafts {
    return new ModelDrafts({
      maxTokens: this.#maxTokens,
      guess: (tokens, count, done) =>
        this.#guess(request, tokens, count, (guesses) => {
          done(guesses)
          wake()
        }),
    })
  }

  /**
   * Calls `done` once, later, with up to `count` tokens after `tokens`; none if it fails, or `tokens` do not fit its context. What it
   * computed of a sequence before is in its prefix cache. Returns what stops it; then `done` is called at once.
   */
  #guess(request: DraftedRequest, tokens: readonly number[], count: number, done: (guesses: readonly number[]) => void): () => void {
    const { coordinator } = this.parts
    const { promptLength, sampling } = request
    const guesses: number[] = []
    const sequence = new Sequence({
      ...request,
      prompt: tokens.slice(0, promptLength),
      maxTokens: tokens.length - promptLength + count,
      everyLogits: false,
      sampling: { ...sampling, logprobs: undefined, promptLogprobs: undefined },
      sink: {
        onAdmitted: () => {},
        onLogits: () => {},
        onScore: () => {},
        onLogprobs: () => {},
        onToken: (token) => guesses.push(token),
        onFinish: () => done(guesses),
        onError: () => {
          this.#tell()
          done([])
        },
      },
    })
    sequence.tokens.push(...tokens.slice(promptLength))
    if (this.failed || tokens.length >= this.parts.plan.contextTokens) queueMicrotask(() => done([]))
    else coordinator.submit(sequence)
    return () => coordinator.abort(sequence)
  }

  #tell(): void {
    const { fatal } = this.parts.coordinator
    if (!fatal || this.#told || this.#closed) return
    this.#told = true
    process.emitWarning(`the draft model failed, and requests go on without it: ${fatal.what}`, { type: 'TetradWarning', code: 'DRAFT_FAILED' })
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.parts.coordinator.close(0)
  }
}
