// Calls of tools for tetrad/ai: a prompt with tools becomes what the server makes of a chat, and the answer's text its parts.
import { randomUUID } from 'node:crypto'
import type {
  LanguageModelV3CallOptions,
  LanguageModelV3Content,
  LanguageModelV3Message,
  LanguageModelV3StreamPart,
  LanguageModelV3ToolResultOutput,
} from '@ai-sdk/provider'
import { templateOptions } from './engine/chat-prompt.js'
import { type ChatParams, type Engine, INTERNALS } from './engine/engine.js'
import type { EngineParts } from './engine/engine-info.js'
import type { Generation } from './engine/generation.js'
import { invalidOption, show } from './options/check.js'
import { HttpError } from './serve/http-error.js'
import type { ChatBody } from './serve/request-schema.js'
import { callFormOf } from './serve/tool-calls/call-form.js'
import { CallParser, type CallPart } from './serve/tool-calls/call-parser.js'
import { type OfferedTools, offeredTools } from './serve/tool-calls/tool-fields.js'
import { templateInput } from './serve/tool-calls/tool-messages.js'
import { type ChatMessage, loadChatTemplate } from './tokenizer/chat-template.js'

type Message = ChatBody['messages'][number]

/** Begins the answer. Rejects with OptionError for what is not supported; the generation rejects as Engine.chat does. */
export async function answerOf(
  engine: Engine,
  options: LanguageModelV3CallOptions,
  params: ChatParams,
): Promise<{ readonly generation: Generation; readonly reader: AnswerReader }> {
  const { responseFormat, tools = [] } = options
  // Without a schema: any JSON.
  const jsonSchema = responseFormat?.type === 'json' ? (responseFormat.schema ?? true) : undefined
  const messages = options.prompt.flatMap(messagesOf)
  if (tools.length === 0 && messages.every(({ role, tool_calls: calls }) => role !== 'tool' && calls === undefined)) {
    const generation = engine.chat(messages as readonly ChatMessage[], { ...params, ...(jsonSchema !== undefined && { jsonSchema }) })
    return { generation, reader: new AnswerReader(undefined) }
  }
  const { template: wanted, ...generation } = params
  const template = await loadChatTemplate((engine[INTERNALS] as EngineParts).dir)
  const form = callFormOf(template)
  const body = { model: '', messages, ...toolFields(options), ...(jsonSchema !== undefined && { json_schema: jsonSchema }) } as ChatBody
  const { offered, input } = inOptionTerms(() => ({ offered: offeredTools(body, form), input: templateInput(body, form) }))
  const prompt = await template.prompt(input.messages, templateOptions(wanted ?? {}, template), input.tools)
  const stop = [...(generation.stop === undefined ? [] : [generation.stop].flat()), ...template.stop]
  return {
    generation: engine.generate(prompt, { ...generation, stop, ...heldTo(offered, jsonSchema) }),
    reader: new AnswerReader(offered && new CallParser(form, offered.names)),
  }
}

function heldTo(offered: OfferedTools | undefined, jsonSchema: ChatParams['jsonSchema']): ChatParams {
  if (offered) return { structuralTag: offered.tag }
  return jsonSchema === undefined ? {} : { jsonSchema }
}

function toolFields({ tools = [], toolChoice }: LanguageModelV3CallOptions): Partial<ChatBody> {
  return {
    tools: tools.map((tool, i) => {
      if (tool.type !== 'function') throw unsupported(`tools[${i}]`, 'a tool of type function', tool.id)
      const { name, description, inputSchema } = tool
      return {
        type: 'function',
        function: { name, ...(description !== undefined && { description }), parameters: inputSchema as Readonly<Record<string, unknown>> },
      }
    }),
    tool_choice: toolChoice?.type === 'tool' ? { type: 'function', function: { name: toolChoice.toolName } } : (toolChoice?.type ?? 'auto'),
  }
}

/** The server's checks, as errors of a call in this process. */
function inOptionTerms<T>(check: () => T): T {
  try {
    return check()
  } catch (error) {
    if (!(error instanceof HttpError)) throw error
    throw invalidOption({
      what: error.message,
      expected: 'tools and messages that can be used',
      actual: error.param ?? 'others',
      remedy: 'docs/structured-output.md has what is supported.',
      ...(error.param !== null && { option: error.param }),
    })
  }
}

