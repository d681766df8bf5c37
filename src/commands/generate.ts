// tetrad generate
import { writeFile } from 'node:fs/promises'
import type { Command } from 'commander'
import type { Engine } from '../engine/engine.js'
import type { Completion } from '../engine/generation.js'
import type { Prompt } from '../engine/prompts.js'
import { formatProfile } from '../engine/ranks/profile.js'
import { invalidOption } from '../options/check.js'
import { GENERATE_PARAMS } from '../options/generate-params.js'
import type { GenerateManyParams } from '../options/public-types.js'
import { engineOptions, generateParams, ids, type ModelFlags, withFlags, withLoraFlag, withModelFlag } from './flags.js'
import { commandModel } from './local-model.js'
import { interruption, loadEngine } from './progress.js'
import { checkPrompt, DEFAULT_PROMPT, readPrompt } from './prompt-input.js'

/** SIGTERM lets the request run this long. */
const TERMINATE_MS = 5000

interface GenerateFlags extends ModelFlags {
  readonly promptIds?: number[]
  readonly promptFile?: string
  readonly profile?: string
}

export function addGenerate(program: Command): void {
  const command = withModelFlag(
    program
      .command('generate')
      .description('generate text from a prompt')
      .argument('[prompt]', `the prompt; - reads it from stdin, as does a pipe without this argument (default: ${JSON.stringify(DEFAULT_PROMPT)})`),
  )
    .option('--prompt-ids <ids>', 'token ids instead of a text: 1,2,3', ids)
    .option('--prompt-file <file>', 'read the prompt from a file')
  withFlags(withLoraFlag(command), GENERATE_PARAMS)
    .option('--profile <file>', 'print where the time went on stderr, and write a Chrome trace for Perfetto')
    .action(generate)
}

async function generate(argument: string | undefined, flags: GenerateFlags): Promise<void> {
  const signal = interruption()
  // Everything is checked before the model is loaded; once more when its vocabulary is known.
  engineOptions(flags)
  generateParams(flags)
  for (const name of ['logprobs', 'promptLogprobs'] as const) if (flags[name] !== undefined && !flags.json) throw needsJson(name)
  const prompt = await readPrompt(argument, flags)
  const model = await commandModel(flags.model, signal, flags.json)
  const params = generateParams(flags, await checkPrompt(model, prompt))
  const engine = await loadEngine(model, flags, signal, flags.profile !== undefined)
  process.once('SIGTERM', () => void engine.close({ drainMs: TERMINATE_MS }))
  try {
    const run = flags.n === undefined ? one : many
    const aborted = await run(engine, prompt, { ...params, signal }, flags.json === true)
    if (flags.profile !== undefined) {
      const profile = engine.profile()
      console.error(formatProfile(profile))
      await writeFile(flags.profile, JSON.stringify(profile.trace))
    }
    if (aborted) process.exitCode = 130
  } finally {
    await engine.close()
  }
}

/** One completion, written as it comes. True if Ctrl-C ended it. */
async function one(engine: Engine, prompt: Prompt, params: GenerateManyParams, json: boolean): Promise<boolean> {
  const { n: _, ...single } = params
  const generation = engine.generate(prompt, single)
  let first = true
  for await (const chunk of generation) {
    if (json) continue
    // The prompt is echoed once it was accepted.
    if (first && typeof prompt === 'string') process.stdout.write(prompt)
    first = false
    process.stdout.write(engine.info.hasTokenizer ? chunk.text : `${chunk.tokens.join(' ')} `)
  }
  const completion = await generation
  const { ranks, backend, loadMs } = engine.info
  const { tokens, finishReason, timings } = completion
  if (json) console.log(JSON.stringify({ ...forJson(completion), ranks, backend, timings: { loadMs, ...timings } }))
  else {
    process.stdout.write('\n')
    console.error(`${tokens.length} tokens, ${timings.tokensPerSecond.toFixed(0)} tokens/s, ${ranks} ranks, ${backend}, finished: ${finishReason}`)
  }
  return finishReason === 'abort'
}

/** n completions, written one after the other when all have ended. True if Ctrl-C ended one. */
async function many(engine: Engine, prompt: Prompt, params: GenerateManyParams, json: boolean): Promise<boolean> {
  const completions = await engine.generateMany([prompt], params)
  const { ranks, backend, loadMs } = engine.info
  if (json) {
    const choices = completions.map((completion) => ({ ...forJson(completion), timings: completion.timings }))
    console.log(JSON.stringify({ completions: choices, ranks, backend, timings: { loadMs } }))
  } else {
    const lead = typeof prompt === 'string' ? prompt : ''
    const bodies = completions.map(({ text, tokens }, i) => `[${i + 1}] ${lead}${engine.info.hasTokenizer ? text : tokens.join(' ')}\n`)
    process.stdout.write(bodies.join('\n'))
    console.error(`${completions.length} completions, ${ranks} ranks, ${backend}`)
  }
  return completions.some(({ finishReason }) => finishReason === 'abort')
}

function forJson({ text, tokens, finishReason, stoppedBy, logprobs, promptLogprobs, usage }: Completion): object {
  const { promptTokens, completionTokens, draftedTokens, acceptedTokens } = usage
  return {
    text,
    tokens,
    finishReason,
    ...(stoppedBy !== undefined && { stoppedBy }),
    ...(logprobs && { logprobs }),
    ...(promptLogprobs && { promptLogprobs }),
    usage: { promptTokens, completionTokens, ...(draftedTokens !== undefined && { draftedTokens, acceptedTokens }) },
  }
}

function needsJson(name: 'logprobs' | 'promptLogprobs'): Error {
  const option = name === 'logprobs' ? '--logprobs' : '--prompt-logprobs'
  return invalidOption({ what: `${option} needs --json`, expected: '--json', actual: 'text output', remedy: 'Add --json.', option })
}
