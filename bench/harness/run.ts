// Runs one benchmark: progress on a terminal, results into the machine's folder. Ctrl-C keeps the rows measured so far.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { progressBar } from '../../src/commands/progress.js'
import { folderOfProcess } from '../measure.js'
import type { Benchmark, BenchOptions } from './benchmark.js'
import { machineFacts, machineSlug, OthersMeter } from './machine.js'
import { type BenchResult, writeResult } from './results.js'

/**
 * Folder of a machine's results. Quick results have folders of their own: they must not replace full ones, and a report of full results
 * must not show them.
 */
export function resultsFolder(out: string, slug: string, quick: boolean): string {
  return quick ? join(out, 'quick', slug) : join(out, slug)
}

/** out: folder that holds a folder of results for each machine. */
export async function runBenchmark(
  benchmark: Benchmark,
  options: BenchOptions,
  command: string,
  out: string,
  gpu: string | undefined,
  signal: AbortSignal,
): Promise<{ result: BenchResult; files: string[] }> {
  const bar = progressBar(benchmark.name, 'cells')
  const meter = new OthersMeter()
  const start = performance.now()
  const machine = machineFacts(gpu)
  const folder = resultsFolder(out, machineSlug(machine), options.quick)
  const earlier = async (name: string) => {
    const text = await readFile(join(folder, `${name}.json`), 'utf8').catch(() => undefined)
    return text === undefined ? undefined : (JSON.parse(text) as BenchResult)
  }
  try {
    const outcome = await benchmark.run({
      ...options,
      folder: folderOfProcess(),
      signal,
      earlier,
      progress: (done, total) => bar.update(done, total),
    })
    bar.stop()
    const result: BenchResult = {
      benchmark: benchmark.name,
      question: benchmark.question,
      machine,
      command,
      seed: options.seed,
      rounds: options.rounds,
      quick: options.quick,
      date: new Date().toISOString(),
      seconds: Math.round((performance.now() - start) / 1000),
      othersShare: meter.share(),
      interrupted: signal.aborted,
      ...outcome,
    }
    return { result, files: await writeResult(result, folder) }
  } finally {
    bar.stop()
  }
}
