// Programs that use Tetrad, each in a process of its own.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { ROOT } from './fixtures.js'

/** The module to import `Engine` from, as a string literal of JavaScript. */
export const INDEX = JSON.stringify(new URL('../../src/index.js', import.meta.url).href)

/** Runs the source of an ES module, with `gc`; returns what it printed. */
export async function program(source: string): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', '--input-type=module', '-e', source], {
    cwd: ROOT,
    timeout: 200_000,
  })
  return stdout.trim()
}
