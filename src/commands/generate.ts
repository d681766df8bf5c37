// tetrad generate
import { writeFile } from 'node:fs/promises'
import { type Command, InvalidArgumentError } from 'commander'
import { formatProfile } from '../engine/ranks/profile.js'
import type { GenerateParams } from '../options/generate-params.js'
import { collect, type EngineFlags, given, ids, number, withModelFlag } from './flags.js'
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
  minTokens?: number
  topK?: number
  topP?: number
  minP?: number
  typicalP?: number
  repetitionPenalty?: number
  presencePenalty?: number
  frequencyPenalty?: number
  stop?: string[]
  stopTokenIds?: number[]
  logprobs?: number
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
    .option('--top-k <n>', 'sample among the n most likely tokens', number)
    .option('--top-p <p>', 'sample among the most likely tokens that together have this probability', number)
    .option('--min-p <p>', "leave out tokens less likely than this share of the most likely one's", number)
    .option('--typical-p <p>', 'sample among tokens of typical surprise that together have this probability', number)
    .option('--repetition-penalty <x>', 'divides the logits of tokens that were there before (default: 1)', number)
    .option('--presence-penalty <x>', 'taken from the logits of tokens of the output (default: 0)', number)
    .option('--frequency-penalty <x>', 'the same, for every time (default: 0)', number)
    .option('--min-tokens <n>', 'fewest tokens before the text may end (default: 0)', number)
    .option('--stop <text>', 'ends the text, and is not part of it; again for more', collect)
    .option('--stop-token-ids <ids>', 'token ids that end the text: 1,2,3', ids)
    .option('--logprobs <k>', 'with --json: how likely each token was, and the k most likely ones', number)
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
    const { minTokens, topK, topP, minP, typicalP, repetitionPenalty, presencePenalty, frequencyPenalty, stop, stopTokenIds, logprobs } = flags
    const filters = { minTokens, topK, topP, minP, typicalP, repetitionPenalty, presencePenalty, frequencyPenalty, stop, stopTokenIds, logprobs }
    const params: GenerateParams = { signal, ...given({ maxTokens, temperature, seed, ignoreEos, bos, speculate, ...filters }) }
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
    const { text, tokens, finishReason, stoppedBy, usage, timings, ...rest } = await generation
    const { ranks, backend, loadMs } = engine.info
    if (flags.json) {
      const { promptTokens, completionTokens } = usage
      const counted = { promptTokens, completionTokens }
      const more = given({ stoppedBy, logprobs: rest.logprobs })
      const result = { text, tokens, finishReason, ...more, usage: counted, ranks, backend, timings: { loadMs, ...timings } }
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
