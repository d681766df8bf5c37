// A conversation as a prompt. Knows the template, not the engine.
import { RequestError } from '../errors.js'
import { checkBoolean, checkNames, invalidOption, show } from '../options/check.js'
import type { ChatMessage, ChatTemplate, TemplateOptions } from '../tokenizer/chat-template.js'
import type { MarkedText } from '../tokenizer/tokenizer-interface.js'

const ROLES: readonly unknown[] = ['system', 'developer', 'user', 'assistant']

/** The prompt, and the texts that end the answer. Rejects with RequestError MESSAGES_INVALID, or TEMPLATE_FAILED for what the template refuses. */
export async function chatPrompt(
  template: ChatTemplate,
  messages: unknown,
  options: TemplateOptions = {},
): Promise<{ prompt: MarkedText; stop: readonly string[] }> {
  return { prompt: await template.prompt(checkMessages(messages), templateOptions(options, template)), stop: template.stop }
}

/** Variables that have options or arguments of their own. */
const OWN_VARIABLES = ['messages', 'tools', 'add_generation_prompt', 'continue_final_message']
const HTTP_NAMES = { addGenerationPrompt: 'add_generation_prompt', continueFinalMessage: 'continue_final_message', variables: 'chat_template_kwargs' }

/** Throws OptionError, in the caller's spelling, for options that are not valid, or that this template cannot follow. */
export function templateOptions(given: TemplateOptions, { origin }: Pick<ChatTemplate, 'origin'>, caller: 'api' | 'http' = 'api'): TemplateOptions {
  const { addGenerationPrompt, continueFinalMessage, variables } = checkNames('template', given, Object.keys(HTTP_NAMES)) as TemplateOptions
  const spelled = (name: keyof TemplateOptions) => (caller === 'http' ? HTTP_NAMES[name] : `template.${name}`)
  checkBoolean(spelled('addGenerationPrompt'), addGenerationPrompt, invalidOption)
  checkBoolean(spelled('continueFinalMessage'), continueFinalMessage, invalidOption)
  if (addGenerationPrompt === true && continueFinalMessage === true) {
    throw invalidOption({
      what: `${spelled('addGenerationPrompt')} and ${spelled('continueFinalMessage')} exclude each other`,
      expected: 'one of them',
      actual: 'both',
      remedy: `Omit ${spelled('addGenerationPrompt')}.`,
      option: spelled('continueFinalMessage'),
    })
  }
  if (variables !== undefined) checkVariables(spelled('variables'), variables, origin)
  return given
}

function checkVariables(option: string, variables: unknown, origin: ChatTemplate['origin']): void {
  const fail = (what: string, expected: string, actual: string, remedy: string) => invalidOption({ what, expected, actual, remedy, option })
  if (typeof variables !== 'object' || variables === null || Array.isArray(variables))
    throw fail(`${option} has the wrong type`, 'an object', show(variables), 'Pass { name: value }.')
  const names = Object.keys(variables)
  const own = names.find((name) => OWN_VARIABLES.includes(name))
  if (own !== undefined) throw fail(`${option} cannot set ${own}`, `none of ${OWN_VARIABLES.join(', ')}`, own, 'Use the parameter of its own.')
  if (names.length > 0 && origin === 'plain')
    throw fail(`${option} cannot be used: this model has no chat template`, 'no variables', names.slice(0, 8).join(', '), `Omit ${option}.`)
}

function checkMessages(messages: unknown): readonly ChatMessage[] {
  if (!Array.isArray(messages) || messages.length === 0) throw invalid('the messages of a chat', 'an array of at least one message', messages)
  for (const [i, message] of messages.entries()) {
    if (typeof message !== 'object' || message === null) throw invalid(`message ${i}`, '{ role, content }', message)
    const { role, content, name } = message as { role?: unknown; content?: unknown; name?: unknown }
    if (!ROLES.includes(role)) throw invalid(`the role of message ${i}`, ROLES.join(', '), role)
    if (typeof content !== 'string') throw invalid(`the content of message ${i}`, 'a text', content)
    if (name !== undefined && typeof name !== 'string') throw invalid(`the name of message ${i}`, 'a text', name)
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
