// Answers of /v1/completions and /v1/chat/completions: choices, as a whole or as chunks that end with [DONE].
import { setImmediate } from 'node:timers/promises'
import type { IndexedChunk } from '../engine/engine.js'
import type { Completion, TokenLogprobs } from '../engine/generation.js'
import type { AnswerWriter } from './answer.js'
import type { HttpError } from './http-error.js'
import { usage } from './openai-format.js'
import type { ServedModel } from './served-model.js'
import { event } from './sse.js'

/** What the two endpoints differ in. */
export interface Format {
  readonly id: string
  readonly object: string
  readonly chunkObject: string
  choice(index: number, completion: Completion): object | Promise<object>
  /** What a whole answer has beside its choices. */
  more?(completions: readonly Completion[]): Promise<object>
  /** Choices of chunks, in their order; first: of the first chunk with this index. */
  delta(index: number, text: string, logprobs: readonly TokenLogprobs[] | undefined, first: boolean): readonly object[]
  /** The last one has the reason of the end. */
  end(index: number, completion: Completion): readonly object[]
}

export interface ChoicesOptions {
  /** Completions of each prompt. */
  readonly choices: number
  /** The stream ends with a chunk of the usage. */
  readonly streamUsage: boolean
}

export class ChoicesWriter implements AnswerWriter {
  readonly #format: Format
  readonly #options: ChoicesOptions
  readonly #head: object
  readonly #seen = new Set<number>()

  constructor(model: ServedModel, format: Format, options: ChoicesOptions) {
    this.#format = format
    this.#options = options
    this.#head = {
      id: format.id,
      created: Math.floor(Date.now() / 1000),
      model: model.id,
      ...(model.fingerprint !== undefined && { system_fingerprint: `fp_${model.fingerprint}` }),
    }
  }

  /** Each choice is written by itself, so that other requests are served in between. */
  async whole(completions: readonly Completion[]): Promise<string> {
    const choices: string[] = []
    for (const [i, completion] of completions.entries()) {
      if (i > 0) await setImmediate()
      choices.push(JSON.stringify(await this.#format.choice(i, completion)))
    }
    const more = await this.#format.more?.(completions)
    const rest = { ...this.#head, object: this.#format.object, usage: usage(completions, this.#options.choices), ...more }
    return `{"choices":[${choices.join(',')}],${JSON.stringify(rest).slice(1)}`
  }

  begin(): string {
    return ''
  }

  chunk({ index, text, logprobs }: IndexedChunk): string {
    const first = !this.#seen.has(index)
    if (text === '' && !logprobs && !first) return ''
    this.#seen.add(index)
    return this.#chunks(this.#format.delta(index, text, logprobs, first))
  }

  end(completions: readonly Completion[]): string {
    const ends = completions.map((completion, i) => {
      const empty = this.#seen.has(i) ? '' : this.#chunks(this.#format.delta(i, '', undefined, true))
      return empty + this.#chunks(this.#format.end(i, completion))
    })
    const { choices, streamUsage } = this.#options
    const used = streamUsage ? event({ ...this.#head, object: this.#format.chunkObject, choices: [], usage: usage(completions, choices) }) : ''
    return `${ends.join('')}${used}data: [DONE]\n\n`
  }

  /** The stream ends without [DONE]. */
  error(error: HttpError): string {
    return event(error.body)
  }

  #chunks(choices: readonly object[]): string {
    // If the usage was asked for, every other chunk has a null one.
    const rest = this.#options.streamUsage ? { usage: null } : {}
    return choices.map((choice) => event({ ...this.#head, object: this.#format.chunkObject, choices: [choice], ...rest })).join('')
  }
}
