// Shared by all benchmarks: the machine's description, medians with their spread, and tables as text.

import { mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { synthesize } from '../src/index.js'

export function machine(): string {
  return `${cpus()[0]?.model}, ${availableParallelism()} cores, Node ${process.version}`
}

/** The value at quantile q (0 to 1) of at least one measurement: the nearest one, not interpolated. */
export function quantile(values: readonly number[], q: number): number {
  return values.toSorted((a, b) => a - b)[Math.round(q * (values.length - 1))] as number
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** Median (p10..p90). */
export function spread(values: readonly number[], digits = 1): string {
  return `${median(values).toFixed(digits)} (${quantile(values, 0.1).toFixed(digits)}..${quantile(values, 0.9).toFixed(digits)})`
}

/** Rows under a header, in columns as wide as their widest cell. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => (row[i] ?? '').length)))
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] as number))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** Runs every task once in each round, so that a busy minute slows all alike. Round 0 is the warm-up. Returns results by task. */
export async function inTurn<K extends string>(
  rounds: number,
  tasks: Readonly<Record<K, () => number | Promise<number>>>,
): Promise<Record<K, number[]>> {
  const names = Object.keys(tasks) as K[]
  const results = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<K, number[]>
  for (let round = 0; round <= rounds; round++) {
    for (const name of names) {
      const value = await tasks[name]()
      if (round > 0) results[name].push(value)
    }
  }
  return results
}

/** A temporary folder that is removed when the process exits. The caller must handle Ctrl-C. */
export function folderOfProcess(): string {
  const folder = mkdtempSync(join(tmpdir(), 'tetrad-bench-'))
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** The same, for a script that exits at Ctrl-C. */
export function temporaryFolder(): string {
  process.once('SIGINT', () => process.exit(130))
  return folderOfProcess()
}

/** Writes a model of preset `mid` with random weights. Returns its directory. */
export async function midModel(folder: string, variant = 'mlra_4'): Promise<string> {
  const dir = join(folder, variant)
  await synthesize(dir, { preset: 'mid', variant })
  return dir
}
