import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import test from 'ava'
import type { Benchmark, BenchOptions } from '../../bench/harness/benchmark.js'
import { BENCHMARKS } from '../../bench/registry.js'
import { CLI, resultOf, run } from '../support/benchmarks.js'
import { temporary } from '../support/models.js'

const OPTIONS: BenchOptions = {
  quick: true,
  seed: 1,
  rounds: 1,
  backend: 'wasm',
  adapter: undefined,
  variants: undefined,
  ranks: [2],
  contexts: undefined,
  cache: undefined,
  preset: undefined,
  peers: undefined,
}

test('a benchmark that is interrupted after some cells returns the rows of these', async (t) => {
  const interrupted = new AbortController()
  const benchmark = BENCHMARKS.find(({ name }) => name === 'collectives') as Benchmark
  const { rows } = await benchmark.run({
    ...OPTIONS,
    folder: temporary(t),
    signal: interrupted.signal,
    earlier: async () => undefined,
    // A round warms up; five cells of the next one are measured.
    progress: (done, total) => {
      if (done === total / 2 + 5) interrupted.abort()
    },
  })
  t.is(rows.length, 5)
})

test('Ctrl-C ends a run of benchmarks with status 130, and keeps the results that were written before', async (t) => {
  const out = join(temporary(t), 'results')
  const names = ['collectives', 'recovery']
  const child = spawn(process.execPath, [CLI, 'bench', ...names, '--quick', '--rounds', '1', '--out', out], { stdio: ['ignore', 'pipe', 'ignore'] })
  t.teardown(() => child.kill('SIGKILL'))
  // The first result is printed when it has been written, and the second benchmark begins.
  child.stdout.once('data', () => child.kill('SIGINT'))
  const [code] = (await once(child, 'exit')) as [number | null]
  t.is(code, 130)
  const { interrupted, rows } = resultOf(out, 'collectives')
  t.false(interrupted)
  t.true(rows.length > 0)
})

test('options that a benchmark would ignore, and values out of range, are refused', async (t) => {
  for (const [args, expected] of [
    [['load', '--contexts', '64'], /load has no such option/],
    [['attention', '--contexts', '65'], /multiples of 64/],
    [['scaling', '--ranks', '3'], /1, 2 and 4/],
    [['scaling', '--rounds', '0'], /rounds is out of range/],
    [['throughput', '--ranks', '1,2'], /takes one rank count/],
    [['collectives', '--ranks', '1'], /exchanges nothing/],
    [['attention', '--cache', 'f16'], /does not support this cache format/],
    [['scaling', '--quick', '--preset', 'huge'], /unknown model size/],
    [['scaling', '--quick', '--variant', 'mlx'], /unknown variant/],
    [['scaling', '--quick', '--cache', 'f16'], /--cache f16 is not supported/],
    [['nonsense'], /no benchmark of this name/],
    [['report', '--out', join(temporary(t), 'none')], /there are no results for a report/],
    [['prediction', '--out', join(temporary(t), 'none')], /needs results of other benchmarks/],
    [['peers', '--peers', temporary(t)], /lacks packages/],
  ] as const) {
    const error = await t.throwsAsync(run(process.execPath, [CLI, 'bench', ...args]))
    t.regex((error as unknown as { stderr: string }).stderr, expected)
  }
  const { stdout } = await run(process.execPath, [CLI, 'bench'])
  t.is(stdout.trim().split('\n').length, BENCHMARKS.length)
})
