// tetrad generate
import { writeFile } from 'node:fs/promises'
import { type Command, InvalidArgumentError } from 'commander'
import { formatProfile } from '../engine/profile.js'
import type { GenerateParams } from '../sampling/params.js'
import { type EngineFlags, given, ids, number, withModelFlag } from './flags.js'
import { interruption, loadEngine } from './progress.js'

/** SIGTERM lets the request run this long. */
const TERMINATE_MS = 5000

const DEFAULT_PROMPT = 'Once upon a time'

interface GenerateFlags extends EngineFlags {
  model: string
  promptIds?: number[]
  maxTokens?: number
  temperature?: number
  seed?: number
  ignoreEos?: boolean
  bos?: boolean
  profile?: string
  speculate?: number[]
}

export function addGenerate(program: Command): void {
  withModelFlag(
    program
      .command('generate')
      .description('generate text from a prompt')
      .argument('[prompt]', `default: ${JSON.stringify(DEFAULT_PROMPT)}`),
  )
    .option('--prompt-ids <ids>', 'token ids instead of a text: 1,2,3', ids)
    .option('--max-tokens <n>', 'most tokens to generate (default: 256)', number)
    .option('--temperature <t>', '0 is greedy (default: 0)', number)
    .option('--seed <n>', 'makes sampling repeatable', number)
    .option('--ignore-eos', 'go on past the end of text')
    .option('--bos', 'put <|endoftext|> before the prompt')
    .option('--speculate <ngram,max>', 'guess up to max tokens from what followed the last ngram tokens before: 3,8', ids)
    .option('--profile <file>', 'print where the time went on stderr, and write a Chrome trace for Perfetto')
    .action(generate)
}

async function generate(prompt: string | undefined, flags: GenerateFlags): Promise<void> {
  const signal = interruption()
  if (prompt !== undefined && flags.promptIds !== undefined) throw new InvalidArgumentError('Give a prompt or --prompt-ids, not both.')
  const engine = await loadEngine(flags.model, flags, signal, flags.profile !== undefined)
  process.once('SIGTERM', () => void engine.close({ drainMs: TERMINATE_MS }))
  try {
    const { maxTokens, temperature, seed, ignoreEos, bos } = flags
    const [ngram, most] = flags.speculate ?? []
    const speculate = flags.speculate && { ngram: ngram as number, maxTokens: most as number }
    const params: GenerateParams = { signal, ...given({ maxTokens, temperature, seed, ignoreEos, bos, speculate }) }
    const prompted = flags.promptIds ?? prompt ?? DEFAULT_PROMPT
    const generation = engine.generate(prompted, params)
    let first = true
    for await (const chunk of generation) {
      if (flags.json) continue
      // The prompt is echoed once it was accepted.
      if (first && typeof prompted === 'string') process.stdout.write(prompted)
      first = false
      process.stdout.write(engine.info.hasTokenizer ? chunk.text : `${chunk.tokens.join(' ')} `)
    }
    const { text, tokens, finishReason, usage, timings } = await generation
    const { ranks, backend, loadMs } = engine.info
    if (flags.json) {
      const { promptTokens, completionTokens } = usage
      const result = { text, tokens, finishReason, usage: { promptTokens, completionTokens }, ranks, backend, timings: { loadMs, ...timings } }
      console.log(JSON.stringify(result))
    } else {
      process.stdout.write('\n')
      console.error(`${tokens.length} tokens, ${timings.tokensPerSecond.toFixed(0)} tokens/s, ${ranks} ranks, ${backend}, finished: ${finishReason}`)
    }
    if (flags.profile !== undefined) {
      const profile = engine.profile()
      console.error(formatProfile(profile))
      await writeFile(flags.profile, JSON.stringify(profile.trace))
    }
    if (finishReason === 'abort') process.exitCode = 130
  } finally {
    await engine.close()
  }
}
