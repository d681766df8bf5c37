// REPORT.md, made of the results in the machines' folders. It begins with one line for each result; then come the pictures, with the
// method and the floor. Tables are the CSV files beside the pictures.
import { existsSync } from 'node:fs'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { basename, dirname, join, relative } from 'node:path'
import { OptionError } from '../../src/index.js'
import { BENCHMARKS } from '../registry.js'
import type { Benchmark } from './benchmark.js'
import { type BenchResult, drawAll, machineLine, pictureName, remarks } from './results.js'

interface Found {
  readonly benchmark: Benchmark
  readonly result: BenchResult
  readonly folder: string
}

/** Quick results lie beside the machines' folders, and are in no report but one of their own. */
const QUICK = 'quick'
const MAX_BRIEF = 220

/**
 * Writes REPORT.md beside a folder named `results`, else into the folder, and draws the pictures anew. Returns its path.
 * Throws OptionError where there are no results.
 */
export async function writeReport(results: string): Promise<string> {
  const path = join(basename(results) === 'results' ? dirname(results) : results, 'REPORT.md')
  const found = await findResults(results)
  for (const { result, folder } of found) await drawAll(result, folder)
  const names = [...new Set(found.map(({ benchmark }) => benchmark.name))]
  const parts = [
    '# What was measured',
    'Made by `npx tetrad bench report`. The numbers are in the CSV and JSON files beside the pictures. Machines are shared: compare times of one run only. [docs/benchmarks.md](../docs/benchmarks.md) says how to read floors and marks.',
    index(found),
    ...names.flatMap((name) => sectionsOf(found.filter(({ benchmark }) => benchmark.name === name))),
  ]
  // A report elsewhere has no docs beside it.
  const text = basename(results) === 'results' ? parts : parts.map((part) => part.replace(/\[(docs\/benchmarks\.md)\]\([^)]*\)/, '$1'))
  await writeFile(path, `${text.map((part) => linked(part, dirname(path))).join('\n\n')}\n`)
  return path
}

async function findResults(results: string): Promise<Found[]> {
  const entries = await readdir(results, { withFileTypes: true }).catch((cause: Error) => noResults(results, cause.message))
  const machines = entries.filter((entry) => entry.isDirectory() && entry.name !== QUICK).map((entry) => entry.name)
  const found: Found[] = []
  for (const benchmark of BENCHMARKS) {
    for (const machine of machines.sort()) {
      const folder = join(results, machine)
      const file = join(folder, `${benchmark.name}.json`)
      if (existsSync(file)) found.push({ benchmark, folder, result: JSON.parse(await readFile(file, 'utf8')) as BenchResult })
    }
  }
  return found.length > 0 ? found : noResults(results, 'none')
}

function noResults(results: string, actual: string): never {
  throw new OptionError('OPTION_INVALID', {
    what: 'there are no results for a report',
    expected: `folders of machines with results in ${results}`,
    actual,
    remedy: 'Run a benchmark without --quick first, or name the folder of its results with --out.',
  })
}

function machineName({ machine: { cpu, cores, gpu } }: BenchResult): string {
  return gpu ?? `${cpu}, ${cores} cores`
}

/** The first sentence of every answer, in the order of the benchmarks. */
function index(found: readonly Found[]): string {
  const rows = found.map(
    ({ benchmark: { name }, result }) => `| [${name}](#${name}) | ${machineName(result)} | ${cell(brief(result.answer[0] ?? ''))} |`,
  )
  return ['| benchmark | machine | first answer |', '| --- | --- | --- |', ...rows].join('\n')
}

/** The first clauses of a sentence, up to MAX_BRIEF characters. */
function brief(sentence: string): string {
  if (sentence.length <= MAX_BRIEF) return sentence
  const end = sentence.lastIndexOf(';', MAX_BRIEF)
  return end > 0 ? `${sentence.slice(0, end)}; ...` : sentence
}

/** Text in a table, where | ends a cell and * begins emphasis. */
function cell(text: string): string {
  return text.replaceAll('|', '/').replaceAll('*', '\\*')
}

function sectionsOf(found: readonly Found[]): string[] {
  const [first] = found
  return first === undefined ? [] : [`## ${first.benchmark.name}`, first.benchmark.question, ...found.map(section)]
}

function section({ result, folder }: Found): string {
  const pictures = result.pictures
    .filter(({ points }) => points.length > 0)
    .map(({ name, title }) => ({ title, file: join(folder, `${pictureName(result.benchmark, name)}.svg`) }))
    .filter(({ file }) => existsSync(file))
  const warnings = remarks(result)
  return [
    `### ${machineName(result)}`,
    result.answer.join(' '),
    ...(warnings.length > 0 ? [`Caution: ${warnings.join('; ')}.`] : []),
    ...pictures.map(({ title, file }) => `![${title}](<${file}>)`),
    `Method: ${result.method} Floor: ${result.floor}. ${machineLine(result)}. \`${result.command}\`: [${result.rows.length} rows](<${join(folder, `${result.benchmark}.csv`)}>).`,
  ].join('\n\n')
}

/** Links to files, relative to the report. */
function linked(text: string, from: string): string {
  return text.replace(/\]\(<([^>]+)>\)/g, (_, file: string) => `](${relative(from, file)})`)
}
