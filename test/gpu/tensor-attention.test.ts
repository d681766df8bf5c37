import { spawnSync } from 'node:child_process'
import test from 'ava'
import { ROOT } from '../support/fixtures.js'

// Tensor cores are on no software device. Dawn's null backend lists the features, so the kernels are at least compiled; what they
// compute is checked against float64 by bench:gpu-attention, on a card.
test('the tensor-core kernels compile for wide and narrow heads, odd widths, several streams, and every tiling', (t) => {
  const { stdout, stderr } = spawnSync(process.execPath, [`${ROOT}dist/test/support/compile-on-null.js`], { encoding: 'utf8' })
  t.not(stdout, '', stderr)
  const { compiled, errors } = JSON.parse(stdout) as { compiled: number; errors: [string, string][] }
  t.deepEqual(errors, [])
  t.true(compiled >= 72)
})
