// tetrad batch: one right result for each line, whoever dies meanwhile.
import { appendFileSync, copyFileSync, existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { connect } from '@nats-io/transport-node'
import test, { type ExecutionContext } from 'ava'
import { BatchError } from '../../src/index.js'
import { scanBatch } from '../../src/serve/batch/batch-file.js'
import { NatsLink } from '../../src/serve/nats/connection.js'
import { type Job, JobStreams } from '../../src/serve/nats/job-streams.js'
import { temporary } from '../support/models.js'
import { cuttable, natsServer, natsTest, replica, type Tetrad, tetrad } from '../support/nats.js'

interface Line {
  readonly custom_id: string
  readonly response: { status_code: number; body: { choices?: { text?: string; message?: { content: string } }[]; error?: { code: string } } } | null
  readonly error: { code: string } | null
}

const COUNT = 60

/** Both endpoints, sampled with and without a seed, and some that are refused. */
function requests(path: string, count = COUNT): void {
  const lines = Array.from({ length: count }, (_, i) => {
    const common = { model: 'tiny', temperature: i % 3 === 0 ? 0 : 1, ...(i % 5 === 0 && { seed: i }), ...(i % 20 === 7 && { top_p: 7 }) }
    const chat = { url: '/v1/chat/completions', body: { ...common, messages: [{ role: 'user', content: `Tell of ${i}` }], max_tokens: 30 } }
    const text = { url: '/v1/completions', body: { ...common, prompt: `Number ${i} said`, max_tokens: 40, ignore_eos: true } }
    return JSON.stringify({ custom_id: `line ${i}`, method: 'POST', ...(i % 4 === 1 ? chat : text) })
  })
  writeFileSync(path, `${lines.join('\n')}\n`)
}

/** custom_id -> what was answered; throws for one that is there twice. */
function results(path: string): Map<string, string> {
  const found = new Map<string, string>()
  for (const line of readFileSync(path, 'utf8').trim().split('\n')) {
    const { custom_id: id, response, error } = JSON.parse(line) as Line
    if (found.has(id)) throw new Error(`${id} is there twice`)
    found.set(id, JSON.stringify([response?.status_code, response?.body.choices, response?.body.error, error]))
  }
  return new Map([...found].sort(([a], [b]) => a.localeCompare(b)))
}

/** Files in a folder of the test, and the results that an engine of one process gives. */
async function prepared(t: ExecutionContext, count = COUNT): Promise<{ input: string; output: string; expected: Map<string, string> }> {
  const folder = temporary(t)
  const input = join(folder, 'in.jsonl')
  const local = join(folder, 'local.jsonl')
  requests(input, count)
  const { ended, output } = tetrad(t, 'batch', input, local, '--ranks', '1')
  t.is((await ended)[0], 0, output.err)
  const expected = results(local)
  t.is(expected.size, count)
  return { input, output: join(folder, 'out.jsonl'), expected }
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 2400 && !condition(); i++) await setTimeout(25)
}

const linesOf = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8').split('\n').length - 1 : 0)

