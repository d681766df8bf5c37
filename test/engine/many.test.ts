// generateMany, chat and what the engine refuses at once: one small model, no timing.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import test from 'ava'
import { CheckpointError, EMBEDDED_MODEL, Engine, OptionError, OverloadedError, RequestError } from '../../src/index.js'
import { PLAIN } from '../../src/tokenizer/chat-template.js'
import { FIXTURES, TINY } from '../support/fixtures.js'
import { copyOf, editConfig } from '../support/models.js'

const SMALL = `${FIXTURES}golden/mlra_4`

test('an array larger than the queue is taken as places become free, and gives what its prompts give alone', async (t) => {
  await using engine = await Engine.load(SMALL, { ranks: 1, maxRunning: 2, maxQueue: 2 })
  const prompts = Array.from({ length: 11 }, (_, i) => [1 + i, 5])
  const params = { maxTokens: 3, ignoreEos: true, temperature: 0.9, seed: 4 }
  let most = 0
  const generation = engine.generateMany(prompts, { ...params, n: 2 })
  for await (const { index } of generation) {
    t.true(index >= 0 && index < 22)
    const { queued, running } = engine.stats()
    most = Math.max(most, queued + running)
  }
  t.true(most <= 4, `${most} requests at a time`)
  const all = await generation
  t.is(all.length, 22)
  for (const [i, prompt] of prompts.entries()) t.deepEqual(all[2 * i]?.tokens, (await engine.generate(prompt, params)).tokens)
  t.deepEqual(await engine.generateMany([]), [])
})

test('a request that can never fit is refused with the limit; one that does not fit now is told to retry', async (t) => {
  await using engine = await Engine.load(SMALL, { ranks: 1, maxRunning: 1, maxQueue: 2 })
  const never = (await t.throwsAsync(async () => engine.generateMany([[1]], { n: 4 }), { instanceOf: RequestError })) as RequestError
  t.is(never.code, 'REQUEST_TOO_LARGE')
  t.regex(never.message, /at most 3/)
  const abort = new AbortController()
  const running = engine.generateMany([[1], [2], [3]], { maxTokens: 100, ignoreEos: true, signal: abort.signal })
  await t.throwsAsync(async () => engine.generateMany(Array(9).fill([1])), { instanceOf: OverloadedError })
  abort.abort()
  t.deepEqual(
    (await running).map(({ finishReason }) => finishReason),
    ['abort', 'abort', 'abort'],
  )
})

test('a call that fails, is aborted or is closed on while it feeds the queue ends, and leaves the engine well', async (t) => {
  const engine = await Engine.load(SMALL, { ranks: 1, maxRunning: 1, maxQueue: 3 })
  const prompts = Array.from({ length: 6 }, () => [1])
  const abort = new AbortController()
  const aborted = engine.generateMany(prompts, { maxTokens: 50, ignoreEos: true, signal: abort.signal })
  const chunks = aborted[Symbol.asyncIterator]()
  await chunks.next()
  abort.abort()
  t.true((await aborted).every(({ finishReason }) => finishReason === 'abort'))
  // A reader that leaves ends those that run and those that wait for a place.
  for await (const chunk of engine.generateMany(prompts, { maxTokens: 50, ignoreEos: true })) {
    t.is(chunk.index, 0)
    break
  }
  const late = (await t.throwsAsync(async () => engine.generateMany(prompts, { maxTokens: 100, ignoreEos: true, timeoutMs: 1 }), {
    instanceOf: RequestError,
  })) as RequestError
  t.is(late.code, 'TIMEOUT')
  t.is((await engine.generate([1], { maxTokens: 2, ignoreEos: true })).tokens.length, 2)
  const closed = engine.generateMany(prompts, { maxTokens: 100, ignoreEos: true })
  await engine.close()
  await t.throwsAsync(async () => closed, { code: 'ENGINE_CLOSED' })
})

test('generate takes one prompt and makes one completion: it names generateMany for the rest', async (t) => {
  await using engine = await Engine.load(SMALL, { ranks: 1 })
  for (const call of [
    () => engine.generate([1], { n: 2 } as object),
    () => engine.generate([[1], [2]] as never),
    () => engine.generate(['a'] as never),
    () => engine.chat([{ role: 'user', content: 'x' }], { n: 2 } as object),
  ]) {
    await t.throwsAsync(async () => call(), { instanceOf: OptionError, message: /generateMany/ })
  }
  for (const prompts of ['Once', [1, 2], null, undefined, 7]) {
    await t.throwsAsync(async () => engine.generateMany(prompts as never), { instanceOf: RequestError, message: /array of prompts/ })
  }
})

