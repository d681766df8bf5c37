// What all benchmarks share: floors are bounds whatever a probe measured, and quick results replace no full ones.
import { execFile } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import fc from 'fast-check'
import { floorMs, rateText, reachedRates } from '../../bench/harness/floor.js'
import { machineFacts, machineSlug } from '../../bench/harness/machine.js'
import { resultsFolder } from '../../bench/harness/run.js'
import type { Sample } from '../../bench/harness/sample.js'
import { temporary } from '../support/models.js'

const positive = (max: number) => fc.double({ min: 1e-3, max, noNaN: true })
const cell = fc.record({
  bytes: fc.nat(1e12),
  operations: fc.nat(1e12),
  ms: fc.array(positive(1e6), { minLength: 1, maxLength: 5 }),
})

test('no floor is above a measured time, whatever the probe measured', (t) => {
  t.notThrows(() =>
    fc.assert(
      fc.property(fc.record({ read: positive(1e4), multiply: positive(1e4) }), fc.array(cell, { minLength: 1, maxLength: 20 }), (probed, cells) => {
        const used = reachedRates(probed, cells)
        for (const measured of cells) for (const ms of measured.ms) if (floorMs(measured, used) > ms * (1 + 1e-12)) return false
        return (used.read ?? 0) >= probed.read && (used.multiply ?? 0) >= probed.multiply
      }),
    ),
  )
})

test('a probe that ran before its code was optimized: the kernels raise the rate, and the sentence says so', (t) => {
  // 64 requests of a model of 16.2 M parameters at 1037 tokens/s, and a probe of 8 GFLOP/s.
  const operations = 64 * 2 * 16.2e6
  const ms = [(64 * 1000) / 1037]
  const probed = { read: 20, multiply: 8 }
  const used = reachedRates(probed, [{ operations, ms }])
  t.is(used.read, 20)
  t.true(Math.abs((used.multiply as number) - 33.6) < 0.1)
  t.true(floorMs({ operations }, probed) > (ms[0] as number))
  t.is(rateText('multiply', probed, used), '34 GFLOP/s (reached by the kernels; the probe measured 8)')
  t.is(rateText('read', probed, used), '20.0 GB/s')
})

test('a floor is the longer of reading and multiplying; what does not count is left out', (t) => {
  const work = { bytes: 10e6, operations: 1e9 }
  t.is(floorMs(work, { read: 10, multiply: 100 }), 10)
  t.is(floorMs(work, { read: 1, multiply: 100 }), 10)
  t.is(floorMs(work, { read: 10 }), 1)
  t.deepEqual(reachedRates({ read: 10 }, [{ operations: 1e9, bytes: 1, ms: [1] }]), { read: 10 })
})

test('--quick leaves a full result of the same benchmark as it is', async (t) => {
  const out = temporary(t)
  const full = resultsFolder(out, machineSlug(machineFacts()), false)
  mkdirSync(full)
  writeFileSync(join(full, 'load.json'), 'full')
  const { stdout } = await promisify(execFile)(process.execPath, [
    ...['dist/src/cli.js', 'bench', 'load', '--quick', '--rounds', '1', '--ranks', '1', '--json', '--out', out],
  ])
  t.deepEqual(readdirSync(full), ['load.json'])
  t.is(readFileSync(join(full, 'load.json'), 'utf8'), 'full')
  const quick = JSON.parse(readFileSync(join(resultsFolder(out, machineSlug(machineFacts()), true), 'load.json'), 'utf8'))
  t.deepEqual(quick, JSON.parse(stdout))
  for (const { floor, ms } of quick.rows as { floor: number; ms: Sample }[]) t.true(floor <= ms.p10)
})
