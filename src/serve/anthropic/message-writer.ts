// Answers of Anthropic's /v1/messages, made of what a chat completion says: whole, or as their events in order.
import { randomUUID } from 'node:crypto'
import type { IndexedChunk } from '../../engine/engine.js'
import type { Completion } from '../../engine/generation.js'
import type { AnswerWriter } from '../answer.js'
import type { ChatChoice, ChatDelta, ChatToolCall } from '../chat-parts.js'
import type { Format } from '../choices-writer.js'
import type { HttpError } from '../http-error.js'
import { namedEvent } from '../sse.js'

const STOP_REASONS: Readonly<Record<string, string>> = { length: 'max_tokens', tool_calls: 'tool_use' }

export class MessageWriter implements AnswerWriter {
  readonly #format: Format
  readonly #model: string
  readonly #stops: readonly string[]
  readonly #promptTokens: number
  readonly #id = `msg_${randomUUID().replaceAll('-', '')}`
  /** Index and type of the block that is being written. */
  #index = -1
  #open: 'text' | 'tool_use' | undefined

  /** stops: the request's stop_sequences. promptTokens: for the beginning of a stream. */
  constructor(format: Format, options: { readonly model: string; readonly stops: readonly string[]; readonly promptTokens: number }) {
    this.#format = format
    this.#model = options.model
    this.#stops = options.stops
    this.#promptTokens = options.promptTokens
  }

  async whole([completion]: readonly [Completion]): Promise<string> {
    const { message, finish_reason: reason } = (await this.#format.choice(0, completion)) as ChatChoice
    const calls = message.tool_calls ?? []
    const text = (message.content ?? '') !== '' || calls.length === 0 ? [{ type: 'text', text: message.content ?? '' }] : []
    return JSON.stringify(
      this.#message([...text, ...calls.map((call) => ({ ...toolUse(call), input: inputOf(call) }))], {
        ...this.#ended(reason, completion),
        usage: usageOf(completion),
      }),
    )
  }

  begin(): string {
    const usage = { input_tokens: this.#promptTokens, output_tokens: 0, cache_creation_input_tokens: 0, cache_read_input_tokens: 0 }
    return this.#event('message_start', { message: this.#message([], { stop_reason: null, stop_sequence: null, usage }) })
  }

  chunk({ text, logprobs }: IndexedChunk): string {
    return this.#deltas(this.#format.delta(0, text, logprobs, false))
  }

  end([completion]: readonly [Completion]): string {
    const ends = this.#format.end(0, completion) as readonly ChatDelta[]
    const rest = this.#deltas(ends)
    const empty = this.#index < 0 ? this.#begin('text', { type: 'text', text: '' }) : ''
    const stopped = this.#stop()
    const delta = this.#ended(ends.at(-1)?.finish_reason ?? 'stop', completion)
    return `${rest}${empty}${stopped}${this.#event('message_delta', { delta, usage: usageOf(completion) })}${this.#event('message_stop', {})}`
  }

  error(error: HttpError): string {
    return namedEvent('error', anthropicError(error))
  }

  #deltas(deltas: readonly object[]): string {
    return (deltas as readonly ChatDelta[]).map((delta) => this.#delta(delta)).join('')
  }

  #delta({ delta: { content, tool_calls: calls = [] } }: ChatDelta): string {
    const text = (content ?? '') === '' ? '' : this.#text(content ?? '')
    return text + calls.map((call) => this.#call(call)).join('')
  }

  #text(text: string): string {
    const begun = this.#open === 'text' ? '' : this.#begin('text', { type: 'text', text: '' })
    return begun + this.#event('content_block_delta', { index: this.#index, delta: { type: 'text_delta', text } })
  }

  #call(call: ChatToolCall): string {
    const begun = call.id === undefined ? '' : this.#begin('tool_use', { ...toolUse(call), input: {} })
    const json = call.function?.arguments ?? ''
    if (json === '') return begun
    return begun + this.#event('content_block_delta', { index: this.#index, delta: { type: 'input_json_delta', partial_json: json } })
  }

  #begin(type: 'text' | 'tool_use', block: object): string {
    const stopped = this.#stop()
    this.#index++
    this.#open = type
    return stopped + this.#event('content_block_start', { index: this.#index, content_block: block })
  }

  #stop(): string {
    if (this.#open === undefined) return ''
    this.#open = undefined
    return this.#event('content_block_stop', { index: this.#index })
  }

  #event(type: string, fields: object): string {
    return namedEvent(type, { type, ...fields })
  }

  #message(content: readonly object[], rest: object): object {
    return { id: this.#id, type: 'message', role: 'assistant', model: this.#model, content, ...rest }
  }

  #ended(reason: string, { stoppedBy }: Completion): { stop_reason: string; stop_sequence: string | null } {
    const sequence = this.#stops.find((stop) => stop === stoppedBy) ?? null
    return { stop_reason: sequence === null ? (STOP_REASONS[reason] ?? 'end_turn') : 'stop_sequence', stop_sequence: sequence }
  }
}

/** As Anthropic's clients expect errors. */
export function anthropicError({ status, type, message }: HttpError): object {
  const types: Readonly<Record<number, string>> = {
    401: 'authentication_error',
    403: 'permission_error',
    404: 'not_found_error',
    413: 'request_too_large',
    429: 'rate_limit_error',
    504: 'timeout_error',
  }
  const known = types[status] ?? (status >= 500 ? (status === 503 ? 'overloaded_error' : 'api_error') : type)
  return { type: 'error', error: { type: known, message } }
}

function toolUse({ id, function: called }: ChatToolCall): { type: 'tool_use'; id: string | undefined; name: string | undefined } {
  return { type: 'tool_use', id, name: called?.name }
}

/** What was generated as arguments; text that is not JSON stays text. */
function inputOf({ function: called }: ChatToolCall): unknown {
  try {
    return JSON.parse(called?.arguments ?? '{}')
  } catch {
    return { arguments: called?.arguments }
  }
}

function usageOf({ usage: { promptTokens, completionTokens, cachedTokens } }: Completion): object {
  return {
    input_tokens: promptTokens - cachedTokens,
    cache_read_input_tokens: cachedTokens,
    cache_creation_input_tokens: 0,
    output_tokens: completionTokens,
  }
}
