// What a benchmark is: one question, one table under its floor, pictures, and an answer made of the numbers.
import { type EngineOptions, OptionError } from '../../src/index.js'
import type { Picture } from './pictures.js'
import type { Sample } from './sample.js'

export interface BenchOptions {
  /** Tiny sizes, within two minutes. */
  readonly quick: boolean
  readonly seed: number
  /** Interleaved repetitions, after one that warms up. */
  readonly rounds: number
  readonly backend: 'wasm' | 'gpu'
  /** Part of a GPU adapter's name. */
  readonly adapter: string | undefined
  /** Of benchmarks that have these; undefined: the benchmark's own choice. */
  readonly variants: readonly string[] | undefined
  readonly ranks: readonly (1 | 2 | 4)[] | undefined
  readonly contexts: readonly number[] | undefined
  readonly cache: EngineOptions['cache'] | undefined
  readonly preset: string | undefined
  /** Folder with node_modules/node-llama-cpp and onnxruntime-node; undefined: they are installed in a temporary one. */
  readonly peers: string | undefined
}

export interface BenchContext extends BenchOptions {
  /** Temporary, gone when the process is. */
  readonly folder: string
  /** Aborted at Ctrl-C: what was measured until then is kept. */
  readonly signal: AbortSignal
  readonly progress: (done: number, total: number) => void
  /** What another benchmark left in the folder of this machine. */
  readonly earlier: (name: string) => Promise<Outcome | undefined>
}

export interface Column {
  readonly key: string
  readonly label: string
  readonly unit?: string
  /** Of numbers, behind the point. Default 1. */
  readonly digits?: number
}

export type Cell = string | number | Sample | undefined
export type Row = Readonly<Record<string, Cell>>

export interface Outcome {
  /** What bounds it, with the numbers of this run. */
  readonly floor: string
  readonly method: string
  readonly columns: readonly Column[]
  readonly rows: readonly Row[]
  readonly pictures: readonly Picture[]
  /** Sentences made of the rows; none before there are any. */
  readonly answer: readonly string[]
  /** What other benchmarks may need of it. */
  readonly facts?: Readonly<Record<string, unknown>>
}

export interface Benchmark {
  readonly name: string
  readonly question: string
  /** Options that it heeds, besides quick, seed and rounds; others are refused. */
  readonly heeds: readonly (keyof BenchOptions)[]
  run(context: BenchContext): Promise<Outcome>
}

/** The rank count of a benchmark that has one, 2 by default. Throws OptionError for several. */
export function oneRankCount({ ranks }: BenchOptions): 1 | 2 | 4 {
  const [first = 2, ...more] = ranks ?? []
  if (more.length === 0) return first
  throw new OptionError('OPTION_INVALID', {
    what: 'this benchmark takes one rank count',
    expected: '1, 2 or 4',
    actual: (ranks ?? []).join(),
    remedy: 'Run it once for each.',
  })
}

/**
 * Measures every cell once a round, in turn, so that a busy minute hits all of them; round 0 warms up. Stops at Ctrl-C between cells.
 */
export async function interleave<C>(context: BenchContext, cells: readonly C[], measure: (cell: C, warmUp: boolean) => Promise<void>): Promise<void> {
  const total = cells.length * (context.rounds + 1)
  for (let round = 0; round <= context.rounds; round++) {
    for (const [i, cell] of cells.entries()) {
      if (context.signal.aborted) return
      await measure(cell, round === 0)
      context.progress(round * cells.length + i + 1, total)
    }
  }
}
