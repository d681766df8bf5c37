// A conversation as a prompt: by the checkpoint's own template (Jinja, as Hugging Face writes it), else a plain one.
import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CheckpointError } from '../errors.js'
import { parseJson } from '../json.js'
import { PythonTemplate } from './template/python-jinja.js'
import { renderInThread } from './template/render-pool.js'
import { readSpecials, type TokenizerFile, tokenText } from './tokenizer-file.js'
import type { MarkedText } from './tokenizer-interface.js'

/** One message of a conversation. */
export interface ChatMessage {
  readonly role: 'system' | 'developer' | 'user' | 'assistant'
  readonly content: string
}

export interface ChatTemplate {
  readonly origin: 'checkpoint' | 'plain'
  /**
   * The prompt after which the assistant's answer is written, for the tokenizer: a control token that a message contains stays
   * text. Rendered in a thread of its own with bounded time and memory. Rejects with RequestError TEMPLATE_FAILED.
   */
  prompt(messages: readonly ChatMessage[]): Promise<MarkedText>
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

const NAMES = { system: 'System', developer: 'System', user: 'User', assistant: 'Assistant' } as const

/** "User: ...\nAssistant: ...\n" and so on; an answer ends where the user's next line would begin. */
export const PLAIN: ChatTemplate = plainTemplate([])

/** controlTokens: texts of the tokenizer's control tokens, which stay text inside a message. */
export function plainTemplate(controlTokens: readonly string[]): ChatTemplate {
  const render = (messages: readonly ChatMessage[]) => `${messages.map(({ role, content }) => `${NAMES[role]}: ${content}\n`).join('')}Assistant:`
  return {
    origin: 'plain',
    render,
    prompt: async (messages) => {
      const { mark, marked } = markControls(messages, controlTokens)
      return { text: render(marked), mark }
    },
    stop: ['\nUser:', '\nSystem:'],
  }
}

/**
 * Of `dir`/chat_template.jinja, else of tokenizer_config.json's chat_template (of a list of named ones the one called "default"),
 * else the plain one. Throws CheckpointError TOKENIZER_INVALID, also for a template that cannot be rendered here.
 */
export async function loadChatTemplate(dir: string): Promise<ChatTemplate> {
  const config = await readJson(join(dir, 'tokenizer_config.json'))
  const file = (await readJson(join(dir, 'tokenizer.json'))) as TokenizerFile | undefined
  const controlTokens = file ? [...readSpecials(file, config ?? {}).controls.keys()] : []
  try {
    const source = (await readText(join(dir, 'chat_template.jinja'))) ?? sourceOf(config?.chat_template)
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
  return {
    origin: 'checkpoint',
    render: (messages) => template.render({ ...constants, messages }),
    prompt: async (messages) => {
      const { mark, marked } = markControls(messages, source.controlTokens ?? [])
      return { text: await renderInThread({ source: source.source, context: { ...constants, messages: marked } }), mark }
    },
    stop: [],
    source,
  }
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
    if (typeof part === 'object' && part !== null) return Object.fromEntries(Object.entries(part).map(([key, item]) => [key, visit(item)]))
    return part
  }
  return { mark, marked: visit(value) as T }
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

async function readJson(path: string): Promise<Record<string, unknown> | undefined> {
  const text = await readText(path)
  if (text === undefined) return undefined
  try {
    return parseJson(text) as Record<string, unknown>
  } catch (cause) {
    throw new CheckpointError('TOKENIZER_INVALID', {
      what: `${path} is not valid JSON`,
      expected: 'an object',
      actual: String(cause),
      remedy: 'Fetch the file again.',
      cause,
    })
  }
}