test('a batch on this machine: refused requests are results; killed in the middle it goes on; other files are refused', async (t) => {
  t.timeout(240_000)
  const { input, output, expected } = await prepared(t)
  t.is([...expected.values()].filter((answer) => answer.startsWith('[400')).length, 3)
  const first = tetrad(t, 'batch', input, output, '--ranks', '2', '--concurrency', '3')
  await until(() => linesOf(output) >= 12)
  first.child.kill('SIGKILL')
  await first.ended
  const kept = readFileSync(output, 'utf8').split('\n').slice(0, 10).join('\n')
  // A line that was being written.
  truncateSync(output, Buffer.byteLength(kept) + 30)
  const second = tetrad(t, 'batch', input, output, '--ranks', '4', '--json')
  t.is((await second.ended)[0], 0, second.output.err)
  t.deepEqual(results(output), expected)
  t.true(readFileSync(output, 'utf8').startsWith(kept))
  t.regex(second.output.err, /10 of 60 results are there already/)
  const summary = JSON.parse(second.output.out) as { requests: number; failed: number; ran: number }
  t.deepEqual({ ...summary, seconds: 0 }, { requests: 60, failed: 3, ran: 50, seconds: 0 })

  const other = join(temporary(t), 'other.jsonl')
  copyFileSync(output, other)
  appendFileSync(other, `${JSON.stringify({ custom_id: 'of another file', response: null, error: null })}\n`)
  const before = readFileSync(other)
  const foreign = tetrad(t, 'batch', input, other, '--ranks', '1')
  t.is((await foreign.ended)[0], 1)
  t.regex(foreign.output.err, /BATCH_OUTPUT_MISMATCH/)
  // Files of others, whole or in one line, and the requests themselves are left as they are.
  for (const path of [join(temporary(t), 'notes.txt'), input]) {
    if (path !== input) writeFileSync(path, 'a file that somebody needs')
    const was = readFileSync(path)
    const refused = tetrad(t, 'batch', input, path, '--ranks', '1')
    t.is((await refused.ended)[0], 1)
    t.regex(refused.output.err, /BATCH_OUTPUT_MISMATCH/)
    t.deepEqual(readFileSync(path), was)
  }
  const version = tetrad(t, 'batch', input, output, '--weights', 'int8')
  t.is((await version.ended)[0], 1)
  t.regex(version.output.err, /BATCH_OUTPUT_MISMATCH[\s\S]*another version/)
  t.deepEqual(readFileSync(other), before)
})

test('Ctrl-C ends a batch with 130; its results are kept, and the same command goes on', async (t) => {
  t.timeout(120_000)
  const { input, output, expected } = await prepared(t, 40)
  const first = tetrad(t, 'batch', input, output, '--ranks', '1', '--concurrency', '2')
  await until(() => linesOf(output) >= 5)
  first.child.kill('SIGINT')
  t.is((await first.ended)[0], 130)
  t.regex(first.output.err, /BATCH_ABORTED/)
  const kept = results(output)
  t.true(kept.size >= 5 && kept.size < 40)
  t.is((await tetrad(t, 'batch', input, output, '--ranks', '1').ended)[0], 0)
  t.deepEqual(results(output), expected)
})

test('files of requests that cannot be used are refused, with the line', async (t) => {
  const path = join(temporary(t), 'in.jsonl')
  const good = { custom_id: 'a', method: 'POST', url: '/v1/completions', body: { model: 'tiny', prompt: 'x' } }
  for (const [text, expected] of [
    ['', /line 1 .*at least one/],
    [`${JSON.stringify(good)}\nnonsense`, /line 2 .*JSON/],
    [`${JSON.stringify(good)}\n\n${JSON.stringify(good)}\n`, /line 3 .*as in line 1/],
    [JSON.stringify({ ...good, method: 'GET' }), /line 1 .*method/],
    [JSON.stringify({ ...good, more: 1 }), /line 1 .*additional/],
    ['[]', /line 1 .*object/],
    [`"${'x'.repeat(17 << 20)}"`, /line 1 .*longer line/],
  ] as const) {
    writeFileSync(path, text)
    const error = await t.throwsAsync(scanBatch(path), { instanceOf: BatchError })
    t.regex(error?.message as string, expected)
  }
  await t.throwsAsync(scanBatch('/nowhere/in.jsonl'), { instanceOf: BatchError })
})

