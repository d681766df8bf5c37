// The files of a run: JSON, CSV and pictures in the machine's folder; and its table as text.
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { stringify } from 'csv-stringify/sync'
import { table } from '../measure.js'
import type { Cell, Column, Outcome } from './benchmark.js'
import type { MachineFacts } from './machine.js'
import { draw } from './pictures.js'
import { isSample, isTrusted, SPREAD_BOUND } from './sample.js'

export interface BenchResult extends Outcome {
  readonly benchmark: string
  readonly question: string
  readonly machine: MachineFacts
  readonly command: string
  readonly seed: number
  readonly rounds: number
  readonly quick: boolean
  readonly date: string
  readonly seconds: number
  /** Share of the cores that other processes used during the run, 0..1; undefined: the system does not tell. */
  readonly othersShare: number | undefined
  /** Ctrl-C ended it: the rows are incomplete. */
  readonly interrupted: boolean
}

/** Share of the cores used by other processes above which a run has a warning. */
const MAX_OTHERS = 0.1

export async function writeResult(result: BenchResult, out: string): Promise<string[]> {
  await mkdir(out, { recursive: true })
  const path = join(out, result.benchmark)
  await writeFile(`${path}.json`, `${JSON.stringify(result, null, 1)}\n`)
  await writeFile(`${path}.csv`, csv(result))
  return [`${path}.json`, `${path}.csv`, ...(await drawAll(result, out))]
}

/** Draws a result's pictures into a folder. Returns the files that were drawn. */
export async function drawAll({ benchmark, pictures }: BenchResult, folder: string): Promise<string[]> {
  const drawn: string[] = []
  for (const picture of pictures.filter(({ points }) => points.length > 0)) {
    const path = join(folder, pictureName(benchmark, picture.name))
    if (await draw(picture, path)) drawn.push(`${path}.svg`)
  }
  return drawn
}

export function pictureName(benchmark: string, name: string): string {
  return name === '' ? benchmark : `${benchmark}-${name}`
}

function csv({ columns, rows }: BenchResult): string {
  const header = columns.flatMap(({ key }) => (rows.some((row) => isSample(row[key])) ? [key, `${key}_p10`, `${key}_p90`] : [key]))
  const records = rows.map((row) =>
    columns.flatMap(({ key }) => {
      const cell = row[key]
      if (!rows.some((other) => isSample(other[key]))) return [cell ?? '']
      return isSample(cell) ? [cell.median, cell.p10, cell.p90] : [cell ?? '', '', '']
    }),
  )
  return stringify([header, ...records])
}

function text(cell: Cell, digits = 1): string {
  if (cell === undefined) return ''
  if (typeof cell === 'string') return cell
  if (typeof cell === 'number') return cell.toFixed(Number.isInteger(cell) ? 0 : digits)
  const mark = isTrusted(cell) ? '' : ' *'
  return `${cell.median.toFixed(digits)} (${cell.p10.toFixed(digits)}..${cell.p90.toFixed(digits)})${mark}`
}

/** Header and rows as text. */
export function cells({ columns, rows }: Pick<Outcome, 'columns' | 'rows'>): string[][] {
  const label = ({ label, unit }: Column) => (unit === undefined ? label : `${label}, ${unit}`)
  return [columns.map(label), ...rows.map((row) => columns.map(({ key, digits }) => text(row[key], digits)))]
}

/** Warnings that the numbers need. */
export function remarks({ rows, othersShare, interrupted }: BenchResult): string[] {
  const untrusted = rows.some((row) => Object.values(row).some((cell) => isSample(cell) && !isTrusted(cell)))
  return [
    ...(untrusted
      ? [`a star in tables, a hollow mark in pictures: p10 to p90 is more than ${SPREAD_BOUND * 100} % of the median, not to be trusted`]
      : []),
    ...(othersShare !== undefined && othersShare > MAX_OTHERS
      ? [`the machine was busy: other processes used ${(othersShare * 100).toFixed(0)} % of its cores during the run`]
      : []),
    ...(interrupted ? ['interrupted: the rows are incomplete'] : []),
  ]
}

export function machineLine({ machine: { cpu, cores, gpu, node, tetrad, commit }, rounds, date }: BenchResult): string {
  return `${gpu === undefined ? '' : `${gpu}; `}${cpu}, ${cores} cores, Node ${node}, tetrad ${tetrad} at ${commit}; median (p10..p90) of ${rounds} rounds; ${date.slice(0, 10)}`
}

export function formatResult(result: BenchResult): string {
  return [result.question, machineLine(result), `floor: ${result.floor}`, '', table(cells(result)), ...remarks(result), '', ...result.answer].join(
    '\n',
  )
}
