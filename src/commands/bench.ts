// tetrad bench [name...]: lists the benchmarks, or runs some and writes their results. The benchmarks are loaded when they are wanted.
import { existsSync } from 'node:fs'
import { type Command, Option } from 'commander'
import type { Benchmark, BenchOptions } from '../../bench/harness/benchmark.js'
import { requestOf } from '../../kernels/gpu/adapter.js'
import { findAdapter } from '../../kernels/gpu/context.js'
import { OptionError } from '../errors.js'
import { int } from '../options/entry.js'
import { checkFlags, collect, type Flags, withFlags } from './flags.js'
import { interruption } from './progress.js'

interface BenchFlags extends Flags {
  quick?: boolean
  backend: 'wasm' | 'gpu'
  adapter?: string
  variant?: string[]
  ranks?: string
  contexts?: string
  cache?: BenchOptions['cache']
  preset?: string
  peers?: string
  out?: string
  json?: boolean
}

const BENCH_FLAGS = {
  seed: int({ min: 0, max: Number.MAX_SAFE_INTEGER, default: 1, doc: 'seed of weights and traffic' }),
  rounds: int({ min: 1, max: 1000, default: undefined, defaultText: '5; 2 with --quick', doc: 'interleaved repetitions' }),
}

export function addBench(program: Command): void {
  const command = program
    .command('bench')
    .description('list the benchmarks, or run some of them')
    .argument('[names...]', "benchmarks to run, 'all', or 'report' to write REPORT.md from the results that are there")
    .option('--quick', 'tiny sizes, within two minutes')
    .addOption(new Option('--backend <name>', 'where kernels run').choices(['wasm', 'gpu']).default('wasm'))
    .option('--adapter <name>', "part of the GPU adapter's name, or PCI addresses with commas, one for each rank")
    .option('--variant <name>', 'attention variant to measure; again for another', collect)
    .option('--ranks <list>', '1, 2 and 4, with commas')
    .option('--contexts <list>', 'cached tokens, with commas')
    .option('--cache <format>', 'format of the cache')
    .option('--preset <size>', 'models: 2.9b, mid, small or tiny')
    .option('--peers <dir>', 'folder with node_modules/node-llama-cpp and onnxruntime-node (default: installed in a temporary one)')
    .option(
      '--out <dir>',
      'folder of results, with a folder for each machine; quick ones in quick/ (default: bench/results in a checkout, else tetrad-bench)',
    )
    .option('--json', 'print a line of JSON for each benchmark')
  withFlags(command, BENCH_FLAGS).action(bench)
}

async function bench(names: readonly string[], flags: BenchFlags): Promise<void> {
  const { BENCHMARKS } = await import('../../bench/registry.js')
  // The package has no sources.
  const isCheckout = existsSync(new URL('../../../bench/registry.ts', import.meta.url))
  const out = flags.out ?? (isCheckout ? 'bench/results' : 'tetrad-bench')
  if (names.length === 0) {
    const width = Math.max(...BENCHMARKS.map((b) => b.name.length))
    console.log(BENCHMARKS.map((b) => `${b.name.padEnd(width)}  ${b.question}`).join('\n'))
    return
  }
  if (names.length === 1 && names[0] === 'report') {
    const { writeReport } = await import('../../bench/harness/report.js')
    console.log(await writeReport(out))
    return
  }
  const chosen =
    names.length === 1 && names[0] === 'all'
      ? BENCHMARKS.filter(({ backends = [flags.backend] }) => backends.includes(flags.backend))
      : names.map((name) => find(BENCHMARKS, name))
  const options = benchOptions(flags)
  for (const benchmark of chosen) checkSupported(benchmark, options, flags)
  const { runBenchmark } = await import('../../bench/harness/run.js')
  const { formatResult } = await import('../../bench/harness/results.js')
  const cards = options.adapter?.split(',') ?? []
  const device =
    options.backend === 'gpu' ? (await findAdapter(requestOf({ adapters: cards, checks: false, kernels: 'auto' }, 0)))?.device : undefined
  const gpu = device !== undefined && cards.length > 1 ? `${cards.length} x ${device}` : device
  const signal = interruption()
  const command = `npx tetrad bench ${withoutFolders(process.argv.slice(3)).join(' ')}`
  for (const benchmark of chosen) {
    if (signal.aborted) break
    const { result, files } = await runBenchmark(benchmark, options, command, out, gpu, signal)
    if (flags.json) console.log(JSON.stringify(result))
    else console.log(`${formatResult(result)}\n`)
    console.error(`written: ${files.join(', ')}`)
  }
  if (signal.aborted) process.exitCode = 130
}

/** The arguments without folders, which are this machine's and change no result. */
function withoutFolders(args: readonly string[]): string[] {
  const folder = /^--(out|peers)$/
  return args.filter((arg, i) => !folder.test(arg) && !folder.test(args[i - 1] ?? '') && !/^--(out|peers)=/.test(arg))
}

function find(benchmarks: readonly Benchmark[], name: string): Benchmark {
  const found = benchmarks.find((b) => b.name === name)
  if (found) return found
  throw invalid('there is no benchmark of this name', benchmarks.map((b) => b.name).join(', '), name)
}

function benchOptions(flags: BenchFlags): BenchOptions {
  const { quick = false, backend, adapter, variant, cache, preset, peers } = flags
  const { seed, rounds = quick ? 2 : 5 } = checkFlags(BENCH_FLAGS, flags)
  const ranks = flags.ranks === undefined ? undefined : integers('ranks', flags.ranks, (n) => [1, 2, 4].includes(n), '1, 2 and 4')
  const contexts = flags.contexts === undefined ? undefined : integers('contexts', flags.contexts, (n) => n >= 64 && n % 64 === 0, 'multiples of 64')
  return { quick, seed, rounds, backend, adapter, variants: variant, ranks: ranks as BenchOptions['ranks'], contexts, cache, preset, peers }
}

function integers(name: string, text: string, is: (n: number) => boolean, expected: string): number[] {
  const values = text.split(',').map(Number)
  if (values.every((n) => Number.isInteger(n) && is(n))) return values
  throw invalid(`${name} is wrong`, `${expected}, with commas`, text)
}

/** An option that a benchmark would ignore is refused. */
function checkSupported({ name, supports }: Benchmark, options: BenchOptions, { backend }: BenchFlags): void {
  const given = (['adapter', 'variants', 'ranks', 'contexts', 'cache', 'preset', 'peers'] as const).filter((key) => options[key] !== undefined)
  const unsupported = [...given, ...(backend === 'gpu' ? (['backend'] as const) : [])].find((key) => !supports.includes(key))
  if (unsupported)
    throw invalid(`the benchmark ${name} has no such option`, `seed, rounds, quick, out${supports.map((h) => `, ${h}`).join('')}`, unsupported)
}

function invalid(what: string, expected: string, actual: string): OptionError {
  return new OptionError('OPTION_INVALID', { what, expected, actual, remedy: 'See npx tetrad bench --help.' })
}
