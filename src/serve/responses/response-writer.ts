// Answers of /v1/responses, made of what a chat completion says: whole, or as OpenAI's events in their order.
import { randomUUID } from 'node:crypto'
import type { IndexedChunk } from '../../engine/engine.js'
import type { Completion } from '../../engine/generation.js'
import type { AnswerWriter } from '../answer.js'
import type { ChatChoice, ChatDelta, ChatToolCall } from '../chat-parts.js'
import type { Format } from '../choices-writer.js'
import type { HttpError } from '../http-error.js'
import type { ServedModel } from '../served-model.js'
import { namedEvent } from '../sse.js'
import type { ResponsesBody } from './to-chat.js'

type Logprobs = NonNullable<ChatDelta['logprobs']>['content']

/** An item of the output while it is written. */
type Item =
  | { readonly type: 'message'; readonly id: string; text: string; readonly logprobs: Logprobs[number][] }
  | { readonly type: 'function_call'; readonly id: string; readonly callId: string; readonly name: string; arguments: string }

export class ResponseWriter implements AnswerWriter {
  readonly #format: Format
  readonly #body: ResponsesBody
  readonly #model: ServedModel
  readonly #id = `resp_${hex()}`
  readonly #createdAt = Math.floor(Date.now() / 1000)
  readonly #items: Item[] = []
  #sequence = 0
  #begun = false

  constructor(model: ServedModel, body: ResponsesBody, format: Format) {
    this.#model = model
    this.#body = body
    this.#format = format
  }

  async whole([completion]: readonly [Completion]): Promise<string> {
    const { message, logprobs, finish_reason: reason } = (await this.#format.choice(0, completion)) as ChatChoice
    const calls = message.tool_calls ?? []
    if ((message.content ?? '') !== '' || calls.length === 0)
      this.#items.push({ type: 'message', id: `msg_${hex()}`, text: message.content ?? '', logprobs: [...(logprobs?.content ?? [])] })
    for (const call of calls) this.#items.push(newCall(call))
    return JSON.stringify(this.#response(statusOf(reason), completion))
  }

  begin(): string {
    this.#begun = true
    const response = this.#response('in_progress')
    return this.#event('response.created', { response }) + this.#event('response.in_progress', { response })
  }

  chunk({ text, logprobs }: IndexedChunk): string {
    return this.#deltas(this.#format.delta(0, text, logprobs, false))
  }

  end([completion]: readonly [Completion]): string {
    const ends = this.#format.end(0, completion) as readonly ChatDelta[]
    const rest = this.#deltas(ends)
    const empty = this.#items.length === 0 ? this.#openText() : ''
    const closed = this.#closeLast()
    const status = statusOf(ends.at(-1)?.finish_reason ?? 'stop')
    return rest + empty + closed + this.#event(`response.${status}`, { response: this.#response(status, completion) })
  }

  error(error: HttpError): string {
    const { message, type, param, code } = error
    const begun = this.#begun ? '' : this.begin()
    return `${begun}${this.#event('error', { code, message, param, error: { type, code, message, param } })}`
  }

  #deltas(deltas: readonly object[]): string {
    return (deltas as readonly ChatDelta[]).map((delta) => this.#delta(delta)).join('')
  }

  #delta({ delta, logprobs }: ChatDelta): string {
    const { content, tool_calls: calls = [] } = delta
    const scored = logprobs?.content ?? []
    const text = (content ?? '') !== '' || scored.length > 0 ? this.#text(content ?? '', scored) : ''
    return text + calls.map((call) => this.#call(call)).join('')
  }

  #text(delta: string, logprobs: Logprobs): string {
    const open = this.#items.at(-1)?.type === 'message' ? '' : this.#closeLast() + this.#openText()
    const item = this.#items.at(-1) as Extract<Item, { type: 'message' }>
    item.text += delta
    item.logprobs.push(...logprobs)
    return open + this.#event('response.output_text.delta', { ...this.#place(item), content_index: 0, delta, logprobs })
  }

  #openText(): string {
    const item: Item = { type: 'message', id: `msg_${hex()}`, text: '', logprobs: [] }
    this.#items.push(item)
    const added = { output_index: this.#items.length - 1, item: { ...written(item, 'in_progress'), content: [] } }
    return (
      this.#event('response.output_item.added', added) +
      this.#event('response.content_part.added', { ...this.#place(item), content_index: 0, part: textPart('', []) })
    )
  }

  /** A call's first piece has its id and name. */
  #call(call: ChatToolCall): string {
    let open = ''
    if (call.id !== undefined) {
      open = this.#closeLast()
      const item = { ...newCall(call), arguments: '' }
      this.#items.push(item)
      open += this.#event('response.output_item.added', { output_index: this.#items.length - 1, item: written(item, 'in_progress') })
    }
    const item = this.#items.at(-1)
    const delta = call.function?.arguments ?? ''
    if (item?.type !== 'function_call' || delta === '') return open
    item.arguments += delta
    return open + this.#event('response.function_call_arguments.delta', { ...this.#place(item), delta })
  }

