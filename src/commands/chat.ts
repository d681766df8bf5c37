// tetrad chat: a conversation in the terminal. Ctrl-C stops the answer at hand; when there is none, or at the end of the input, it ends.
import { readFile, writeFile } from 'node:fs/promises'
import { createInterface } from 'node:readline/promises'
import { type Command, InvalidArgumentError } from 'commander'
import type { Engine } from '../engine/engine.js'
import { TetradError } from '../errors.js'
import { withoutByteOrderMark } from '../json.js'
import type { ChatMessage, ChatTemplate } from '../tokenizer/chat-template.js'
import { type EngineFlags, given, number, withModelFlag } from './flags.js'
import { interruption, loadEngine } from './progress.js'

interface ChatFlags extends EngineFlags {
  model: string
  system?: string
  maxTokens: number
  temperature: number
  seed?: number
}

const HELP = '/save FILE and /load FILE keep and bring back the conversation, /reset begins anew, /exit or Ctrl-D ends; Ctrl-C stops an answer'

export function addChat(program: Command): void {
  withModelFlag(program.command('chat').description('a conversation in the terminal'))
    .option('--system <text>', 'what the model is told first')
    .option('--max-tokens <n>', 'most tokens of an answer', number, 512)
    .option('--temperature <t>', '0 is greedy', number, 0.7)
    .option('--seed <n>', 'makes answers repeatable', number)
    .action(chat)
}

async function chat(flags: ChatFlags): Promise<void> {
  if (flags.json) throw new InvalidArgumentError('chat has no --json.')
  const { loadChatTemplate } = await import('../tokenizer/chat-template.js')
  const engine = await loadEngine(flags.model, flags, interruption())
  try {
    await new Conversation(engine, await loadChatTemplate(flags.model), flags).run()
  } finally {
    await engine.close()
  }
}

class Conversation {
  readonly #engine: Engine
  readonly #template: ChatTemplate
  readonly #flags: ChatFlags
  #messages: ChatMessage[]
  #answering: AbortController | undefined

  constructor(engine: Engine, template: ChatTemplate, flags: ChatFlags) {
    this.#engine = engine
    this.#template = template
    this.#flags = flags
    this.#messages = this.#first()
  }

  async run(): Promise<void> {
    const terminal = process.stdin.isTTY === true
    const lines = createInterface({ input: process.stdin, output: process.stderr, terminal, prompt: terminal ? '> ' : '' })
    const stop = () => {
      if (this.#answering) this.#answering.abort()
      else lines.close()
    }
    lines.on('SIGINT', stop)
    // Without a terminal the signal comes to the process.
    process.on('SIGINT', stop)
    console.error(HELP)
    lines.prompt()
    try {
      for await (const line of lines) {
        const text = line.trim()
        if (text === '/exit') break
        try {
          if (text.startsWith('/')) await this.#command(text)
          else if (text !== '') await this.#answer(text)
        } catch (error) {
          if (!(error instanceof TetradError)) throw error
          console.error(`error ${error.code}: ${error.message}`)
        }
        lines.prompt()
      }
    } finally {
      process.off('SIGINT', stop)
      lines.close()
    }
  }

  #first(): ChatMessage[] {
    return this.#flags.system === undefined ? [] : [{ role: 'system', content: this.#flags.system }]
  }

  /** The turns before are in the prefix cache: only what is new is computed. */
  async #answer(text: string): Promise<void> {
    const messages: ChatMessage[] = [...this.#messages, { role: 'user', content: text }]
    const { maxTokens, temperature, seed } = this.#flags
    this.#answering = new AbortController()
    try {
      const params = { maxTokens, temperature, stop: this.#template.stop, signal: this.#answering.signal, ...given({ seed }) }
      const generation = this.#engine.generate(this.#template.render(messages), params)
      let answer = ''
      for await (const chunk of generation) {
        answer += chunk.text
        process.stdout.write(chunk.text)
      }
      const { usage, timings, finishReason } = await generation
      process.stdout.write('\n')
      const stopped = finishReason === 'abort' ? ', stopped' : ''
      console.error(
        `[${usage.completionTokens} tokens, ${timings.tokensPerSecond.toFixed(0)} tokens/s; ${usage.cachedTokens} of ${usage.promptTokens} prompt tokens were cached${stopped}]`,
      )
      // What was said stays, also of an answer that was stopped.
      this.#messages = [...messages, { role: 'assistant', content: answer.trim() }]
    } finally {
      this.#answering = undefined
    }
  }

  async #command(text: string): Promise<void> {
    const [name, ...rest] = text.split(' ')
    const path = rest.join(' ').trim()
    if (name === '/reset') this.#messages = this.#first()
    else if (name === '/save' && path !== '') await this.#save(path)
    else if (name === '/load' && path !== '') await this.#load(path)
    else console.error(HELP)
  }

  async #save(path: string): Promise<void> {
    try {
      await writeFile(path, `${JSON.stringify(this.#messages, null, 1)}\n`)
      console.error(`saved ${this.#messages.length} messages to ${path}`)
    } catch (error) {
      console.error(`error: ${path} could not be written: ${(error as Error).message}`)
    }
  }

  async #load(path: string): Promise<void> {
    try {
      const messages: unknown = JSON.parse(withoutByteOrderMark(await readFile(path, 'utf8')))
      if (!Array.isArray(messages) || !messages.every(isMessage)) throw new Error('it is no list of messages with role and content')
      this.#messages = messages.map(({ role, content }) => ({ role, content }))
      console.error(`${this.#messages.length} messages from ${path}`)
    } catch (error) {
      console.error(`error: ${path} could not be read: ${(error as Error).message}`)
    }
  }
}

function isMessage(value: unknown): value is ChatMessage {
  const { role, content } = (value ?? {}) as { role?: unknown; content?: unknown }
  return ['system', 'developer', 'user', 'assistant'].includes(role as string) && typeof content === 'string'
}
