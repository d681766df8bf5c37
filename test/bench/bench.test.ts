// The benchmarks at tiny sizes: what they write, and what must hold of it whatever the machine does. Never times.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import type { BenchResult } from '../../bench/harness/results.js'
import { isSample, type Sample } from '../../bench/harness/sample.js'
import { attentionInstructions } from '../../bench/model/attention-work.js'
import { calibrate, predict } from '../../bench/model/step-time.js'
import { benchShape } from '../../bench/models.js'
import { BENCHMARKS } from '../../bench/registry.js'
import { temporary } from '../support/models.js'
import { withoutNats } from '../support/nats.js'

/** A command that does not end is a failure, not a wait for good. */
const run = (file: string, args: readonly string[], options: { maxBuffer?: number } = {}) =>
  promisify(execFile)(file, args, { timeout: 580_000, killSignal: 'SIGKILL', ...options })
const CLI = 'dist/src/cli.js'

/** Folder of quick results of the only machine in a folder of results. */
function machineFolder(out: string): string {
  const [name] = readdirSync(join(out, 'quick'), { withFileTypes: true }).filter((entry) => entry.isDirectory())
  return join(out, 'quick', name?.name ?? 'none')
}

function resultOf(out: string, name: string): BenchResult {
  return JSON.parse(readFileSync(join(machineFolder(out), `${name}.json`), 'utf8')) as BenchResult
}

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
  for (const name of names) t.true(report.includes(`## ${name}: `))
  for (const [, image] of report.matchAll(/!\[[^\]]*\]\(([^)]+)\)/g)) t.true(readFileSync(join(path.trim(), '..', image as string)).length > 0)
})

const withServer = withoutNats() === undefined ? test : test.skip
withServer('cluster, quick: latencies and throughput of every path, and a pause when a replica is killed', async (t) => {
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

test('Ctrl-C keeps what was measured, marked as interrupted', async (t) => {
  const out = join(temporary(t), 'results')
  const child = spawn(process.execPath, [CLI, 'bench', 'collectives', '--quick', '--ranks', '2', '--rounds', '1000', '--out', out], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  setTimeout(() => child.kill('SIGINT'), 15_000)
  const [code] = (await once(child, 'exit')) as [number]
  t.is(code, 130)
  const result = resultOf(out, 'collectives')
  t.true(result.interrupted)
  t.true(result.rows.length > 0)
})

test('what a benchmark would ignore is refused, and so is what is out of range', async (t) => {
  for (const [args, expected] of [
    [['load', '--contexts', '64'], /load has no such option/],
    [['attention', '--contexts', '65'], /multiples of 64/],
    [['scaling', '--ranks', '3'], /1, 2 and 4/],
    [['scaling', '--rounds', '0'], /rounds is out of range/],
    [['throughput', '--ranks', '1,2'], /takes one rank count/],
    [['collectives', '--ranks', '1'], /exchanges nothing/],
    [['attention', '--cache', 'f16'], /no such cache/],
    [['scaling', '--quick', '--preset', 'huge'], /no such model/],
    [['scaling', '--quick', '--variant', 'mlx'], /no such variant/],
    [['scaling', '--quick', '--cache', 'f16'], /cache: 'f16'/],
    [['nonsense'], /no benchmark of this name/],
    [['report', '--out', join(temporary(t), 'none')], /there are no results for a report/],
    [['prediction', '--out', join(temporary(t), 'none')], /needs results that are not there/],
    [['peers', '--peers', temporary(t)], /lacks packages/],
  ] as const) {
    const error = await t.throwsAsync(run(process.execPath, [CLI, 'bench', ...args]))
    t.regex((error as unknown as { stderr: string }).stderr, expected)
  }
  const { stdout } = await run(process.execPath, [CLI, 'bench'])
  t.is(stdout.trim().split('\n').length, BENCHMARKS.length)
})

test('ranks that share the heads of a latent do more together than one alone; those with a latent each load the rope key more often', (t) => {
  const work = (variant: string) => ([1, 2, 4] as const).map((ranks) => attentionInstructions(benchShape('small', variant).attention, ranks))
  // Groups of four heads have their own keys at every rank count.
  t.is(new Set(work('gqa')).size, 1)
  const [one, two, four] = work('mla') as [number, number, number]
  t.is(one, two)
  t.true(four > 1.2 * two)
  const latents = work('mlra_4') as [number, number, number]
  t.true(latents[0] < latents[1] && latents[1] < latents[2] && latents[2] / latents[0] < four / one)
})

test('the model of a step: a line is found again, and effects of ranks are applied to its parts', (t) => {
  const cells = [1024, 4096, 16384].map((context) => ({ context, ms: 3 + 0.001 * context }))
  const line = calibrate('mla', cells, 2)
  if (!line) return t.fail()
  t.true(Math.abs(line.baseMs - 3) < 1e-9 && Math.abs(line.perTokenMs - 0.001) < 1e-12)
  const alone = { weights: 1, attention: 1, collectives: 0, collectiveMs: 0 }
  t.true(Math.abs(predict(line, 65536, alone) - (3 + 65.536)) < 1e-9)
  // 1 ms stays, weights and attention are shared by two, and 10 collectives are added.
  t.true(Math.abs(predict(line, 65536, { weights: 2, attention: 2, collectives: 10, collectiveMs: 0.1 }) - (1 + 1 + 32.768 + 1)) < 1e-9)
  t.is(calibrate('mla', cells.slice(0, 1), 2), undefined)
  t.is(
    calibrate(
      'mla',
      [...cells].map(({ context, ms }) => ({ context, ms: 30 - ms })),
      2,
    ),
    undefined,
  )
})