test("chat is generate over the model's template", async (t) => {
  await using engine = await Engine.load(undefined, { ranks: 1 })
  const messages = [{ role: 'user', content: 'Tell me of the sea.' }] as const
  const { text } = await engine.chat(messages, { maxTokens: 12 })
  t.is(text, (await engine.generate(PLAIN.render(messages), { maxTokens: 12, stop: PLAIN.stop })).text)
  for (const wrong of [[], 'x', [{ role: 'robot', content: 'x' }], [{ role: 'user', content: 5 }], [null]]) {
    await t.throwsAsync(async () => engine.chat(wrong as never), { code: 'MESSAGES_INVALID' })
  }
})

test('Engine.load without a directory loads the embedded model; a value that is not a path is refused with its type', async (t) => {
  t.true(existsSync(join(EMBEDDED_MODEL, 'config.json')))
  await using engine = await Engine.load()
  t.true(engine.info.hasTokenizer)
  for (const dir of [null, 7, '', {}, [], Symbol('x')]) {
    await t.throwsAsync(Engine.load(dir as never), { instanceOf: OptionError, message: /the model is not a path/ })
  }
  await t.throwsAsync(Engine.load(pathToFileURL(TINY) as never), { instanceOf: OptionError, message: /fileURLToPath/ })
  await t.throwsAsync(Engine.load(join(TINY, 'config.json')), { instanceOf: CheckpointError, message: /is a file.*Give the directory/ })
  await t.throwsAsync(Engine.load('owner/name'), { instanceOf: CheckpointError, message: /give hf:owner\/name/ })
})

test('logits come one row at a time too, and what the function throws rejects', async (t) => {
  await using engine = await Engine.load(SMALL, { ranks: 1 })
  const ids = [3, 1, 4, 1, 5]
  const all = await engine.logits(ids)
  const rows: number[][] = []
  await engine.forEachLogits(ids, (position, row) => {
    t.is(position, rows.length)
    rows.push([...row])
  })
  t.deepEqual(rows.flat(), [...all])
  await t.throwsAsync(
    engine.forEachLogits(ids, () => {
      throw new Error('enough')
    }),
    { message: 'enough' },
  )
  await t.throwsAsync(engine.forEachLogits(ids, 5 as never), { instanceOf: OptionError })
  t.deepEqual([...(await engine.logits(ids))], [...all])
})

test('logits that do not fit one array are refused with the number that does', async (t) => {
  await using engine = await Engine.load(TINY, { ranks: 1, maxContext: 200_000, cacheTokens: 200_000, cache: 'int8', maxRunning: 1 })
  const most = 2 ** 31 / (4 * engine.info.vocab)
  const error = (await t.throwsAsync(engine.logits(Array(most + 1).fill(1)), { instanceOf: RequestError })) as RequestError
  t.is(error.code, 'REQUEST_TOO_LARGE')
  t.regex(error.message, new RegExp(`at most ${most} tokens.*forEachLogits`))
})

test('a model with more end ids than a request can carry is refused; with as many it runs, and all of them end a text', async (t) => {
  const vocab = 160
  const dir = copyOf(t, SMALL)
  editConfig(dir, { eos_token_id: Array.from({ length: 65 }, (_, i) => i) })
  await t.throwsAsync(Engine.load(dir, { ranks: 1 }), { instanceOf: CheckpointError, message: /eos_token_id.*at most 64.*65/ })
  editConfig(dir, { eos_token_id: Array.from({ length: 64 }, (_, i) => i) })
  await using engine = await Engine.load(dir, { ranks: 1 })
  // 32 more are a request's own: below minTokens none of the 96 is sampled.
  const stopTokenIds = Array.from({ length: 32 }, (_, i) => 64 + i)
  const { tokens } = await engine.generate([23], { maxTokens: 40, minTokens: 40, temperature: 100, seed: 1, stopTokenIds })
  t.is(tokens.length, 40)
  t.true(tokens.every((id) => id >= 96 && id < vocab))
})
