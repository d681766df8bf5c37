// tetrad eval perplexity, tetrad eval multiple-choice
import type { Command } from 'commander'
import type { Engine } from '../engine/engine.js'
import { type EngineFlags, given, number, withModelFlag } from './flags.js'
import { type Bar, interruption, loadEngine, progressBar } from './progress.js'

interface PerplexityFlags extends EngineFlags {
  model: string
  blockSize?: number
  windows?: number
}

interface MultipleChoiceFlags extends EngineFlags {
  model: string
  bos?: boolean
}

export function addEval(program: Command): void {
  const evaluate = program.command('eval').description('evaluate a model')
  withModelFlag(
    evaluate
      .command('perplexity')
      .description("perplexity by the authors' protocol")
      .argument('<tokens>', 'file of tokens: headerless little-endian uint16 (.bin)'),
  )
    .option('--block-size <n>', "tokens of a window (default: the model's block_size)", number)
    .option('--windows <n>', 'windows to take (default: all)', number)
    .action(perplexity)
  withModelFlag(
    evaluate
      .command('multiple-choice')
      .description('accuracy by the log-likelihood of choices')
      .argument('<items>', 'JSONL file: query, choices, gold'),
  )
    .option('--bos', 'put <|endoftext|> before every query')
    .action(multipleChoice)
}

async function perplexity(path: string, flags: PerplexityFlags): Promise<void> {
  await withEngine(flags, 'windows', async (engine, signal, bar) => {
    const { blockSize, windows } = flags
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
  await withEngine(flags, 'items', async (engine, signal, bar) => {
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

async function withEngine(
  flags: EngineFlags & { model: string },
  unit: string,
  run: (engine: Engine, signal: AbortSignal, bar: Bar) => Promise<void>,
): Promise<void> {
  const signal = interruption()
  const engine = await loadEngine(flags.model, flags, signal)
  const bar = progressBar('evaluating', unit)
  try {
    await run(engine, signal, bar)
  } finally {
    bar.stop()
    await engine.close()
  }
}
