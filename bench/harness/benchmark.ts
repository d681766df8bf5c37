// The interface of a benchmark: one question, one table with its floor, pictures, and an answer computed from the rows.
import { type EngineOptions, OptionError } from '../../src/index.js'
import type { Picture } from './pictures.js'
import type { Sample } from './sample.js'

export interface BenchOptions {
  /** Tiny sizes: ends within two minutes. */
  readonly quick: boolean
  readonly seed: number
  /** Interleaved repetitions, after one warm-up repetition. */
  readonly rounds: number
  readonly backend: 'wasm' | 'gpu'
  /** Part of a GPU adapter's name. */
  readonly adapter: string | undefined
  /** For benchmarks that use them; undefined: the benchmark's default. */
  readonly variants: readonly string[] | undefined
  readonly ranks: readonly (1 | 2 | 4)[] | undefined
  readonly contexts: readonly number[] | undefined
  readonly cache: EngineOptions['cache'] | undefined
  readonly preset: string | undefined
  /** Folder with node_modules/node-llama-cpp and onnxruntime-node; undefined: they are installed into a temporary folder. */
  readonly peers: string | undefined
}

export interface BenchContext extends BenchOptions {
  /** Temporary folder, removed when the process exits. */
  readonly folder: string
  /** Aborted at Ctrl-C. The rows measured so far are kept. */
  readonly signal: AbortSignal
  readonly progress: (done: number, total: number) => void
  /** Result of another benchmark in this machine's folder; undefined: none. */
  readonly earlier: (name: string) => Promise<Outcome | undefined>
}

export interface Column {
  readonly key: string
  readonly label: string
  readonly unit?: string
  /** Decimal places of numbers. Default 1. */
  readonly digits?: number
}

export type Cell = string | number | Sample | undefined
export type Row = Readonly<Record<string, Cell>>

export interface Outcome {
  /** Sentence: what bounds the times, with the rates of this run. */
  readonly floor: string
  readonly method: string
  readonly columns: readonly Column[]
  readonly rows: readonly Row[]
  readonly pictures: readonly Picture[]
  /** Sentences computed from the rows; empty without rows. */
  readonly answer: readonly string[]
  /** Values that other benchmarks read. */
  readonly facts?: Readonly<Record<string, unknown>>
}

export interface Benchmark {
  readonly name: string
  readonly question: string
  /** Options that it supports, besides quick, seed and rounds; others are refused. */
  readonly supports: readonly (keyof BenchOptions)[]
  /** Backends that it measures, if not all; 'all' leaves it out for others. */
  readonly backends?: readonly BenchOptions['backend'][]
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
    remedy: 'Run it once for each rank count.',
  })
}

/**
 * Measures every cell once in each round, so that a busy minute slows all cells alike. Round 0 is the warm-up. Stops between cells at
 * Ctrl-C.
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
