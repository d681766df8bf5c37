// One request from prompt ids to completion: its sequence, text, timers and statistics. Knows the coordinator, not the ranks.
import type { GrammarPool, GrammarSession } from '../constraints/grammar-pool.js'
import { RequestError } from '../errors.js'
import { constraintOf, type ResolvedGenerateParams } from '../options/generate-params.js'
import { Detokenizer } from '../tokenizer/detokenizer.js'
import type { Tokenizer } from '../tokenizer/tokenizer-interface.js'
import type { DraftModel } from './draft/draft-model.js'
import type { Chunk, Completion, TokenLogprobs } from './generation.js'
import { onAbort } from './on-abort.js'
import type { Coordinator } from './ranks/coordinator.js'
import type { Statistics } from './ranks/statistics.js'
import type { Drafts } from './scheduling/drafts.js'
import { NgramDrafts } from './scheduling/ngram-drafts.js'
import { type FinishReason, type RowLogprobs, type SamplerParams, Sequence, type SequenceAdapter } from './scheduling/sequence.js'
import { StopStrings } from './stop-strings.js'

export interface RequestContext {
  readonly coordinator: Coordinator
  readonly statistics: Statistics
  readonly tokenizer: Tokenizer | undefined
  readonly adapter: SequenceAdapter | undefined
  readonly endOfText: ReadonlySet<number>
  readonly grammars: () => GrammarPool
  /** How a special token is written; undefined for others. */
  readonly specialText: (id: number) => string | undefined
  readonly draft: DraftModel | undefined
}

export class Request {
  readonly #context: RequestContext
  readonly #params: ResolvedGenerateParams
  readonly #push: (chunk: Chunk) => void
  readonly #start = performance.now()
  readonly #detokenizer: Detokenizer
  readonly #sequence: Sequence
  readonly #drafts: Drafts | undefined
  readonly #grammar: GrammarSession | undefined
  readonly #stops: StopStrings
  readonly #logprobs: TokenLogprobs[] = []
  readonly #promptLogprobs: (TokenLogprobs | null)[] = [null]
  #heldLogprobs: TokenLogprobs[] = []
  #pending: RowLogprobs | undefined
  #stoppedBy: string | undefined
  /** Called once: at the first token, or at the end if there is none. */
  #onBegun: () => void
  readonly #timers: NodeJS.Timeout[] = []
  readonly #tokens: number[] = []
  #held: number[] = []
  #text = ''
  #firstAt = 0
  #lastAt = 0
  #settle: { resolve: (completion: Completion) => void; reject: (error: Error) => void } | undefined
  readonly completion: Promise<Completion>

