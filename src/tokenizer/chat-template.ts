// A conversation as a prompt: by the checkpoint's own template (Jinja, as Hugging Face writes it), else a plain one.
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { CheckpointError, RequestError } from '../errors.js'
import { parseJson } from '../json.js'
import { readModelFile } from '../model/model-files.js'
import { PythonTemplate } from './template/python-jinja.js'
import { renderInThread } from './template/render-pool.js'
import { readSpecials, type TokenizerFile, tokenText } from './tokenizer-file.js'
import type { MarkedText } from './tokenizer-interface.js'

/** One message of a conversation. */
export interface ChatMessage {
  readonly role: 'system' | 'developer' | 'user' | 'assistant'
  readonly content: string
  /** Who of several participants of one role wrote it. Templates that know names use it; the plain one does not. */
  readonly name?: string
}

/** A message as templates take them, with calls of functions and their results. */
export interface TemplateMessage extends Omit<ChatMessage, 'role'> {
  readonly role: ChatMessage['role'] | 'tool'
  readonly tool_calls?: readonly object[]
  readonly tool_call_id?: string
}

/** How a conversation becomes a prompt. */
export interface TemplateOptions {
  /** The prompt ends where the assistant's answer begins. Default: true, and false with continueFinalMessage. */
  readonly addGenerationPrompt?: boolean
  /** The prompt ends within the last message, which the answer continues. Default: false. */
  readonly continueFinalMessage?: boolean
  /** Further variables of the model's template, which uses those that it knows (`enable_thinking`). The plain template has none. */
  readonly variables?: Readonly<Record<string, unknown>>
}

export interface ChatTemplate {
  readonly origin: 'checkpoint' | 'plain'
  /**
   * The prompt after which the assistant's answer is written, for the tokenizer: a control token that a message contains stays
   * text. Rendered in a thread of its own with bounded time and memory. tools: functions that the model may call, for a template that
   * knows them; the plain one does not. Rejects with RequestError TEMPLATE_FAILED.
   */
  prompt(messages: readonly TemplateMessage[], options?: TemplateOptions, tools?: readonly object[]): Promise<MarkedText>
  /** The prompt as plain text, rendered in this thread without a bound: for tools. Throws what the template throws. */
  render(messages: readonly ChatMessage[]): string
  /** Texts that end an answer, beside the model's own end. */
  readonly stop: readonly string[]
  /** Of a checkpoint's own: what it is made from. */
  readonly source?: TemplateSource
}

export interface TemplateSource {
  /** Jinja. */
  readonly source: string
  readonly bosToken: string
  readonly eosToken: string
  /** Texts of the tokenizer's control tokens. */
  readonly controlTokens?: readonly string[]
}

const NAMES = { system: 'System', developer: 'System', user: 'User', assistant: 'Assistant', tool: 'Tool' } as const

/** "User: ...\nAssistant: ...\n" and so on; an answer ends where the user's next line would begin. */
export const PLAIN: ChatTemplate = plainTemplate([])

/** controlTokens: texts of the tokenizer's control tokens, which stay text inside a message. */
export function plainTemplate(controlTokens: readonly string[]): ChatTemplate {
  const render = (messages: readonly TemplateMessage[], generation = true) =>
    `${messages.map(({ role, content }) => `${NAMES[role]}: ${content}\n`).join('')}${generation ? 'Assistant:' : ''}`
  return {
    origin: 'plain',
    render: (messages) => render(messages),
    prompt: async (messages, options = {}) => {
      const { mark, marked } = markControls(messages, controlTokens)
      return { text: await openEnded(marked, options, async (list) => render(list, generationPrompt(options))), mark }
    },
    stop: ['\nUser:', '\nSystem:'],
  }
}

/**
 * Of `dir`/chat_template.jinja, else of tokenizer_config.json's chat_template (of a list of named ones the one called "default"),
 * else the plain one. Throws CheckpointError TOKENIZER_INVALID, also for a template that cannot be rendered here.
 */
export async function loadChatTemplate(dir: string): Promise<ChatTemplate> {
  const config = await readJson(dir, 'tokenizer_config.json')
  const file = (await readJson(dir, 'tokenizer.json')) as TokenizerFile | undefined
  const controlTokens = file ? [...readSpecials(file, config ?? {}).controls.keys()] : []
  try {
    const source = (await readModelFile(dir, 'chat_template.jinja')) ?? sourceOf(config?.chat_template)
    if (source === undefined) return plainTemplate(controlTokens)
    const token = (name: string) => tokenText(config?.[name]) ?? ''
    return templateOf({ source, bosToken: token('bos_token'), eosToken: token('eos_token'), controlTokens })
  } catch (cause) {
    throw new CheckpointError('TOKENIZER_INVALID', {
      what: `the chat template of ${dir} cannot be used`,
      expected: 'a Jinja template in chat_template.jinja or tokenizer_config.json',
      actual: cause instanceof Error ? cause.message : String(cause),
      remedy: 'Fetch the file again, or remove the template: a plain one takes its place.',
      cause,
    })
  }
}

