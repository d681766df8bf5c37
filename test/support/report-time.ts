// Loaded by ava into every test file's thread: appends the file's name and its seconds to the file that TETRAD_TEST_TIMES names, for the
// list that scripts/test.mjs prints.
import { appendFileSync } from 'node:fs'
import { performance } from 'node:perf_hooks'
import test from 'ava'

const start = performance.now()
const times = process.env.TETRAD_TEST_TIMES
if (times !== undefined) {
  const file = new URL(test.meta.file).pathname
  process.on('exit', () => appendFileSync(times, `${JSON.stringify([file, (performance.now() - start) / 1000])}\n`))
}
