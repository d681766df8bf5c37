// The messages of a chat for the model's template: with calls and their results as the template takes them, or written into texts for one that
// knows none.
import type { TemplateMessage } from '../../tokenizer/chat-template.js'
import { badRequest } from '../http-error.js'
import type { ChatBody } from '../request-schema.js'
import type { CallForm } from './call-form.js'
import { type ChatTool, shownTools } from './tool-fields.js'

type Message = ChatBody['messages'][number]

/** Throws HttpError 400. */
export function templateInput(body: ChatBody, form: CallForm): { messages: readonly TemplateMessage[]; tools: readonly object[] } {
  body.messages.forEach((message, i) => {
    checkMessage(message, `messages.${i}`)
  })
  if (body.continue_final_message === true && (body.messages.at(-1)?.tool_calls ?? []).length > 0)
    throw badRequest('A last message with tool_calls cannot be continued.', 'continue_final_message', 'invalid_value')
  const tools = shownTools(body)
  if (form.native) return { messages: body.messages.map(nativeMessage), tools: tools.map(shownTool) }
  return { messages: plainMessages(body.messages, tools, form), tools: [] }
}

function checkMessage({ role, content, tool_calls: calls, tool_call_id: id }: Message, path: string): void {
  const missing = (name: string) => badRequest(`${path}.${name} is missing.`, `${path}.${name}`, 'missing_required_parameter')
  const stray = (name: string, of: string) =>
    badRequest(`${path}.${name} is only for messages of role ${of}.`, `${path}.${name}`, 'unsupported_parameter')
  if (calls !== undefined && role !== 'assistant') throw stray('tool_calls', 'assistant')
  if (id !== undefined && role !== 'tool') throw stray('tool_call_id', 'tool')
  if (id === undefined && role === 'tool') throw missing('tool_call_id')
  if (content === undefined && calls === undefined) throw missing('content')
}

function textOf(content: Message['content']): string {
  return typeof content === 'string' ? content : (content ?? []).map(({ text }) => text).join('')
}

function shownTool({ type, function: { strict: _strict, ...shown } }: ChatTool): object {
  return { type, function: shown }
}

/** As Hugging Face's templates expect them: arguments as an object. */
function nativeMessage({ role, content, name, tool_calls: calls, tool_call_id }: Message): TemplateMessage {
  return {
    role: role as TemplateMessage['role'],
    content: textOf(content),
    ...(name !== undefined && { name }),
    ...(calls !== undefined && {
      tool_calls: calls.map(({ id, type, function: called }) => ({ id, type, function: { ...called, arguments: parsed(called.arguments) } })),
    }),
    ...(tool_call_id !== undefined && { tool_call_id }),
  }
}

/** Arguments of a call that was cut short are no JSON: they stay a text. */
function parsed(text: string): unknown {
  try {
    return text.trim() === '' ? {} : JSON.parse(text)
  } catch {
    return text
  }
}

function plainMessages(messages: readonly Message[], tools: readonly ChatTool[], form: CallForm): TemplateMessage[] {
  const plain: TemplateMessage[] = []
  messages.forEach((message, i) => {
    const { role, content, name, tool_calls: calls = [] } = message
    const text = textOf(content)
    const last = plain.at(-1)
    if (role === 'tool') {
      const result = `<tool_response>\n${text}\n</tool_response>`
      // Results that follow each other are one message.
      if (last && messages[i - 1]?.role === 'tool') plain[plain.length - 1] = { ...last, content: `${last.content}\n${result}` }
      else plain.push({ role: 'user', content: result })
      return
    }
    const called = calls.map((call) => `${form.begin(call.function.name)}${call.function.arguments.trim() || '{}'}${form.end}`)
    const said = calls.length > 0 && text === '' ? called : [text, ...called]
    plain.push({ role: role as TemplateMessage['role'], content: said.join('\n'), ...(name !== undefined && { name }) })
  })
  if (tools.length === 0) return plain
  const [first, ...rest] = plain
  const shown = instructions(tools, form)
  if (first?.role === 'system' || first?.role === 'developer') return [{ ...first, content: `${first.content}\n\n${shown}` }, ...rest]
  return [{ role: 'system', content: shown }, ...plain]
}

function instructions(tools: readonly ChatTool[], form: CallForm): string {
  return `# Tools

These functions may be called, one or several, where they help to answer. Each line between <tools> and </tools> describes one:
<tools>
${tools.map((tool) => JSON.stringify(shownTool(tool))).join('\n')}
</tools>

Each call is written as a JSON object with the function's name and its arguments, like this:
${form.begin('<function-name>').replace('"<function-name>"', '<function-name>')}<args-json-object>${form.end}

Results of calls come in <tool_response></tool_response>.`
}
