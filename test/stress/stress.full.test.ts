import { spawnSync } from 'node:child_process'
import test from 'ava'
import { ROOT } from '../support/fixtures.js'
import { hasSoftwareGpu, SOFTWARE } from '../support/software-gpu.js'

// A process of its own: what it leaves behind shows in its memory, and what would kill it kills no other test.
test('some seconds of random traffic with faults: nothing lost, nothing different, nothing hung', (t) => {
  t.timeout(300_000)
  const gpu = hasSoftwareGpu ? ['--gpu', SOFTWARE.adapter] : []
  const args = [`${ROOT}dist/test/stress/run.js`, '--minutes', '0.4', '--seed', '20261125', ...gpu]
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', env: { XDG_RUNTIME_DIR: '/tmp', ...process.env } })
  t.is(status, 0, stderr)
  t.log(stdout)
  t.regex(stdout, /lost +0\ndifferent +0\nhung +0\n/)
  t.true(Number(/^recoveries +(\d+)$/m.exec(stdout)?.[1]) > 0)
})

test('a round can be replayed alone, and wrong arguments are refused', (t) => {
  const run = (...args: string[]) => spawnSync(process.execPath, [`${ROOT}dist/test/stress/run.js`, ...args], { encoding: 'utf8' })
  t.is(run('--minutes', 'x').status, 1)
  t.regex(run('--replay', '7').stderr, /usage/)
  const replayed = run('--replay', '7:2')
  t.is(replayed.status, 0, replayed.stderr)
  t.regex(replayed.stdout, /^rounds +1$/m)
})
