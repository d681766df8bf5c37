// tetrad eval perplexity, tetrad eval multiple-choice
import type { Command } from 'commander'
import type { Engine } from '../engine/engine.js'
import { int } from '../options/entry.js'
import { checkFlags, engineOptions, given, type ModelFlags, withFlags, withModelFlag } from './flags.js'
import { type Bar, interruption, loadEngine, progressBar } from './progress.js'
import { readable } from './readable.js'

const PERPLEXITY_FLAGS = {
  blockSize: int({ min: 1, max: Number.MAX_SAFE_INTEGER, default: undefined, defaultText: "the model's block_size", doc: 'tokens of a window' }),
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
      .argument('<tokens>', 'file of tokens: headerless little-endian uint16 (.bin)'),
  )
  withFlags(perplexityCommand, PERPLEXITY_FLAGS).action(perplexity)
  withModelFlag(
    evaluate
      .command('multiple-choice')
      .description('accuracy by the log-likelihood of choices')
      .argument('<items>', 'JSONL file: query, choices, gold'),
  )
    .option('--bos', 'put <|endoftext|> before every query')
    .action(multipleChoice)
}

async function perplexity(path: string, flags: ModelFlags): Promise<void> {
  const { blockSize, windows } = checkFlags(PERPLEXITY_FLAGS, flags)
  await withEngine(path, flags, 'windows', async (engine, signal, bar) => {
    const onProgress = ({ done, total }: { done: number; total: number }) => bar.update(done, total)
    const result = await engine.perplexity(path, { ...given({ blockSize, windows }), onProgress, signal })
    bar.stop()
    if (flags.json) console.log(JSON.stringify(result))
    else {
      const { meanLoss, perplexity, windows: n, windowLosses } = result
      console.log(windowLosses.map((loss, i) => `window ${String(i).padEnd(5)} loss ${loss.toFixed(4)}`).join('\n'))
      console.log(`mean loss ${meanLoss.toFixed(5)}, perplexity ${perplexity.toFixed(3)}, ${n} windows`)
    }
  })
}

async function multipleChoice(path: string, flags: MultipleChoiceFlags): Promise<void> {
  await withEngine(path, flags, 'items', async (engine, signal, bar) => {
    const onProgress = ({ done, total }: { done: number; total: number }) => bar.update(done, total)
    const result = await engine.multipleChoice(path, { ...given({ bos: flags.bos }), onProgress, signal })
    bar.stop()
    if (flags.json) console.log(JSON.stringify(result))
    else {
      const share = (value: number, error: number) => `${value.toFixed(4)} +- ${error.toFixed(4)}`
      console.log(
        `acc ${share(result.acc, result.acc_stderr)}, acc_norm ${share(result.acc_norm, result.acc_norm_stderr)}, ${result.items.length} items`,
      )
    }
  })
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
