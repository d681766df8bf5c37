// Benchmarks as processes, and what they wrote.
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { BenchResult } from '../../bench/harness/results.js'

export const CLI = 'dist/src/cli.js'

/** A command that does not end is a failure, not a wait for good. */
export const run = (file: string, args: readonly string[], options: { maxBuffer?: number } = {}) =>
  promisify(execFile)(file, args, { timeout: 580_000, killSignal: 'SIGKILL', ...options })

/** Folder of quick results of the only machine in a folder of results. */
export function machineFolder(out: string): string {
  const [name] = readdirSync(join(out, 'quick'), { withFileTypes: true }).filter((entry) => entry.isDirectory())
  return join(out, 'quick', name?.name ?? 'none')
}

export function resultOf(out: string, name: string): BenchResult {
  return JSON.parse(readFileSync(join(machineFolder(out), `${name}.json`), 'utf8')) as BenchResult
}