/** Results of several tools are messages of their own. */
function messagesOf(message: LanguageModelV3Message, i: number): readonly Message[] {
  if (typeof message.content === 'string') return [{ role: message.role, content: message.content }]
  const refuse = (j: number, type: string) => unsupported(`prompt[${i}].content[${j}]`, 'a part of text, or of a call of a tool', show(type))
  if (message.role === 'tool') {
    return message.content.map((part, j) => {
      if (part.type !== 'tool-result') throw refuse(j, part.type)
      return { role: 'tool', tool_call_id: part.toolCallId, content: resultText(part.output, `prompt[${i}].content[${j}].output`) }
    })
  }
  const texts: string[] = []
  const calls: NonNullable<Message['tool_calls']>[number][] = []
  for (const [j, part] of (message.content as unknown as readonly Readonly<Record<string, unknown>>[]).entries()) {
    if (part.type === 'text') texts.push(part.text as string)
    else if (part.type === 'tool-call') {
      const { toolCallId, toolName, input } = part as { toolCallId: string; toolName: string; input: unknown }
      calls.push({ id: toolCallId, type: 'function', function: { name: toolName, arguments: JSON.stringify(input ?? {}) } })
    } else throw refuse(j, part.type as string)
  }
  return [{ role: message.role, content: texts.join(''), ...(calls.length > 0 && { tool_calls: calls }) }]
}

function resultText(output: LanguageModelV3ToolResultOutput, at: string): string {
  switch (output.type) {
    case 'text':
    case 'error-text':
      return output.value
    case 'json':
    case 'error-json':
      return JSON.stringify(output.value)
    case 'execution-denied':
      return output.reason ?? 'The call was denied.'
    default:
      return output.value
        .map((part, i) => {
          if (part.type === 'text') return part.text
          throw unsupported(`${at}.value[${i}]`, 'a part of type text', show(part.type))
        })
        .join('')
  }
}

function unsupported(option: string, expected: string, actual: string): Error {
  return invalidOption({ what: `${option} is not supported by this model`, expected, actual, remedy: 'Leave it out of the call.', option })
}

interface OpenCall {
  readonly id: string
  readonly toolName: string
  input: string
}

/** The answer's text as parts: text, and calls of tools. */
export class AnswerReader {
  readonly #parser: CallParser | undefined
  #texts = 0
  #text: string | undefined
  #call: OpenCall | undefined

  /** parser: undefined where no tools were offered. */
  constructor(parser: CallParser | undefined) {
    this.#parser = parser
  }

  /** There are calls, and the last one is whole. */
  get called(): boolean {
    return this.#parser?.called === true
  }

  *push(text: string): Generator<LanguageModelV3StreamPart> {
    if (this.#parser) for (const part of this.#parser.push(text)) yield* this.#part(part)
    else if (text !== '') yield* this.#part({ content: text })
  }

  *end(): Generator<LanguageModelV3StreamPart> {
    for (const part of this.#parser?.end() ?? []) yield* this.#part(part)
    yield* this.#endText()
    yield* this.#endCall()
  }

  /** Of a whole answer. */
  whole(text: string): LanguageModelV3Content[] {
    const content: LanguageModelV3Content[] = []
    for (const part of [...this.push(text), ...this.end()]) {
      const last = content.at(-1)
      if (part.type === 'text-start') content.push({ type: 'text', text: '' })
      else if (part.type === 'text-delta' && last?.type === 'text') last.text += part.delta
      else if (part.type === 'tool-call') content.push(part)
    }
    return content
  }

  *#part(part: CallPart): Generator<LanguageModelV3StreamPart> {
    if ('content' in part) {
      yield* this.#endCall()
      if (this.#text === undefined) {
        this.#text = String(this.#texts++)
        yield { type: 'text-start', id: this.#text }
      }
      yield { type: 'text-delta', id: this.#text, delta: part.content }
      return
    }
    if (part.name !== undefined) {
      yield* this.#endText()
      yield* this.#endCall()
      this.#call = { id: `call_${randomUUID().replaceAll('-', '')}`, toolName: part.name, input: '' }
      yield { type: 'tool-input-start', id: this.#call.id, toolName: part.name }
    }
    if (!this.#call || part.arguments === '') return
    this.#call.input += part.arguments
    yield { type: 'tool-input-delta', id: this.#call.id, delta: part.arguments }
  }

  *#endText(): Generator<LanguageModelV3StreamPart> {
    if (this.#text !== undefined) yield { type: 'text-end', id: this.#text }
    this.#text = undefined
  }

  *#endCall(): Generator<LanguageModelV3StreamPart> {
    if (!this.#call) return
    const { id, toolName, input } = this.#call
    this.#call = undefined
    yield { type: 'tool-input-end', id }
    yield { type: 'tool-call', toolCallId: id, toolName, input }
  }
}
