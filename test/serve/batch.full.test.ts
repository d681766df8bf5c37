// Batches in this process: every line ends with a result of its own, and a result belongs to the request that it answers.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import fastify from 'fastify'
import { BatchError, Engine, RankError } from '../../src/index.js'
import { scanBatch } from '../../src/serve/batch/batch-file.js'
import { BatchOutput } from '../../src/serve/batch/batch-output.js'
import { type BatchResult, runRequest } from '../../src/serve/batch/batch-request.js'
import { runLocally } from '../../src/serve/batch/run-locally.js'
import { createServer } from '../../src/serve/server.js'
import { injectFault } from '../../src/testing.js'
import { PLAIN } from '../../src/tokenizer/chat-template.js'
import { TINY } from '../support/fixtures.js'
import { temporary } from '../support/models.js'

const BODY = { model: 'tiny', prompt: 'Once', max_tokens: 2 }

function line(customId: string, more: object = {}): object {
  return { custom_id: customId, method: 'POST', url: '/v1/completions', body: BODY, ...more }
}

async function run(t: ExecutionContext, engine: Engine, folder: string, lines: readonly object[]): Promise<Map<string, BatchResult>> {
  const models = new Map([['tiny', { id: 'tiny', engine, template: PLAIN, created: 1 }]])
  const { app } = createServer(models)
  t.teardown(() => app.close())
  const path = join(folder, 'in.jsonl')
  writeFileSync(path, lines.map((one) => `${JSON.stringify(one)}\n`).join(''))
  const results = join(folder, 'out.jsonl')
  const output = await BatchOutput.open(results, await scanBatch(path), new Map())
  try {
    await runLocally({ app, models, path, output, concurrency: 2, onDone: () => {}, signal: new AbortController().signal })
  } finally {
    await output.close()
  }
  const found = readFileSync(results, 'utf8').trim().split('\n')
  return new Map(found.map((text) => JSON.parse(text) as BatchResult).map((result) => [result.custom_id, result]))
}

test('lines that cannot be answered have a result of their own, and the others run', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1, maxRunning: 2, maxQueue: 2, cacheTokens: 512 })
  t.teardown(() => engine.close())
  const results = await run(t, engine, temporary(t), [
    line('good'),
    line('url', { url: '/v1/embeddings' }),
    line('model', { body: { ...BODY, model: 'other' } }),
    line('no model', { body: { prompt: 'x' } }),
    line('stream', { body: { ...BODY, stream: true } }),
    line('too many', { body: { ...BODY, n: 5 } }),
    line('many prompts', { body: { ...BODY, prompt: Array(12).fill('Once') } }),
    line('also good', { body: { ...BODY, max_tokens: 3 } }),
  ])
  const outcome = (id: string) => {
    const { response } = results.get(id) as BatchResult
    return [response?.status_code, (response?.body.error as { code?: string } | undefined)?.code]
  }
  t.is(results.size, 8)
  t.deepEqual(outcome('good'), [200, undefined])
  t.deepEqual(outcome('also good'), [200, undefined])
  t.deepEqual(outcome('url'), [404, 'not_found'])
  t.deepEqual(outcome('model'), [404, 'model_not_found'])
  t.deepEqual(outcome('no model'), [400, 'missing_required_parameter'])
  t.deepEqual(outcome('stream'), [400, 'unsupported_parameter'])
  t.deepEqual(outcome('too many'), [400, 'request_too_large'])
  // More than the queue holds: taken as places come free.
  t.is((results.get('many prompts')?.response?.body.choices as unknown[] | undefined)?.length, 12)
})

test('a request that was changed under its custom_id is refused; unchanged ones are not run again', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1, cacheTokens: 512 })
  t.teardown(() => engine.close())
  const folder = temporary(t)
  const first = await run(t, engine, folder, [line('a'), line('b')])
  const finished = engine.stats().finished
  t.deepEqual(await run(t, engine, folder, [line('b'), line('a')]), first)
  t.is(engine.stats().finished, finished)
  const error = await t.throwsAsync(run(t, engine, folder, [line('a'), line('b', { body: { ...BODY, prompt: 'Twice' } })]), {
    instanceOf: BatchError,
  })
  t.is(error?.code, 'BATCH_OUTPUT_MISMATCH')
  t.regex(error?.message as string, /"b".*line 2/)
})

test('a batch whose engine failed for good ends with that error, and keeps what it has', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2, maxRestarts: 0, cacheTokens: 512 })
  t.teardown(() => engine.close())
  const folder = temporary(t)
  await run(t, engine, folder, [line('a')])
  injectFault(engine, { rank: 1, kind: 'throw' })
  await t.throwsAsync(run(t, engine, folder, [line('a'), line('b', { body: { ...BODY, max_tokens: 9 } })]), { instanceOf: RankError })
  t.is(readFileSync(join(folder, 'out.jsonl'), 'utf8').trim().split('\n').length, 1)
})

test('answers are final, temporary, or those of a queue that stays full; a full queue is waited for as it says, and no longer', async (t) => {
  const answers: { status: number; code?: string; retryMs?: number }[] = []
  const app = fastify()
  t.teardown(() => app.close())
  app.post('/v1/completions', async (_request, reply) => {
    const { status, code, retryMs } = answers.shift() ?? { status: 429, retryMs: 5 }
    if (retryMs !== undefined) reply.header('retry-after-ms', String(retryMs))
    return reply.status(status).send(status === 200 ? { choices: [] } : { error: { code: code ?? null } })
  })
  const ask = async (maxBusyMs: number, ...list: typeof answers) => {
    answers.splice(0, answers.length, ...list)
    const request = { customId: 'a', url: '/v1/completions', body: BODY }
    const { kind, result } = await runRequest(app, request, { apiKey: undefined, maxBusyMs, signal: new AbortController().signal })
    return [kind, result.response?.status_code]
  }
  t.deepEqual(await ask(0, { status: 200 }), ['answered', 200])
  t.deepEqual(await ask(0, { status: 400 }), ['answered', 400])
  t.deepEqual(await ask(0, { status: 500, code: 'non_finite_logits' }), ['answered', 500])
  t.deepEqual(await ask(0, { status: 500 }), ['failed', 500])
  t.deepEqual(await ask(0, { status: 503, code: 'shutting_down' }), ['failed', 503])
  t.deepEqual(await ask(10_000, { status: 429, retryMs: 1 }, { status: 429, retryMs: 1 }, { status: 200 }), ['answered', 200])
  t.deepEqual(await ask(0, { status: 429, retryMs: 1 }), ['busy', 429])
  t.deepEqual(await ask(40), ['busy', 429])
  t.deepEqual(await ask(10_000, { status: 429, retryMs: 60_000 }), ['busy', 429])
})
