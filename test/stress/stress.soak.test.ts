import { spawnSync } from 'node:child_process'
import test from 'ava'
import { ROOT } from '../support/fixtures.js'
import { hasSoftwareGpu, SOFTWARE } from '../support/software-gpu.js'

test('ten minutes of random traffic with faults, of a new seed: nothing lost, nothing different, nothing hung', (t) => {
  t.timeout(1_200_000)
  const args = [`${ROOT}dist/test/stress/run.js`, '--minutes', '10', ...(hasSoftwareGpu ? ['--gpu', SOFTWARE.adapter] : [])]
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', env: { XDG_RUNTIME_DIR: '/tmp', ...process.env } })
  t.log(stdout)
  t.is(status, 0, stderr)
  t.regex(stdout, /lost +0\ndifferent +0\nhung +0\n/)
})
