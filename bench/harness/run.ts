// Runs one benchmark: progress on a terminal, Ctrl-C keeps what was measured, results to the machine's folder.
import { progressBar } from '../../src/commands/progress.js'
import { temporaryFolder } from '../measure.js'
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
  try {
    const outcome = await benchmark.run({ ...options, folder: temporaryFolder(), signal, progress: (done, total) => bar.update(done, total) })
    bar.stop()
    const machine = machineFacts(gpu)
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
    return { result, files: await writeResult(result, out(machineSlug(machine))) }
  } finally {
    bar.stop()
  }
}
