// tetrad chat: a conversation in the terminal. Ctrl-C stops the answer that is being written; otherwise it clears the line, and a second one
// ends the program, as the end of the input does.
import { readFile, writeFile } from 'node:fs/promises'
import { createInterface } from 'node:readline/promises'
import { type Command, InvalidArgumentError } from 'commander'
import type { Engine } from '../engine/engine.js'
import { TetradError } from '../errors.js'
import { withoutByteOrderMark } from '../json.js'
import { GENERATE_PARAMS } from '../options/generate-params.js'
import type { GenerateParams } from '../options/public-types.js'
import type { ChatMessage } from '../tokenizer/chat-template.js'
import { engineOptions, generateParams, inFlags, type ModelFlags, withFlags, withLoraFlag, withModelFlag } from './flags.js'
import { interruption, loadEngine } from './progress.js'
import { SoftWrap } from './soft-wrap.js'

interface ChatFlags extends ModelFlags {
  readonly system?: string
}

const HELP =
  '/save FILE and /load FILE write and read the conversation, /reset begins a new one, /exit or Ctrl-D ends; Ctrl-C stops an answer or clears the line, twice ends'

/** Of the parameters those that a conversation can show the effect of, with defaults of its own. */
const { n: _n, logprobs: _logprobs, promptLogprobs: _promptLogprobs, bos: _bos, ...CHAT_PARAMS } = GENERATE_PARAMS
const DEFAULTS = { maxTokens: 512, temperature: 0.7 }

export function addChat(program: Command): void {
  const command = withModelFlag(program.command('chat').description('a conversation in the terminal')).option(
    '--system <text>',
    'what the model is told first',
  )
  withFlags(withLoraFlag(command), CHAT_PARAMS, DEFAULTS).action(chat)
}

async function chat(flags: ChatFlags): Promise<void> {
  if (flags.json) throw new InvalidArgumentError('chat has no --json.')
  engineOptions(flags)
  const params = { ...DEFAULTS, ...generateParams(flags) }
  const engine = await loadEngine(flags.model, flags, interruption())
  try {
    await new Conversation(engine, params, flags.system).run()
  } finally {
    await engine.close()
  }
}

class Conversation {
  readonly #engine: Engine
  readonly #params: GenerateParams
  readonly #system: string | undefined
  #messages: ChatMessage[]
  #answering: AbortController | undefined
  /** Ctrl-C was pressed once and nothing was entered since. */
  #leaving = false

  constructor(engine: Engine, params: GenerateParams, system: string | undefined) {
    this.#engine = engine
    this.#params = params
    this.#system = system
    this.#messages = this.#first()
  }

  async run(): Promise<void> {
    const terminal = process.stdin.isTTY === true
    const lines = createInterface({ input: process.stdin, output: process.stderr, terminal, prompt: terminal ? '> ' : '' })
    const stop = () => {
      if (this.#answering) this.#answering.abort()
      else if (this.#leaving) lines.close()
      else {
        this.#leaving = true
        if (terminal) {
          // To the end of the line, and from there to its beginning.
          lines.write(null, { ctrl: true, name: 'e' })
          lines.write(null, { ctrl: true, name: 'u' })
        }
        console.error('\n(Ctrl-C again ends)')
        lines.prompt()
      }
    }
    lines.on('SIGINT', stop)
    // Without a terminal the signal comes to the process.
    process.on('SIGINT', stop)
    console.error(HELP)
    lines.prompt()
    try {
      for await (const line of lines) {
        this.#leaving = false
        const text = line.trim()
        if (text === '/exit') break
        try {
          if (text.startsWith('/')) await this.#command(text)
          else if (text !== '') await this.#answer(text)
        } catch (error) {
          if (!(error instanceof TetradError)) throw error
          console.error(this.#explain(error))
        }
        lines.prompt()
      }
    } finally {
      process.off('SIGINT', stop)
      lines.close()
    }
  }

  #first(): ChatMessage[] {
    return this.#system === undefined ? [] : [{ role: 'system', content: this.#system }]
  }

  #explain(error: TetradError): string {
    if (error.code !== 'PROMPT_TOO_LONG') return `error ${error.code}: ${inFlags(error.message)}`
    const { contextTokens } = this.#engine.info
    return `the conversation no longer fits the context of ${contextTokens} tokens: /reset begins a new one, /save FILE keeps this one (a larger --max-context is set at the start)`
  }

  /** The turns before are in the prefix cache: only what is new is computed. */
  async #answer(text: string): Promise<void> {
    const messages: ChatMessage[] = [...this.#messages, { role: 'user', content: text }]
    this.#answering = new AbortController()
    try {
      const generation = this.#engine.chat(messages, { ...this.#params, signal: this.#answering.signal })
      const wrap = new SoftWrap((process.stdout.isTTY && process.stdout.columns) || Number.POSITIVE_INFINITY)
      let answer = ''
      for await (const chunk of generation) {
        answer += chunk.text
        process.stdout.write(wrap.push(chunk.text))
      }
      const { usage, timings, finishReason } = await generation
      process.stdout.write(`${wrap.flush()}\n`)
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
      if (!Array.isArray(messages) || !messages.every(isMessage)) throw new Error('it is not a list of messages with role and content')
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
