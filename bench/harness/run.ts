// Runs one benchmark: progress on a terminal, Ctrl-C keeps what was measured, results to the machine's folder.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { progressBar } from '../../src/commands/progress.js'
import { folderOfProcess } from '../measure.js'
import type { Benchmark, BenchOptions } from './benchmark.js'
import { machineFacts, machineSlug, OthersMeter } from './machine.js'
import { type BenchResult, writeResult } from './results.js'

/** out: folder under which each machine has one. */
export async function runBenchmark(
  benchmark: Benchmark,
  options: BenchOptions,
  command: string,
  out: (slug: string) => string,
  gpu: string | undefined,
  signal: AbortSignal,
): Promise<{ result: BenchResult; files: string[] }> {
  const bar = progressBar(benchmark.name, 'cells')
  const meter = new OthersMeter()
  const start = performance.now()
  const machine = machineFacts(gpu)
  const folder = out(machineSlug(machine))
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
