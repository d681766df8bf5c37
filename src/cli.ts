#!/usr/bin/env node
// The tetrad command. stdout carries the text or one line of JSON; progress and everything else go to stderr.
import { fileURLToPath } from 'node:url'
import { SingleBar } from 'cli-progress'
import { Command, CommanderError, InvalidArgumentError } from 'commander'
import { assetUrl } from './assets.js'
import type { EngineOptions } from './config/engine-options.js'
import { Engine } from './engine/engine.js'
import { TetradError } from './errors.js'
import { formatInspection } from './format-inspection.js'
import { inspect } from './inspect.js'
import type { GenerateParams } from './sampling/params.js'
import { VERSION } from './version.js'

const DEFAULT_MODEL = fileURLToPath(assetUrl('models/tiny'))
/** SIGTERM lets the request run this long. */
const TERMINATE_MS = 5000

const DEFAULT_PROMPT = 'Once upon a time'

interface EngineFlags {
  ranks: 'auto' | number
  backend: string
  weights: string
  cache: string
  json?: boolean
}

interface GenerateFlags extends EngineFlags {
  model: string
  promptIds?: number[]
  maxTokens?: number
  temperature?: number
  seed?: number
  ignoreEos?: boolean
}

function number(text: string): number {
  const value = Number(text)
  if (text.trim() === '' || Number.isNaN(value)) throw new InvalidArgumentError('It must be a number.')
  return value
}

function ranks(text: string): 'auto' | number {
  return text === 'auto' ? text : number(text)
}

function ids(text: string): number[] {
  return text.split(',').map(number)
}

function engineOptions(flags: EngineFlags): EngineOptions {
  const { ranks, backend, weights, cache } = flags
  // Engine.load checks the values; the cast only lets them through to it.
  return { ranks, backend, weights, cache } as EngineOptions
}

function withEngineFlags(command: Command): Command {
  return command
    .option('--ranks <n>', 'worker threads that share the model: auto, 1, 2 or 4', ranks, 'auto')
    .option('--backend <name>', 'auto, wasm or reference (float64, slow)', 'auto')
    .option('--weights <format>', 'weights in memory: auto (as stored), f32 or bf16', 'auto')
    .option('--cache <format>', 'cached latents: f32 or bf16', 'f32')
    .option('--json', 'print one line of JSON on stdout and nothing else there')
}

async function generate(prompt: string | undefined, flags: GenerateFlags): Promise<void> {
  const interrupt = new AbortController()
  const onInterrupt = () => interrupt.abort()
  process.once('SIGINT', onInterrupt)
  if (prompt !== undefined && flags.promptIds !== undefined) {
    throw new InvalidArgumentError('Give a prompt or --prompt-ids, not both.')
  }
  const bar = process.stderr.isTTY
    ? new SingleBar({ stream: process.stderr, format: 'loading {bar} {percentage}%', clearOnComplete: true, hideCursor: true })
    : undefined
  let started = false
  const engine = await Engine.load(flags.model, {
    ...engineOptions(flags),
    signal: interrupt.signal,
    onProgress: ({ loadedBytes, totalBytes }) => {
      if (!started) bar?.start(totalBytes, 0)
      started = true
      bar?.update(loadedBytes)
      if (loadedBytes === totalBytes) bar?.stop()
    },
  }).finally(() => bar?.stop())
  process.once('SIGTERM', () => void engine.close({ drainMs: TERMINATE_MS }))
  if (!flags.json) {
    const { loadMs, memoryBytes, cacheTokens } = engine.info
    console.error(`loaded in ${loadMs.toFixed(0)} ms: ${(memoryBytes / 2 ** 20).toFixed(0)} MiB, with a cache for ${cacheTokens} tokens`)
  }
  try {
    const { maxTokens, temperature, seed, ignoreEos } = flags
    const params: GenerateParams = { signal: interrupt.signal }
    if (maxTokens !== undefined) params.maxTokens = maxTokens
    if (temperature !== undefined) params.temperature = temperature
    if (seed !== undefined) params.seed = seed
    if (ignoreEos !== undefined) params.ignoreEos = ignoreEos
    const given = flags.promptIds ?? prompt ?? DEFAULT_PROMPT
    const generation = engine.generate(given, params)
    let first = true
    for await (const chunk of generation) {
      if (flags.json) continue
      // The prompt is echoed once it was accepted.
      if (first && typeof given === 'string') process.stdout.write(given)
      first = false
      process.stdout.write(engine.info.hasTokenizer ? chunk.text : `${chunk.tokens.join(' ')} `)
    }
    const { text, tokens, finishReason, usage, timings } = await generation
    if (flags.json) {
      const { ranks, backend, loadMs } = engine.info
      console.log(
        JSON.stringify({
          text,
          tokens,
          finishReason,
          usage: { promptTokens: usage.promptTokens, completionTokens: usage.completionTokens },
          ranks,
          backend,
          timings: { loadMs, ...timings },
        }),
      )
    } else {
      process.stdout.write('\n')
      const { ranks, backend } = engine.info
      console.error(`${tokens.length} tokens, ${timings.tokensPerSecond.toFixed(0)} tokens/s, ${ranks} ranks, ${backend}, finished: ${finishReason}`)
    }
    if (finishReason === 'abort') process.exitCode = 130
  } finally {
    await engine.close()
  }
}