natsTest(
  'a batch in a cluster: workers are killed and cut off, the server is restarted, the client is killed; each line has its one result',
  async (t) => {
    t.timeout(280_000)
    const { input, output, expected } = await prepared(t)
    const server = await natsServer(t)
    const way = await cuttable(t, server.port)
    const workers: Tetrad[] = await Promise.all([replica(t, server.url), replica(t, way.url, '--batch-jobs', '2')])
    const client = () => tetrad(t, 'batch', input, output, '--nats', server.url)
    const first = client()
    await until(() => linesOf(output) >= 8)
    workers[0]?.child.kill('SIGKILL')
    await until(() => linesOf(output) >= 14)
    first.child.kill('SIGKILL')
    await first.ended
    workers.push(await replica(t, server.url))
    const second = client()
    await until(() => linesOf(output) >= 18)
    // What it has, comes again elsewhere; what it answers when it is back, is not the first answer any more.
    way.cut()
    await until(() => linesOf(output) >= 30)
    await server.kill()
    await setTimeout(1000)
    await server.start()
    way.mend()
    t.is((await second.ended)[0], 0, second.output.err)
    t.deepEqual(results(output), expected)
    t.regex(second.output.err, /60 results in .*, 3 of them failed/)
    // Nothing of it is left in the cluster, and a third run has nothing to do.
    const nc = await connect({ servers: server.url.replace('nats://', '') })
    t.teardown(() => nc.close())
    for (const name of ['TETRAD_JOBS', 'TETRAD_RESULTS']) {
      const left = async () => ((await nc.request(`$JS.API.STREAM.INFO.${name}`)).json() as { state: { messages: number } }).state.messages
      // A worker that comes late takes its result away itself.
      for (let i = 0; i < 200 && (await left()) > 0; i++) await setTimeout(50)
      t.is(await left(), 0, name)
    }
    const third = client()
    t.is((await third.ended)[0], 0)
    t.regex(third.output.err, /60 of 60 results are there already/)
    for (const { child } of workers.slice(1)) child.kill('SIGTERM')
    t.deepEqual(await Promise.all(workers.slice(1).map(async ({ ended }) => (await ended)[0])), [0, 0])
  },
)

natsTest('only the first result of a job counts; a job is queued once; a malformed job is discarded', async (t) => {
  t.timeout(120_000)
  const server = await natsServer(t)
  const link = await NatsLink.open({ url: server.url }, 'test', () => {})
  t.teardown(() => link.close())
  const streams = await JobStreams.open(link)
  const job: Job = { batch: 'a'.repeat(24), line: 1, customId: 'x', url: '/v1/completions', body: { model: 'tiny', prompt: 'Once', max_tokens: 2 } }
  const most = link.maxPayload
  t.true(await streams.submit('g', job, most))
  t.false(await streams.submit('g', job, most))
  t.is(await streams.pending('g', job.batch), 1)
  t.is(await streams.pending('g', 'f'.repeat(24)), 0)
  await streams.begin(job.batch, most)
  await streams.begin(job.batch, most)
  const result = (text: string) => ({ id: text, custom_id: 'x', response: null, error: null })
  t.false(await streams.isAnswered(job))
  t.true(await streams.answer(job, result('first'), most))
  t.false(await streams.answer(job, result('second'), most))
  t.true(await streams.isAnswered(job))
  t.is((await streams.resultsOf(job.batch)).stored, 2)
  // It is over: a worker that comes late leaves nothing behind.
  await streams.forget('g', job.batch)
  t.false(await streams.answer(job, result('late'), most))
  t.is((await streams.resultsOf(job.batch)).stored, 0)
  await t.throwsAsync(streams.submit('g', { ...job, line: 2, body: { prompt: 'x'.repeat(2 << 20) } }, most), { instanceOf: RangeError })
  const worker = await replica(t, server.url)
  link.nc.publish(`tetrad.jobs.${worker.group}.${'b'.repeat(24)}.1`, Buffer.from('nonsense'))
  await worker.until(/discarding a malformed batch job/)
  // A job without a seed is answered all the same.
  await streams.begin('c'.repeat(24), most)
  t.true(await streams.submit(worker.group, { ...job, batch: 'c'.repeat(24) }, most))
  for (let i = 0; i < 200 && !(await streams.isAnswered({ ...job, batch: 'c'.repeat(24) })); i++) await setTimeout(50)
  t.true(await streams.isAnswered({ ...job, batch: 'c'.repeat(24) }))
})

