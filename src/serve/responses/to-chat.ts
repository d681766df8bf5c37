// A body of /v1/responses as one of /v1/chat/completions, so that both do the same. What needs state that this server does not keep is refused by
// its name.
import { badRequest } from '../http-error.js'

type Fields = Readonly<Record<string, unknown>>

export interface ResponsesBody {
  readonly model: string
  readonly input: string | readonly Fields[]
  readonly instructions?: string
  readonly max_output_tokens?: number
  readonly text?: { readonly format?: Fields; readonly verbosity?: string }
  readonly tools?: readonly Fields[]
  readonly tool_choice?: string | Fields
  readonly parallel_tool_calls?: boolean
  readonly top_logprobs?: number
  readonly include?: readonly string[]
  readonly metadata?: Readonly<Record<string, string>>
  readonly stream?: boolean
  readonly temperature?: number
  readonly top_p?: number
  readonly user?: string
}

/** Fields that ask for state or for what runs at OpenAI, and values of them that ask for nothing. */
const STATEFUL: Readonly<Record<string, readonly unknown[]>> = {
  previous_response_id: [],
  conversation: [],
  prompt: [],
  background: [false],
  context_management: [],
}
/** Fields that ask for nothing: labels, and values that are the default. */
const NEUTRAL: Readonly<Record<string, (value: unknown) => boolean>> = {
  // Nothing is stored here; the answer says store: false.
  store: (value) => typeof value === 'boolean',
  truncation: (value) => value === 'disabled',
  service_tier: (value) => value === 'auto' || value === 'default',
  prompt_cache_key: (value) => typeof value === 'string',
  prompt_cache_retention: (value) => typeof value === 'string',
  safety_identifier: (value) => typeof value === 'string',
  // No model here reasons apart from its text.
  reasoning: (value) => isRecord(value) && Object.entries(value).every(([name, part]) => part === null || (name === 'effort' && part === 'none')),
  stream_options: (value) => isRecord(value) && Object.entries(value).every(([name, part]) => name === 'include_obfuscation' && part === false),
}
const LOGPROBS = 'message.output_text.logprobs'
/** Parts of answers that there are none of here. */
const ABSENT = new Set(['reasoning.encrypted_content'])

/** Without fields that ask for nothing. Throws HttpError 400 for those that ask for state. */
export function withoutNeutral(body: unknown): unknown {
  if (!isRecord(body)) return body
  const kept = Object.entries(body).filter(([name, value]) => {
    const known = Object.hasOwn(STATEFUL, name) ? STATEFUL[name] : undefined
    if (known && !known.includes(value))
      throw badRequest(
        `${name} is not supported: this server keeps no responses. Send the whole conversation as input.`,
        name,
        'unsupported_parameter',
      )
    return !known && !(Object.hasOwn(NEUTRAL, name) && NEUTRAL[name]?.(value))
  })
  return Object.fromEntries(kept)
}

/** The same request as a chat. Throws HttpError 400 in the terms of /v1/responses. */
export function toChat(body: ResponsesBody): Fields {
  const { input, instructions, max_output_tokens, text, tools, tool_choice, include = [], top_logprobs, metadata: _metadata, ...rest } = body
  const unknown = include.find((name) => name !== LOGPROBS && !ABSENT.has(name))
  if (unknown !== undefined) throw badRequest(`include: ${JSON.stringify(unknown)} is not supported.`, 'include', 'unsupported_parameter')
  const logprobs = include.includes(LOGPROBS) || (top_logprobs !== undefined && top_logprobs > 0)
  if (logprobs && tools !== undefined && tools.length > 0)
    throw badRequest('top_logprobs is not supported with tools. /v1/chat/completions has both.', 'top_logprobs', 'unsupported_parameter')
  const format = text?.format
  return {
    ...rest,
    messages: [...(instructions === undefined ? [] : [{ role: 'system', content: instructions }]), ...messagesOf(input)],
    ...(max_output_tokens !== undefined && { max_completion_tokens: max_output_tokens }),
    ...(logprobs && { logprobs: true, top_logprobs: top_logprobs ?? 0 }),
    ...(text?.verbosity !== undefined && { verbosity: text.verbosity }),
    ...(format !== undefined && { response_format: chatFormat(format) }),
    ...(tools !== undefined && { tools: tools.map((tool, i) => chatTool(tool, `tools.${i}`)) }),
    ...(tool_choice !== undefined && { tool_choice: chatChoice(tool_choice) }),
  }
}

function chatFormat({ type, ...schema }: Fields): Fields {
  return type === 'json_schema' ? { type, json_schema: schema } : { type, ...schema }
}

function chatTool({ type, ...definition }: Fields, path: string): Fields {
  if (type !== 'function')
    throw badRequest(`${path}: tools of type ${JSON.stringify(type)} are not supported. Only functions are.`, `${path}.type`, 'unsupported_parameter')
  return { type, function: definition }
}

function chatChoice(choice: string | Fields): unknown {
  return typeof choice === 'object' && choice.type === 'function' ? { type: 'function', function: { name: choice.name } } : choice
}

/** Calls of functions that follow each other are one message of the assistant. */
function messagesOf(input: ResponsesBody['input']): Fields[] {
  if (typeof input === 'string') return [{ role: 'user', content: input }]
  const messages: { role: string; content?: string; tool_calls?: Fields[]; tool_call_id?: unknown }[] = []
  for (const [i, item] of input.entries()) {
    const path = `input.${i}`
    const type = item.type ?? 'message'
    const last = messages.at(-1)
    if (type === 'message') messages.push({ role: roleOf(item.role, path), content: textOf(item.content, `${path}.content`) })
    else if (type === 'function_call') {
      const call = { id: item.call_id, type: 'function', function: { name: item.name, arguments: item.arguments } }
      if (last?.role === 'assistant') last.tool_calls = [...(last.tool_calls ?? []), call]
      else messages.push({ role: 'assistant', tool_calls: [call] })
    } else if (type === 'function_call_output')
      messages.push({ role: 'tool', tool_call_id: item.call_id, content: textOf(item.output, `${path}.output`) })
    else throw badRequest(`${path}: items of type ${JSON.stringify(type)} are not supported.`, `${path}.type`, 'unsupported_parameter')
  }
  return messages
}

function roleOf(role: unknown, path: string): string {
  if (role === 'user' || role === 'assistant' || role === 'system' || role === 'developer') return role
  throw badRequest(`${path}.role must be one of user, assistant, system, developer.`, `${path}.role`, 'invalid_value')
}

const TEXT_PARTS: readonly unknown[] = ['input_text', 'output_text', 'text']

function textOf(content: unknown, path: string): string {
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) throw badRequest(`${path} must be a text or a list of parts.`, path, 'invalid_value')
  return content.map((part: unknown, i) => textOfPart(part, `${path}.${i}`)).join('')
}

function textOfPart(part: unknown, path: string): string {
  const { type, text } = isRecord(part) ? part : {}
  if (!TEXT_PARTS.includes(type))
    throw badRequest(`${path}: parts of type ${JSON.stringify(type) ?? 'none'} are not supported. Only text is.`, path, 'unsupported_parameter')
  if (typeof text === 'string') return text
  throw badRequest(`${path}.text must be a text.`, `${path}.text`, 'invalid_value')
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