async function inspectModel(dir: string | undefined, flags: EngineFlags): Promise<void> {
  const result = await inspect(dir ?? DEFAULT_MODEL, engineOptions(flags))
  console.log(flags.json ? JSON.stringify(result) : formatInspection(result))
}

const program = new Command('tetrad')
  .description('Decodes MLRA language models by tensor parallelism over worker threads.')
  .version(VERSION)
  .exitOverride()
  .configureOutput({ writeOut: (text) => process.stdout.write(text), writeErr: (text) => process.stderr.write(text) })

withEngineFlags(
  program
    .command('generate')
    .description('generate text from a prompt')
    .argument('[prompt]', `default: ${JSON.stringify(DEFAULT_PROMPT)}`),
)
  .option('--model <dir>', 'model directory', DEFAULT_MODEL)
  .option('--prompt-ids <ids>', 'token ids instead of a text: 1,2,3', ids)
  .option('--max-tokens <n>', 'most tokens to generate (default: 256)', number)
  .option('--temperature <t>', '0 is greedy (default: 0)', number)
  .option('--seed <n>', 'makes sampling repeatable', number)
  .option('--ignore-eos', 'go on past the end of text')
  .action(generate)

withEngineFlags(
  program
    .command('inspect')
    .description('show what a model is and how it would run')
    .argument('[dir]', 'model directory; default: the embedded model'),
).action(inspectModel)

/** Interrupted while loading: what was asked for did not happen, and the user knows why. */
function exitCode(error: unknown): number {
  if (error instanceof TetradError && error.code === 'LOAD_ABORTED') return 130
  return 1
}

function report(error: unknown): void {
  if (error instanceof TetradError) {
    const lines = [`error ${error.code}: ${error.what}`]
    if (error.expected) lines.push(`  expected: ${error.expected}`)
    if (error.actual) lines.push(`  actual:   ${error.actual}`)
    lines.push(`  remedy:   ${error.remedy}`)
    console.error(lines.join('\n'))
  } else {
    console.error(`error: ${error instanceof Error ? error.message : String(error)}`)
  }
}

// A reader that closed the pipe (head, say) is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  throw error
})

try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) {
    // Help and version end here too, with 0; commander has printed its message.
    if (error instanceof InvalidArgumentError) console.error(`error: ${error.message}`)
    process.exitCode = error.exitCode === 0 ? 0 : 1
  } else {
    report(error)
    process.exitCode = exitCode(error)
  }
}
