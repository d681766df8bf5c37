// A body of Anthropic's /v1/messages as one of /v1/chat/completions, so that both do the same.
import { badRequest } from '../http-error.js'

type Fields = Readonly<Record<string, unknown>>

export interface MessagesBody {
  readonly model: string
  readonly max_tokens: number
  readonly messages: readonly { readonly role: 'user' | 'assistant'; readonly content: string | readonly Fields[] }[]
  readonly system?: string | readonly Fields[]
  readonly stop_sequences?: readonly string[]
  readonly tools?: readonly Fields[]
  readonly tool_choice?: Fields
  readonly stream?: boolean
  readonly temperature?: number
  readonly top_p?: number
  readonly top_k?: number
}

/** Fields that ask for nothing: labels, and values that are the default. */
const NEUTRAL: Readonly<Record<string, (value: unknown) => boolean>> = {
  metadata: isRecord,
  service_tier: (value) => value === 'auto' || value === 'standard_only',
  thinking: (value) => isRecord(value) && value.type === 'disabled',
  tools: (value) => Array.isArray(value) && value.length === 0,
  stop_sequences: (value) => Array.isArray(value) && value.length === 0,
  mcp_servers: (value) => Array.isArray(value) && value.length === 0,
}

export function withoutNeutral(body: unknown): unknown {
  if (!isRecord(body)) return body
  return Object.fromEntries(Object.entries(body).filter(([name, value]) => !(Object.hasOwn(NEUTRAL, name) && NEUTRAL[name]?.(value))))
}

/** The same request as a chat. A last message of the assistant is continued, as Anthropic's API does. Throws HttpError 400. */
export function toChat({ messages, system, stop_sequences, tools, tool_choice, max_tokens, ...rest }: MessagesBody): Fields {
  const instructions = system === undefined ? [] : [{ role: 'system', content: textOf(system, 'system') }]
  const prefilled = messages.at(-1)?.role === 'assistant'
  return {
    ...rest,
    messages: [...instructions, ...messages.flatMap((message, i) => chatMessages(message, `messages.${i}.content`))],
    ...(max_tokens !== undefined && { max_completion_tokens: max_tokens }),
    ...(stop_sequences !== undefined && { stop: stop_sequences }),
    ...(prefilled && { continue_final_message: true }),
    ...(tools !== undefined && { tools: tools.map(chatTool) }),
    ...(tool_choice !== undefined && chatChoice(tool_choice)),
  }
}

/** Results of tools are messages of their own in a chat. */
function chatMessages({ role, content }: MessagesBody['messages'][number], path: string): Fields[] {
  if (typeof content === 'string') return [{ role, content }]
  const results: Fields[] = []
  const calls: Fields[] = []
  const texts: string[] = []
  for (const [i, part] of content.entries()) {
    const at = `${path}.${i}`
    if (role === 'user' && part.type === 'tool_result')
      results.push({ role: 'tool', tool_call_id: part.tool_use_id, content: textOf(part.content ?? '', `${at}.content`) })
    else if (role === 'assistant' && part.type === 'tool_use')
      calls.push({ id: part.id, type: 'function', function: { name: part.name, arguments: JSON.stringify(part.input ?? {}) } })
    else texts.push(textOfPart(part, at))
  }
  const said = texts.length > 0 || calls.length > 0 || results.length === 0
  return [...results, ...(said ? [{ role, content: texts.join(''), ...(calls.length > 0 && { tool_calls: calls }) }] : [])]
}

function textOf(content: unknown, path: string): string {
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) throw badRequest(`${path} must be a text or a list of parts.`, path, 'invalid_value')
  return content.map((part: unknown, i) => textOfPart(isRecord(part) ? part : {}, `${path}.${i}`)).join('')
}

/** cache_control asks for nothing here: every prefix is cached. */
function textOfPart({ type, text }: Fields, path: string): string {
  if (type === 'text' && typeof text === 'string') return text
  throw badRequest(`${path}: parts of type ${JSON.stringify(type) ?? 'none'} are not supported. Only text is.`, path, 'unsupported_parameter')
}

function chatTool({ type = 'custom', name, description, input_schema: parameters }: Fields, i: number): Fields {
  if (type !== 'custom')
    throw badRequest(`tools.${i}: tools of type ${JSON.stringify(type)} are not supported.`, `tools.${i}.type`, 'unsupported_parameter')
  return { type: 'function', function: { name, parameters, ...(description !== undefined && { description }) } }
}

function chatChoice({ type, name, disable_parallel_tool_use: single }: Fields): Fields {
  const choice = type === 'tool' ? { type: 'function', function: { name } } : type === 'any' ? 'required' : type
  return { tool_choice: choice, ...(single === true && { parallel_tool_calls: false }) }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
