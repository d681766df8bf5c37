// The benchmarks at tiny sizes: what they write, and what must hold of it whatever the machine does. Never times.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { isSample, type Sample } from '../../bench/harness/sample.js'
import { BENCHMARKS } from '../../bench/registry.js'
import { CLI, machineFolder, resultOf, run } from '../support/benchmarks.js'
import { temporary } from '../support/models.js'
import { natsTest } from '../support/nats.js'

test('every benchmark but those beside peers or a NATS server, quick: a table, CSV of the same rows, pictures, and a report of them', async (t) => {
  t.timeout(600_000)
  const out = join(temporary(t), 'results')
  const names = BENCHMARKS.map((b) => b.name).filter((name) => !['peers', 'serving', 'cluster'].includes(name))
  const { stdout } = await run(process.execPath, [CLI, 'bench', ...names, '--quick', '--rounds', '1', '--out', out], { maxBuffer: 16 << 20 })
  for (const name of names) {
    const result = resultOf(out, name)
    t.is(result.benchmark, name)
    t.is(result.command, `npx tetrad bench ${names.join(' ')} --quick --rounds 1`)
    t.true(stdout.includes(result.question))
    t.true(result.floor.length > 10 && result.method.length > 10 && result.machine.cores > 0 && result.interrupted === false, name)
    // Noise can make times that don't grow with context: then nothing is predicted.
    if (name !== 'prediction') t.true(result.rows.length > 0, name)
    for (const row of result.rows) {
      for (const cell of Object.values(row)) {
        if (typeof cell === 'number') t.true(Number.isFinite(cell), `${name}: ${JSON.stringify(row)}`)
        if (isSample(cell)) t.true(cell.p10 <= cell.median && cell.median <= cell.p90 && cell.median > 0, `${name}: ${JSON.stringify(row)}`)
      }
    }
    const lines = readFileSync(join(machineFolder(out), `${name}.csv`), 'utf8')
      .trim()
      .split('\n')
    t.is(lines.length, result.rows.length + 1, name)
    for (const picture of result.pictures.filter(({ points }) => points.length > 0)) {
      const path = join(machineFolder(out), picture.name === '' ? name : `${name}-${picture.name}`)
      t.true(readFileSync(`${path}.svg`, 'utf8').includes('</svg>'), path)
      t.is(readFileSync(`${path}.png`).subarray(1, 4).toString(), 'PNG', path)
    }
  }

  const scaling = resultOf(out, 'scaling').rows as readonly {
    variant: string
    ranks: number
    context: number
    counted: number
    predicted: number
    ms: Sample
  }[]
  const bytes = (variant: string, ranks: number) => scaling.find((r) => r.variant === variant && r.ranks === ranks)?.counted as number
  for (const { variant, ranks, counted, predicted } of scaling) {
    t.true(Math.abs(counted / predicted - 1) < 1e-12, `${variant} at ${ranks} ranks: ${counted} counted, ${predicted} predicted`)
    if (ranks > 1) t.true(counted <= bytes(variant, ranks / 2))
  }
  t.is(bytes('mla', 4), bytes('mla', 1))
  t.is(bytes('mla', 4) / bytes('mlra_4', 4), 3)

  const { stdout: path } = await run(process.execPath, [CLI, 'bench', 'report', '--out', join(out, 'quick')])
  const report = readFileSync(path.trim(), 'utf8')
  for (const name of names) t.true(report.includes(`\n## ${name}\n`))
  for (const [, image] of report.matchAll(/!\[[^\]]*\]\(([^)]+)\)/g)) t.true(readFileSync(join(path.trim(), '..', image as string)).length > 0)
})

natsTest('cluster, quick: latencies and throughput of every path, and a pause when a replica is killed', async (t) => {
  t.timeout(300_000)
  const out = join(temporary(t), 'results')
  await run(process.execPath, [CLI, 'bench', 'cluster', '--quick', '--rounds', '1', '--out', out])
  const { rows, answer } = resultOf(out, 'cluster')
  t.deepEqual(
    rows.map(({ path }) => path),
    ['one engine, asked directly', 'front, 1 replica', 'front, 2 replicas'],
  )
  for (const row of rows) for (const key of ['ttft', 'token', 'rate']) t.true((row[key] as Sample).median > 0, `${row.path as string} ${key}`)
  t.true(isSample(rows[2]?.gap))
  t.is(answer.length, 3)
})
