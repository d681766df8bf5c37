// What engine.generate returns: one object that can be awaited (the completion) or iterated (chunks), as execa's is.
// Work starts at the call. Awaiting never pauses it; leaving an iteration early aborts it; nothing rejects unheard.
import type { FinishReason } from './sequence.js'

/** A piece of the output as it grows. */
export interface Chunk {
  /** Whole characters only; empty without a tokenizer. */
  readonly text: string
  readonly tokens: readonly number[]
}

export interface Usage {
  readonly promptTokens: number
  readonly completionTokens: number
}

/** Milliseconds, and tokens per second after the first token. */
export interface Timings {
  /** From the call to the first token. */
  readonly ttftMs: number
  /** From the first token to the last. */
  readonly decodeMs: number
  readonly tokensPerSecond: number
}

export interface Completion {
  readonly text: string
  readonly tokens: readonly number[]
  /** 'length': maxTokens or the context; 'stop': end of text, which is not in the tokens; 'abort': the signal. */
  readonly finishReason: FinishReason
  readonly usage: Usage
  readonly timings: Timings
  /** The seed in use, given or drawn. */
  readonly seed: number
}

export class Generation implements PromiseLike<Completion>, AsyncIterable<Chunk> {
  readonly #completion: Promise<Completion>
  readonly #chunks: Chunk[] = []
  readonly #abort: () => void
  #ended = false
  #wake: (() => void) | undefined

  /** `start` begins the work: it pushes chunks, and its promise is the completion. */
  constructor(start: (push: (chunk: Chunk) => void) => Promise<Completion>, abort: () => void) {
    this.#abort = abort
    this.#completion = start((chunk) => {
      this.#chunks.push(chunk)
      this.#wake?.()
    }).finally(() => {
      this.#ended = true
      this.#wake?.()
    })
    // Whoever awaits or iterates hears of a failure; nobody else need.
    this.#completion.catch(() => {})
  }

  // biome-ignore lint/suspicious/noThenProperty: it is meant to be awaited
  then<A = Completion, B = never>(
    onFulfilled?: ((completion: Completion) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.#completion.then(onFulfilled, onRejected)
  }

  catch<B = never>(onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<Completion | B> {
    return this.#completion.catch(onRejected)
  }

  finally(onFinally?: (() => void) | null): Promise<Completion> {
    return this.#completion.finally(onFinally)
  }

  /** All chunks from the first on. Throws what awaiting would throw. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Chunk, void, undefined> {
    try {
      for (let i = 0; ; i++) {
        while (i >= this.#chunks.length && !this.#ended) {
          await new Promise<void>((resolve) => {
            this.#wake = resolve
          })
        }
        const chunk = this.#chunks[i]
        if (!chunk) break
        yield chunk
      }
      await this.#completion
    } finally {
      if (!this.#ended) this.#abort()
    }
  }
}