/** Undefined: none. */
function sourceOf(value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value === 'string') return value
  if (!Array.isArray(value)) throw new Error('chat_template is neither a text nor a list of named templates')
  const named = (value as { name?: unknown; template?: unknown }[]).find(({ name }) => name === 'default') ?? value[0]
  if (typeof named?.template !== 'string') throw new Error('chat_template is a list without a template called "default"')
  return named.template
}

/** Throws what is wrong with a template, or what of it cannot be rendered here. */
export function templateOf(source: TemplateSource): ChatTemplate {
  const template = new PythonTemplate(source.source)
  // Python's caller passes None for what there is not.
  const constants = { bos_token: source.bosToken, eos_token: source.eosToken, add_generation_prompt: true, tools: null, documents: null }
  const contextOf = (options: TemplateOptions, variables: TemplateOptions['variables']) => ({
    ...constants,
    ...variables,
    add_generation_prompt: generationPrompt(options),
  })
  return {
    origin: 'checkpoint',
    render: (messages) => template.render({ ...constants, messages }),
    prompt: async (messages, options = {}, tools = []) => {
      const { mark, marked } = markControls({ messages, variables: options.variables, tools }, source.controlTokens ?? [])
      const context = { ...contextOf(options, marked.variables), ...(tools.length > 0 && { tools: marked.tools }) }
      const text = await openEnded(marked.messages, options, (list) =>
        renderInThread({ source: source.source, context: { ...context, messages: list } }),
      )
      return { text, mark }
    },
    stop: [],
    source,
  }
}

function generationPrompt({ addGenerationPrompt, continueFinalMessage = false }: TemplateOptions): boolean {
  return addGenerationPrompt ?? !continueFinalMessage
}

/**
 * The rendered messages; with continueFinalMessage up to the end of the last one, which is found by a tag behind its content. A template that
 * trims the content takes the blank from the tag, and the text is trimmed likewise. Rejects with RequestError TEMPLATE_FAILED.
 */
async function openEnded(
  messages: readonly TemplateMessage[],
  { continueFinalMessage = false }: TemplateOptions,
  render: (messages: readonly TemplateMessage[]) => Promise<string>,
): Promise<string> {
  const last = messages.at(-1)
  if (!continueFinalMessage || last === undefined) return render(messages)
  const tag = `\u{f5c1b}${randomBytes(9).toString('base64url')}\u{f5c1b}`
  const text = await render([...messages.slice(0, -1), { ...last, content: `${last.content}${tag} ` }])
  const at = text.lastIndexOf(tag)
  if (at < 0) {
    throw new RequestError('TEMPLATE_FAILED', {
      what: 'the last message cannot be continued',
      expected: "the message's text in the rendered prompt",
      actual: "the model's chat template leaves it out",
      remedy: 'Send the conversation without continuing its last message.',
    })
  }
  const kept = text.slice(0, at)
  return text[at + tag.length] === ' ' ? kept : kept.trimEnd()
}

/** Puts a mark that nobody can guess into every control token that a text of the messages contains. */
function markControls<T>(value: T, controlTokens: readonly string[]): { mark: string; marked: T } {
  const mark = `\u{f5c1a}${randomBytes(9).toString('base64url')}\u{f5c1a}`
  const tokens = controlTokens.filter((token) => token !== '')
  const visit = (part: unknown): unknown => {
    if (typeof part === 'string') {
      return tokens.reduce((text, token) => {
        const [first = ''] = token
        return text.includes(token) ? text.replaceAll(token, `${first}${mark}${token.slice(first.length)}`) : text
      }, part)
    }
    if (Array.isArray(part)) return part.map(visit)
    if (typeof part === 'object' && part !== null) return Object.fromEntries(Object.entries(part).map(([key, item]) => [visit(key), visit(item)]))
    return part
  }
  return { mark, marked: visit(value) as T }
}

async function readJson(dir: string, name: string): Promise<Record<string, unknown> | undefined> {
  const text = await readModelFile(dir, name)
  if (text === undefined) return undefined
  try {
    return parseJson(text) as Record<string, unknown>
  } catch (cause) {
    throw new CheckpointError('TOKENIZER_INVALID', {
      what: `${join(dir, name)} is not valid JSON`,
      expected: 'an object',
      actual: String(cause),
      remedy: 'Fetch the file again.',
      cause,
    })
  }
}
