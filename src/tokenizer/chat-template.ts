// A conversation as a prompt: by the checkpoint's own template (Jinja, as Hugging Face writes it), else a plain one.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Template } from '@huggingface/jinja'
import { CheckpointError } from '../errors.js'
import { parseJson } from '../json.js'

export interface ChatMessage {
  readonly role: 'system' | 'developer' | 'user' | 'assistant'
  readonly content: string
}

export interface ChatTemplate {
  /** 'checkpoint' or 'plain'. */
  readonly origin: 'checkpoint' | 'plain'
  /** The prompt after which the assistant's answer is written. */
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
}

const NAMES = { system: 'System', developer: 'System', user: 'User', assistant: 'Assistant' } as const

/** "User: ...\nAssistant: ...\n" and so on; an answer ends where the user's next line would begin. */
export const PLAIN: ChatTemplate = {
  origin: 'plain',
  render: (messages) => `${messages.map(({ role, content }) => `${NAMES[role]}: ${content}\n`).join('')}Assistant:`,
  stop: ['\nUser:', '\nSystem:'],
}

/** Of `dir`/chat_template.jinja, else of tokenizer_config.json's chat_template, else the plain one. Throws CheckpointError TOKENIZER_INVALID. */
export async function loadChatTemplate(dir: string): Promise<ChatTemplate> {
  const config = await readJson(join(dir, 'tokenizer_config.json'))
  const source = (await readText(join(dir, 'chat_template.jinja'))) ?? config?.chat_template
  if (source === undefined) return PLAIN
  try {
    if (typeof source !== 'string') throw new Error('chat_template is no text')
    const token = (name: string) =>
      typeof config?.[name] === 'string' ? config[name] : ((config?.[name] as { content?: string } | undefined)?.content ?? '')
    return templateOf({ source, bosToken: token('bos_token'), eosToken: token('eos_token') })
  } catch (cause) {
    throw new CheckpointError('TOKENIZER_INVALID', {
      what: `the chat template of ${dir} cannot be used`,
      expected: 'a Jinja template in chat_template.jinja or tokenizer_config.json',
      actual: cause instanceof Error ? cause.message : String(cause),
      remedy: 'Fetch the file again, or remove the template.',
      cause,
    })
  }
}

/** Throws what Jinja does about a wrong template. */
export function templateOf(source: TemplateSource): ChatTemplate {
  const template = new Template(source.source)
  const constants = { bos_token: source.bosToken, eos_token: source.eosToken, add_generation_prompt: true }
  return {
    origin: 'checkpoint',
    render: (messages) => template.render({ ...constants, messages: messages.map((message) => ({ ...message })) }),
    stop: [],
    source,
  }
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
      what: `${path} is no JSON`,
      expected: 'an object',
      actual: String(cause),
      remedy: 'Fetch the file again.',
      cause,
    })
  }
}