  /** choice: which of n completions of the prompt. onBegun: others that share the prompt may start. */
  constructor(
    context: RequestContext,
    prompt: readonly number[],
    params: ResolvedGenerateParams,
    push: (chunk: Chunk) => void,
    choice = 0,
    onBegun: () => void = () => {},
  ) {
    this.#context = context
    this.#params = params
    this.#push = push
    this.#onBegun = onBegun
    this.#stops = new StopStrings(params.stop)
    this.#detokenizer = new Detokenizer(context.tokenizer, prompt, params.skipSpecialTokens === false ? context.specialText : undefined)
    const source = params.maxTokens === 0 ? undefined : constraintOf(params)
    this.#grammar = source && context.grammars().session(source)
    const endOfText = new Set([...(params.ignoreEos ? [] : context.endOfText), ...params.stopTokenIds])
    const sampling = { ...params, choice }
    // Each token of a constrained text waits for its mask: drafts would gain nothing.
    this.#drafts = params.maxTokens === 0 || source ? undefined : this.#makeDrafts(prompt.length, endOfText, sampling)
    this.completion = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject }
    })
    this.#sequence = new Sequence({
      prompt,
      maxTokens: params.maxTokens,
      temperature: params.temperature,
      seed: params.seed,
      endOfText,
      everyLogits: false,
      sampling,
      sharesPrompt: params.n > 1,
      drafts: this.#drafts,
      constraint: this.#grammar,
      adapter: context.adapter,
      priority: params.priority,
      sink: {
        onAdmitted: () => this.#cancelQueueTimer(),
        onLogits: () => {},
        onScore: () => {},
        onLogprobs: (position, logprobs) => this.#takeLogprobs(position, logprobs),
        onToken: (token) => this.#take(token),
        onFinish: (reason, by) => this.#finish(reason, by),
        onError: (error) => this.#fail(error),
      },
    })
  }

  #makeDrafts(promptLength: number, endOfText: ReadonlySet<number>, sampling: SamplerParams): Drafts | undefined {
    const { speculate, temperature, seed, priority } = this.#params
    if (speculate) return new NgramDrafts(speculate)
    const { draft, coordinator } = this.#context
    return draft?.draftsFor({ promptLength, temperature, seed, endOfText, sampling, priority }, () => coordinator.wake())
  }

  /** Submits it, or ends it at once if its signal has aborted. Does nothing if it has ended already. */
  start(): void {
    if (this.#submitted || this.#sequence.ended) return
    const { signal, timeoutMs, queueTimeoutMs } = this.#params
    if (signal?.aborted) {
      this.abort()
      return
    }
    this.#submitted = true
    this.#stopListening = onAbort(signal, this.abort)
    if (queueTimeoutMs !== undefined) this.#queueTimer = this.#timer(queueTimeoutMs, `it waited in the queue longer than ${queueTimeoutMs} ms`)
    if (timeoutMs !== undefined) this.#timer(timeoutMs, `it took longer than ${timeoutMs} ms`)
    const { coordinator } = this.#context
    this.#grammar?.start({
      onMask: () => coordinator.maskReady(this.#sequence),
      onComplete: () => coordinator.stop(this.#sequence),
      onError: (error) => coordinator.reject(this.#sequence, error),
    })
    coordinator.submit(this.#sequence)
  }

  abort = (): void => {
    if (this.#submitted) this.#context.coordinator.abort(this.#sequence)
    else if (!this.#sequence.ended) {
      this.#sequence.ended = true
      this.#finish('abort')
    }
  }

  /** Ends it with an error if it was not started. */
  cancel(error: Error): void {
    if (this.#submitted || this.#sequence.ended) return
    this.#sequence.ended = true
    this.#fail(error)
  }

  pause(paused: boolean): void {
    this.#sequence.paused = paused
    if (!paused && !this.#sequence.ended) this.#context.coordinator.wake()
  }

  #queueTimer: NodeJS.Timeout | undefined
  #stopListening = () => {}
  #submitted = false

  /** `ms` count from the call, which may have waited for places. */
  #timer(ms: number, what: string): NodeJS.Timeout {
    const timer = setTimeout(
      () => {
        const error = new RequestError('TIMEOUT', {
          what: `the request was ended: ${what}`,
          actual: `${this.#tokens.length} tokens generated`,
          remedy: 'Raise the timeout, ask for fewer tokens, or send fewer requests at once.',
        })
        this.#context.coordinator.reject(this.#sequence, error)
      },
      Math.max(0, ms - (performance.now() - this.#start)),
    )
    this.#timers.push(timer)
    return timer
  }

  #cancelQueueTimer(): void {
    clearTimeout(this.#queueTimer)
  }

  #take(token: number): void {
    const now = performance.now()
    const { statistics, tokenizer } = this.#context
    if (this.#tokens.length === 0) {
      this.#firstAt = now
      statistics.ttft.add(now - this.#start)
    } else statistics.timePerToken.add(now - this.#lastAt)
    this.#lastAt = now
    this.#tokens.push(token)
    this.#held.push(token)
    if (this.#pending) this.#heldLogprobs.push({ token, ...this.#pending, ...(this.#grammar && { allowed: this.#grammar.chosenFrom }) })
    this.#pending = undefined
    this.#begin()
    const piece = this.#detokenizer.push(token)
    if (!tokenizer) {
      this.#emit('')
      return
    }
    if (piece === '') return
    // Before minTokens nothing stops it, so nothing is held back either.
    const { text, stop } = this.#tokens.length <= this.#params.minTokens ? { text: piece, stop: undefined } : this.#stops.push(piece)
    if (text !== '' || stop !== undefined) this.#emit(text)
    if (stop === undefined) return
    this.#stoppedBy = stop
    this.#context.coordinator.stop(this.#sequence)
  }

  #takeLogprobs(position: number, logprobs: RowLogprobs): void {
    const { promptLength, tokens } = this.#sequence
    if (position >= promptLength) this.#pending = logprobs
    else this.#promptLogprobs[position] = { token: tokens[position] as number, ...logprobs }
  }

  #begin(): void {
    const begun = this.#onBegun
    this.#onBegun = () => {}
    begun()
  }

  #emit(text: string): void {
    this.#text += text
    const logprobs = this.#heldLogprobs
    this.#push({ text, tokens: this.#held, ...(this.#params.logprobs !== undefined && { logprobs }) })
    this.#logprobs.push(...logprobs)
    this.#heldLogprobs = []
    this.#held = []
  }

  #finish(finishReason: FinishReason, by?: number): void {
    this.#release()
    const stopped = this.#stoppedBy !== undefined
    const last = stopped ? '' : this.#detokenizer.flush()
    const found = stopped ? { text: '', stop: undefined } : this.#stops.push(last)
    // What comes after a stop string in the last piece is not shown, nor is what was held back before one.
    const rest = found.stop === undefined && !stopped ? found.text + this.#stops.flush() : found.text
    this.#stoppedBy ??= found.stop
    const stoppedBy = this.#stoppedBy ?? by
    if (rest !== '' || this.#held.length > 0) this.#emit(rest)
    const { statistics } = this.#context
    const count = this.#tokens.length
    const { promptLength, cachedTokens } = this.#sequence
    statistics.finished++
    statistics.promptTokens += promptLength
    statistics.cachedTokens += cachedTokens
    statistics.requestTime.add(performance.now() - this.#start)
    const decodeMs = this.#lastAt - this.#firstAt
    this.#settle?.resolve({
      text: this.#text,
      tokens: this.#tokens,
      finishReason: this.#stoppedBy === undefined ? finishReason : 'stop',
      ...(stoppedBy !== undefined && { stoppedBy }),
      ...(this.#params.logprobs !== undefined && { logprobs: this.#logprobs }),
      ...(this.#params.promptLogprobs !== undefined && {
        promptTokens: this.#sequence.tokens.slice(0, promptLength),
        promptLogprobs: this.#promptLogprobs,
      }),
      usage: {
        promptTokens: promptLength,
        completionTokens: count,
        cachedTokens,
        ...(this.#drafts && { draftedTokens: this.#drafts.drafted, acceptedTokens: this.#drafts.accepted }),
      },
      timings: {
        ttftMs: count > 0 ? this.#firstAt - this.#start : 0,
        decodeMs,
        tokensPerSecond: count > 1 && decodeMs > 0 ? ((count - 1) / decodeMs) * 1000 : 0,
      },
      seed: this.#params.seed,
    })
  }

  #fail(error: Error): void {
    this.#release()
    this.#settle?.reject(error)
  }

  #release(): void {
    this.#grammar?.close()
    if (this.#drafts) {
      const { statistics } = this.#context
      statistics.draftedTokens += this.#drafts.drafted
      statistics.acceptedTokens += this.#drafts.accepted
      this.#drafts.close()
    }
    for (const timer of this.#timers) clearTimeout(timer)
    this.#stopListening()
    this.#begin()
  }
}
