// What all benchmarks share: floors are bounds whatever a probe measured, and quick results replace no full ones.
import { execFile } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import fc from 'fast-check'
import { floorMs, rateText, reachedRates } from '../../bench/harness/floor.js'
import { machineFacts, machineSlug } from '../../bench/harness/machine.js'
import type { BenchResult } from '../../bench/harness/results.js'
import { resultsFolder } from '../../bench/harness/run.js'
import { isSample, type Sample } from '../../bench/harness/sample.js'
import { caption } from '../../bench/harness/vega-lite.js'
import { temporary } from '../support/models.js'
import { full } from '../support/tier.js'

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

test('the committed results have no floor above a measured time, and no limit below a measured rate', (t) => {
  let checked = 0
  for (const machine of readdirSync('bench/results').filter((name) => name !== 'quick')) {
    for (const file of readdirSync(join('bench/results', machine)).filter((name) => name.endsWith('.json'))) {
      const { rows } = JSON.parse(readFileSync(join('bench/results', machine, file), 'utf8')) as BenchResult
      for (const row of rows) {
        const time = [row.ms, row.us, row.short].find(isSample)
        const rate = [row.rate, row.ours].find(isSample)
        if (typeof row.floor === 'number' && time) t.true(row.floor <= time.p10 * (1 + 1e-9), `${machine}/${file}: ${JSON.stringify(row)}`)
        if (typeof row.limit === 'number' && rate) t.true(row.limit >= rate.p90 * (1 - 1e-9), `${machine}/${file}: ${JSON.stringify(row)}`)
        if (time || rate) checked++
      }
    }
  }
  t.true(checked > 0)
})

test('the caption of a picture explains the marks that it has, and no others', (t) => {
  const picture = { name: '', title: '', kind: 'lines', x: { title: '' }, y: { title: '' } } as const
  const point = { x: 1, y: 1, series: 'a' }
  t.is(caption({ ...picture, points: [point] }), '')
  t.regex(caption({ ...picture, points: [{ ...point, trusted: false }] }), /^Hollow: [^.]*\.$/)
  t.regex(caption({ ...picture, points: [{ ...point, predicted: true }] }), /^Pale: [^.]*\.$/)
  t.regex(caption({ ...picture, points: [point], floor: [point], note: 'A note.' }), /^Dashed: the floor [^.]*\. A note\.$/)
})

full('--quick leaves a full result of the same benchmark as it is', async (t) => {
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
