// A conversation as a prompt. Knows the template, not the engine.
import { RequestError } from '../errors.js'
import { show } from '../options/check.js'
import type { ChatMessage, ChatTemplate } from '../tokenizer/chat-template.js'
import type { MarkedText } from '../tokenizer/tokenizer-interface.js'

const ROLES: readonly unknown[] = ['system', 'developer', 'user', 'assistant']

/** The prompt, and the texts that end the answer. Rejects with RequestError MESSAGES_INVALID, or TEMPLATE_FAILED for what the template refuses. */
export async function chatPrompt(template: ChatTemplate, messages: unknown): Promise<{ prompt: MarkedText; stop: readonly string[] }> {
  return { prompt: await template.prompt(checkMessages(messages)), stop: template.stop }
}

function checkMessages(messages: unknown): readonly ChatMessage[] {
  if (!Array.isArray(messages) || messages.length === 0) throw invalid('the messages of a chat', 'an array of at least one message', messages)
  for (const [i, message] of messages.entries()) {
    if (typeof message !== 'object' || message === null) throw invalid(`message ${i}`, '{ role, content }', message)
    const { role, content } = message as { role?: unknown; content?: unknown }
    if (!ROLES.includes(role)) throw invalid(`the role of message ${i}`, ROLES.join(', '), role)
    if (typeof content !== 'string') throw invalid(`the content of message ${i}`, 'a text', content)
  }
  return messages as readonly ChatMessage[]
}

function invalid(what: string, expected: string, actual: unknown): RequestError {
  return new RequestError('MESSAGES_INVALID', {
    what: `${what} cannot be used`,
    expected,
    actual: show(actual),
    remedy: "Pass messages like { role: 'user', content: 'Hello' }.",
  })
}