natsTest('a batch whose replicas make way for another version ends, and says so', async (t) => {
  t.timeout(120_000)
  const folder = temporary(t)
  const [input, output] = [join(folder, 'in.jsonl'), join(folder, 'out.jsonl')]
  requests(input, 3)
  const server = await natsServer(t)
  const first = await replica(t, server.url, '--batch-jobs', '0')
  const client = tetrad(t, 'batch', input, output, '--nats', server.url)
  await until(() => existsSync(output))
  await setTimeout(500)
  first.child.kill('SIGTERM')
  await first.ended
  await replica(t, server.url, '--weights', 'int8', '--batch-jobs', '0')
  t.is((await client.ended)[0], 1)
  t.regex(client.output.err, /BATCH_OUTPUT_MISMATCH: the replicas of tiny run another version now/)
})

natsTest('a server without streams: replicas serve, and a batch is refused; when it has them, jobs are taken', async (t) => {
  t.timeout(120_000)
  const configuration = join(temporary(t), 'nats.conf')
  const configure = (streams: string) =>
    writeFileSync(configuration, `accounts { A { ${streams} users: [{ user: a, password: a }] } }\nno_auth_user: a\n`)
  configure('')
  const server = await natsServer(t, ['-c', configuration])
  const worker = await replica(t, server.url)
  await worker.until(/no batch jobs are taken/)
  const folder = temporary(t)
  requests(join(folder, 'in.jsonl'), 2)
  const { ended, output } = tetrad(t, 'batch', join(folder, 'in.jsonl'), join(folder, 'out.jsonl'), '--nats', server.url)
  t.is((await ended)[0], 1)
  t.regex(output.err, /error NATS_NO_JETSTREAM/)
  await server.kill()
  configure('jetstream: enabled,')
  await server.start()
  await worker.until(/batch jobs are taken now/)
  const again = tetrad(t, 'batch', join(folder, 'in.jsonl'), join(folder, 'out.jsonl'), '--nats', server.url)
  t.is((await again.ended)[0], 0, again.output.err)
  t.is(results(join(folder, 'out.jsonl')).size, 2)
})

test('flags that a front or a batch in a cluster has no use for are refused', async (t) => {
  for (const [args, expected] of [
    [['serve', '--front'], /--front needs --nats/],
    [['serve', '--front', '--nats'], /--nats needs an address/],
    [['serve', '--front', '--nats', 'nats://127.0.0.1:1', '--ranks', '2'], /no engine, so --ranks has no effect/],
    [['serve', '--front', '--nats', 'nats://127.0.0.1:1', '--model', 'x'], /no engine, so --model has no effect/],
    [['serve', '--nats-creds', 'x'], /--nats-creds needs --nats/],
    [['serve', '--batch-jobs', '2'], /--batch-jobs needs --nats/],
    [['serve', '--nats', 'nats://127.0.0.1:1', '--batch-jobs', '257'], /batch-jobs is out of range/],
    [['serve', '--front', '--nats', 'nats://127.0.0.1:1', '--nats-deadline-ms', '-1'], /nats-deadline-ms is out of range/],
    [['serve', '--nats', 'nats://127.0.0.1:1', '--nats-deadline-ms', '5'], /nats-deadline-ms needs --front/],
    [['serve', '--nats', 'nats://127.0.0.1:1', '--model', '/models/two words'], /invalid model name for a cluster[\s\S]*--model name=/],
    [['serve', '--nats', 'nats://a:b@127.0.0.1:1,c:d@127.0.0.1:2'], /its servers have different users/],
    [['batch', 'a', 'b', '--nats', 'nats://127.0.0.1:1', '--concurrency', '2'], /no engine for --concurrency/],
    [['batch', 'a', 'b', '--concurrency', '0'], /concurrency is out of range/],
    [['batch', 'a'], /missing required argument/],
  ] as const) {
    const { ended, output } = tetrad(t, ...args)
    t.is((await ended)[0], 1, args.join(' '))
    t.regex(output.err, expected)
  }
})
