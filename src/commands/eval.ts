// tetrad eval perplexity, tetrad eval multiple-choice
import type { Command } from 'commander'
import type { Engine } from '../engine/engine.js'
import { type MultipleChoiceResult, multipleChoiceOf, type ScoredItem } from '../evaluation/multiple-choice.js'
import { type PerplexityResult, perplexityOf } from '../evaluation/perplexity.js'
import { int } from '../options/entry.js'
import { checkFlags, engineOptions, given, loraOf, type ModelFlags, withFlags, withLoraFlag, withModelFlag } from './flags.js'
import { type Bar, interruption, loadEngine, progressBar } from './progress.js'
import { readable } from './readable.js'

const PERPLEXITY_FLAGS = {
  blockSize: int({ min: 1, max: Number.MAX_SAFE_INTEGER, default: undefined, defaultText: "the model's block_size", doc: 'tokens of a window' }),
  firstToken: int({ min: 0, max: Number.MAX_SAFE_INTEGER, default: 0, doc: 'token where the first window starts, counted without a header' }),
  windows: int({ min: 1, max: Number.MAX_SAFE_INTEGER, default: undefined, defaultText: 'all', doc: 'windows to take' }),
}

interface MultipleChoiceFlags extends ModelFlags {
  readonly bos?: boolean
}

export function addEval(program: Command): void {
  const evaluate = program.command('eval').description('evaluate a model')
  const perplexityCommand = withModelFlag(
    evaluate
      .command('perplexity')
      .description("perplexity by the authors' protocol")
      .argument('<tokens>', 'file of tokens: little-endian uint16 (.bin), with or without a header; tetrad tokenize makes one'),
  )
  withLoraFlag(withFlags(perplexityCommand, PERPLEXITY_FLAGS)).action(perplexity)
  withLoraFlag(
    withModelFlag(
      evaluate
        .command('multiple-choice')
        .description('accuracy by the log-likelihood of choices')
        .argument('<items>', 'JSONL file: query, choices, gold'),
    ),
  )
    .option('--bos', 'put <|endoftext|> before every query')
    .action(multipleChoice)
}

async function perplexity(path: string, flags: ModelFlags): Promise<void> {
  const { blockSize, windows, firstToken } = checkFlags(PERPLEXITY_FLAGS, flags)
  const losses: number[] = []
  const print = (result: PerplexityResult, isComplete: boolean) => {
    if (flags.json) console.log(JSON.stringify({ ...result, complete: isComplete }))
    else {
      const { meanLoss, perplexity, windows: n, windowLosses } = result
      console.log(windowLosses.map((loss, i) => `window ${String(i).padEnd(5)} loss ${loss.toFixed(4)}`).join('\n'))
      console.log(`mean loss ${meanLoss.toFixed(5)}, perplexity ${perplexity.toFixed(3)}, ${n} windows`)
    }
  }
  await withEngine(path, flags, 'windows', async (engine, signal, bar) => {
    const onWindow = (index: number, loss: number) => {
      losses[index] = loss
    }
    const result = await engine
      .perplexity(path, { ...given({ blockSize, windows, firstToken, lora: loraOf(flags) }), onProgress: progressOf(bar), onWindow, signal })
      .catch((error: unknown) => {
        bar.stop()
        // What was computed is not lost.
        const done = losses.filter((loss) => loss !== undefined)
        if (done.length > 0) print(perplexityOf(done), false)
        throw error
      })
    bar.stop()
    print(result, true)
  })
}

async function multipleChoice(path: string, flags: MultipleChoiceFlags): Promise<void> {
  const scored: ScoredItem[] = []
  const print = (result: MultipleChoiceResult, isComplete: boolean) => {
    const share = (value: number, error: number) => `${value.toFixed(4)} +- ${error.toFixed(4)}`
    if (flags.json) console.log(JSON.stringify({ ...result, complete: isComplete }))
    else {
      console.log(
        `acc ${share(result.acc, result.acc_stderr)}, acc_norm ${share(result.acc_norm, result.acc_norm_stderr)}, ${result.items.length} items`,
      )
    }
    if (result.truncated > 0) console.error(`${result.truncated} items are longer than the context: their queries were cut from the left`)
    for (const [i, { error }] of result.items.entries()) if (error !== undefined) console.error(`item ${i} was not scored: ${error}`)
  }
  await withEngine(path, flags, 'items', async (engine, signal, bar) => {
    const onItem = (index: number, item: ScoredItem) => {
      scored[index] = item
    }
    const result = await engine
      .multipleChoice(path, { ...given({ bos: flags.bos, lora: loraOf(flags) }), onProgress: progressOf(bar), onItem, signal })
      .catch((error: unknown) => {
        bar.stop()
        const done = scored.filter((item) => item !== undefined)
        if (done.length > 0) print(multipleChoiceOf(done), false)
        throw error
      })
    bar.stop()
    print(result, true)
  })
}

function progressOf(bar: Bar): (progress: { readonly done: number; readonly total: number }) => void {
  return ({ done, total }) => bar.update(done, total)
}

/** `path`: the file of the evaluation, which must be there before the model is loaded. */
async function withEngine(
  path: string,
  flags: ModelFlags,
  unit: string,
  run: (engine: Engine, signal: AbortSignal, bar: Bar) => Promise<void>,
): Promise<void> {
  const signal = interruption()
  engineOptions(flags)
  // One adapter at most: before the model is loaded.
  loraOf(flags)
  await readable(path)
  const engine = await loadEngine(flags.model, flags, signal)
  const bar = progressBar('evaluating', unit)
  try {
    await run(engine, signal, bar)
  } finally {
    bar.stop()
    await engine.close()
  }
}
