// A soak of seconds: all kinds of requests, and what its log becomes.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { temporary } from '../support/models.js'
import { rssGrowth, writeSoak } from './outcome.js'
import type { ProcessSample } from './process-sample.js'
import { soak } from './soak.js'

test('a server under mixed traffic answers equal requests alike, and its log becomes a result', async (t) => {
  t.timeout(120_000)
  const folder = temporary(t)
  const samples: ProcessSample[] = []
  const { wrong, exitCode, byKind } = await soak({
    ...{ minutes: 0.1, perSecond: 8, seed: 5, ranks: 2, folder, sampleMs: 2000 },
    onSample: (sample) => samples.push(sample),
    onWrong: (what) => t.log(what),
  })
  t.deepEqual(wrong, [])
  t.is(exitCode, 0)
  t.deepEqual(Object.keys(byKind).toSorted(), ['left', 'stream', 'to be refused', 'whole'])
  t.true(samples.length >= 3 && samples.every(({ rssMiB, heapMiB, files, threads }) => rssMiB > heapMiB && heapMiB > 0 && files > 0 && threads > 1))
  const log = join(folder, 'soak.log')
  const start = { seed: 5, minutes: 0.1, perSecond: 8, ranks: 2, machine: { cpu: 'a', cores: 2, memoryGiB: 1, node: 'v1', tetrad: '1', commit: 'c' } }
  writeFileSync(log, [{ ...start, date: '2026-01-01T00:00:00Z' }, ...samples].map((line) => JSON.stringify(line)).join('\n'))
  const { files, answer } = await writeSoak(log, folder)
  t.regex(answer[0] as string, /^\d+ requests in 0 minutes, 0 of them wrong\.$/)
  t.is(
    readFileSync(files.find((file) => file.endsWith('.csv')) as string, 'utf8')
      .trim()
      .split('\n').length,
    samples.length + 1,
  )
})

test('growth is that from the second tenth to the last', (t) => {
  const of = (mebibytes: readonly number[]) => mebibytes.map((rssMiB) => ({ rssMiB }))
  t.is(rssGrowth(of(Array(19).fill(100))), undefined)
  t.is(rssGrowth(of([10, 50, ...Array(16).fill(100), 125, 125])), 0.25)
})