  #closeLast(): string {
    const item = this.#items.at(-1)
    if (!item) return ''
    const itemDone = () => this.#event('response.output_item.done', { output_index: this.#items.length - 1, item: written(item, 'completed') })
    if (item.type === 'function_call') {
      const { name, arguments: given } = item
      return this.#event('response.function_call_arguments.done', { ...this.#place(item), name, arguments: given }) + itemDone()
    }
    const part = { ...this.#place(item), content_index: 0 }
    return (
      this.#event('response.output_text.done', { ...part, text: item.text, logprobs: item.logprobs }) +
      this.#event('response.content_part.done', { ...part, part: textPart(item.text, item.logprobs) }) +
      itemDone()
    )
  }

  #place({ id }: Item): { item_id: string; output_index: number } {
    return { item_id: id, output_index: this.#items.length - 1 }
  }

  #event(type: string, fields: object): string {
    return namedEvent(type, { type, sequence_number: this.#sequence++, ...fields })
  }

  #response(status: 'in_progress' | 'completed' | 'incomplete', completion?: Completion): object {
    const body = this.#body
    return {
      id: this.#id,
      object: 'response',
      created_at: this.#createdAt,
      status,
      background: false,
      completed_at: status === 'completed' ? Math.floor(Date.now() / 1000) : null,
      error: null,
      incomplete_details: status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
      instructions: body.instructions ?? null,
      max_output_tokens: body.max_output_tokens ?? null,
      metadata: body.metadata ?? {},
      model: this.#model.id,
      output: completion ? this.#items.map((item) => written(item, status)) : [],
      parallel_tool_calls: body.parallel_tool_calls ?? true,
      previous_response_id: null,
      reasoning: { effort: null, summary: null },
      service_tier: 'default',
      store: false,
      temperature: body.temperature ?? 1,
      text: { format: body.text?.format ?? { type: 'text' } },
      tool_choice: body.tool_choice ?? 'auto',
      tools: body.tools ?? [],
      top_logprobs: body.top_logprobs ?? 0,
      top_p: body.top_p ?? 1,
      truncation: 'disabled',
      usage: completion ? usageOf(completion) : null,
      user: body.user ?? null,
      ...(this.#model.fingerprint !== undefined && { system_fingerprint: `fp_${this.#model.fingerprint}` }),
    }
  }
}

function statusOf(reason: string): 'completed' | 'incomplete' {
  return reason === 'length' ? 'incomplete' : 'completed'
}

function newCall({ id = '', function: called }: ChatToolCall): Extract<Item, { type: 'function_call' }> {
  return { type: 'function_call', id: `fc_${hex()}`, callId: id, name: called?.name ?? '', arguments: called?.arguments ?? '' }
}

function written(item: Item, status: string): object {
  if (item.type === 'message') {
    const { id, text, logprobs } = item
    return { id, type: 'message', status, role: 'assistant', content: [textPart(text, logprobs)] }
  }
  return { id: item.id, type: 'function_call', status, call_id: item.callId, name: item.name, arguments: item.arguments }
}

function textPart(text: string, logprobs: Logprobs): object {
  return { type: 'output_text', text, annotations: [], logprobs }
}

function usageOf({ usage: { promptTokens, completionTokens, cachedTokens } }: Completion): object {
  return {
    input_tokens: promptTokens,
    input_tokens_details: { cached_tokens: cachedTokens },
    output_tokens: completionTokens,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: promptTokens + completionTokens,
  }
}

function hex(): string {
  return randomUUID().replaceAll('-', '')
}
