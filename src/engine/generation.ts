// What engine.generate returns: one object that can be awaited (the completion) or iterated (chunks), as execa's is.
// Work starts at the call. Awaiting never pauses it; leaving an iteration early aborts it; nothing rejects unheard.
import type { FinishReason } from './scheduling/sequence.js'

/** A piece of the output as it grows. */
export interface Chunk {
  /** Whole characters only; empty without a tokenizer. */
  readonly text: string
  readonly tokens: readonly number[]
  /** With `logprobs`: of these tokens. */
  readonly logprobs?: readonly TokenLogprobs[]
}

/** How likely a token was, by the model's own distribution: natural logarithms. */
export interface TokenLogprobs {
  readonly token: number
  readonly logprob: number
  /** The most likely tokens, in descending order. */
  readonly top: readonly { readonly token: number; readonly logprob: number }[]
  /** Of a text under a schema or grammar: how many tokens might have come here. */
  readonly allowed?: number
}

/** Tokens of a request. */
export interface Usage {
  readonly promptTokens: number
  readonly completionTokens: number
  /** Prompt tokens that were found in the prefix cache and not computed again. */
  readonly cachedTokens: number
  /** With `speculate`, or a draft model: tokens that were guessed, and those of them that were right. */
  readonly draftedTokens?: number
  readonly acceptedTokens?: number
}

/** Milliseconds, and tokens per second after the first token. */
export interface Timings {
  /** From the call to the first token. */
  readonly ttftMs: number
  /** From the first token to the last. */
  readonly decodeMs: number
  readonly tokensPerSecond: number
}

/** What was generated for a prompt. */
export interface Completion {
  readonly text: string
  readonly tokens: readonly number[]
  /** 'length': maxTokens or the context; 'stop': the end of the text, a stop id (neither is in the tokens) or a stop string (not in the text); 'abort': the signal. */
  readonly finishReason: FinishReason
  /** What stopped it: a stop string, or a token id. */
  readonly stoppedBy?: string | number
  /** With `logprobs`: of `tokens`. */
  readonly logprobs?: readonly TokenLogprobs[]
  /** With `promptLogprobs`: ids of the prompt as it was computed, the id that begins a document included. */
  readonly promptTokens?: readonly number[]
  /** With `promptLogprobs`: of the prompt's tokens; the first, which follows nothing, has null. */
  readonly promptLogprobs?: readonly (TokenLogprobs | null)[]
  readonly usage: Usage
  readonly timings: Timings
  /** The seed in use, given or drawn. */
  readonly seed: number
}

/** Unread chunks at which a request that is iterated is paused, and at which it goes on. */
const MOST_UNREAD = 64
const FEW_UNREAD = 16

/** What a generation may ask of the request behind it. */
export interface GenerationControl {
  abort(): void
  pause(paused: boolean): void
}

/**
 * A generation under way: await it for the completion, or iterate it (`for await`) for chunks. An async function that returns one
 * awaits it on the way, so return it inside an object where the chunks are wanted.
 * T is Completion, or Completion[] of generateMany; C is Chunk, with its `index` for generateMany.
 */
export class Generation<T = Completion, C = Chunk> implements PromiseLike<T>, AsyncIterable<C> {
  readonly #completion: Promise<T>
  readonly #chunks: C[] = []
  readonly #control: GenerationControl
  #read = 0
  #iterating = false
  #awaited = false
  #paused = false
  #ended = false
  #wake: (() => void) | undefined

  /** @internal `start` begins the work: it pushes chunks, and its promise is the completion. */
  constructor(start: (push: (chunk: C) => void) => Promise<T>, control: GenerationControl) {
    this.#control = control
    this.#completion = start((chunk) => {
      this.#chunks.push(chunk)
      this.#balance()
      this.#wake?.()
    }).finally(() => {
      this.#ended = true
      this.#wake?.()
    })
    // Whoever awaits or iterates hears of a failure; nobody else need.
    this.#completion.catch(() => {})
  }

  // biome-ignore lint/suspicious/noThenProperty: it is meant to be awaited
  then<A = T, B = never>(
    onFulfilled?: ((completion: T) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#awaited = true
    this.#balance()
    return this.#completion.then(onFulfilled, onRejected)
  }

  catch<B = never>(onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<T | B> {
    return this.then(undefined, onRejected)
  }

  finally(onFinally?: (() => void) | null): Promise<T> {
    return this.#completion.finally(onFinally)
  }

  /** All chunks from the first on; one reader. A slow one pauses this request only. Throws what awaiting would throw. */
  async *[Symbol.asyncIterator](): AsyncGenerator<C, void, undefined> {
    this.#iterating = true
    this.#balance()
    try {
      for (;;) {
        while (this.#read >= this.#chunks.length && !this.#ended) {
          await new Promise<void>((resolve) => {
            this.#wake = resolve
          })
        }
        if (this.#read >= this.#chunks.length) break
        const chunk = this.#chunks[this.#read++] as C
        // What was read is let go, now and then.
        if (this.#read >= MOST_UNREAD) this.#chunks.splice(0, this.#read)
        if (this.#read >= MOST_UNREAD) this.#read = 0
        this.#balance()
        yield chunk
      }
      await this.#completion
    } finally {
      if (!this.#ended) this.#control.abort()
    }
  }

  /** Pauses the request while its reader is behind; never once somebody awaits the whole. */
  #balance(): void {
    const unread = this.#chunks.length - this.#read
    const paused = this.#iterating && !this.#awaited && (this.#paused ? unread > FEW_UNREAD : unread >= MOST_UNREAD)
    if (paused === this.#paused) return
    this.#paused = paused
    this.#control.pause(paused)
  }
}
