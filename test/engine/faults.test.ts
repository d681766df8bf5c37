import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import test from 'ava'
import { Engine, EngineClosedError, OptionError, RequestError } from '../../src/index.js'
import { pages } from '../../src/testing.js'
import { ROOT, TINY } from '../support/fixtures.js'
import { full } from '../support/tier.js'

const run = promisify(execFile)

test('aborting in the middle of decoding resolves with the text so far and frees the pages', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2 })
  const abort = new AbortController()
  const generation = engine.generate('Once upon a time', { maxTokens: 1000, ignoreEos: true, signal: abort.signal })
  let seen = 0
  for await (const chunk of generation) {
    seen += chunk.tokens.length
    if (seen >= 10) abort.abort()
  }
  const completion = await generation
  t.is(completion.finishReason, 'abort')
  t.true(completion.tokens.length >= 10 && completion.tokens.length < 1000)
  t.is(completion.tokens.length, seen)
  // The next request runs at once, and when it has ended every page is free.
  await engine.generate('A', { maxTokens: 2 })
  t.is(pages(engine).free, pages(engine).all)
  await engine.close()
})

test('leaving the iterator ends the request; the engine serves the next one', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2 })
  const generation = engine.generate('Once upon a time', { maxTokens: 1000, ignoreEos: true })
  for await (const _ of generation) break
  t.is((await generation).finishReason, 'abort')
  t.is((await engine.generate('Once', { maxTokens: 3, ignoreEos: true })).tokens.length, 3)
  await engine.close()
})

test('a signal that was aborted before generates nothing', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1 })
  const { finishReason, tokens } = await engine.generate('Once', { signal: AbortSignal.abort() })
  t.is(finishReason, 'abort')
  t.is(tokens.length, 0)
  await engine.close()
})

test('requests made at once are served together, each as if alone', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2 })
  const alone: string[] = []
  for (const prompt of ['Once upon', 'The king']) alone.push((await engine.generate(prompt, { maxTokens: 20 })).text)
  const together = await Promise.all(['Once upon', 'The king'].map(async (prompt) => (await engine.generate(prompt, { maxTokens: 20 })).text))
  t.deepEqual(together, alone)
  await engine.close()
})

test('closing twice is fine, rejects what runs, and a closed engine says so', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2 })
  const running = engine.generate('Once upon a time', { maxTokens: 1000, ignoreEos: true })
  const closing = engine.close()
  await engine.close()
  await closing
  await t.throwsAsync(engine.close({ drainMs: -1 }), { instanceOf: OptionError, message: /drainMs is out of range/ })
  await t.throwsAsync(async () => await running, { instanceOf: EngineClosedError })
  await t.throwsAsync(async () => await engine.generate('Once'), { instanceOf: EngineClosedError })
  await t.throwsAsync(engine.logits([1]), { instanceOf: EngineClosedError })
})

test('options and parameters out of range are named', async (t) => {
  for (const [options, what] of [
    [{ ranks: 3 }, /ranks is not supported.*one of auto, 1, 2, 4.*actual 3/],
    [{ backend: 'gpu2' }, /backend is not supported/],
    [{ weights: 'int3' }, /weights is not supported/],
    [{ cache: 'f64' }, /cache is not supported/],
    [{ prefillChunk: 0 }, /prefillChunk is out of range/],
    [{ maxQueue: -1 }, /maxQueue is out of range/],
    [{ cacheTokens: 64, cacheBytes: 64 }, /both given/],
    [{ rank: 2 }, /has no option "rank".*Did you mean ranks/],
    [{ onProgress: 1 }, /onProgress has the wrong type/],
  ] as const) {
    await t.throwsAsync(Engine.load(TINY, options as never), { instanceOf: OptionError, message: what })
  }
  const engine = await Engine.load(TINY, { ranks: 1 })
  for (const [params, what] of [
    [{ maxTokens: -1 }, /maxTokens is out of range/],
    [{ maxTokens: 1.5 }, /maxTokens is out of range/],
    [{ temperature: -1 }, /temperature is out of range/],
    [{ seed: -1 }, /seed is out of range/],
    [{ priority: 11 }, /priority is out of range/],
    [{ timeoutMs: 0 }, /timeoutMs is out of range/],
    [{ topK: 0 }, /topK is out of range/],
    [{ bestOf: 4 }, /has no option "bestOf"/],
    [{ ignoreEos: 'yes' }, /ignoreEos must be a boolean/],
  ] as const) {
    await t.throwsAsync(async () => await engine.generate('Once', params as never), { instanceOf: OptionError, message: what })
  }
  for (const [prompt, code] of [
    ['', 'PROMPT_EMPTY'],
    [[], 'PROMPT_EMPTY'],
    [[4096], 'TOKEN_INVALID'],
    [[-1], 'TOKEN_INVALID'],
    [[1.5], 'TOKEN_INVALID'],
    [Array(1024).fill(1), 'PROMPT_TOO_LONG'],
    [7, 'TOKEN_INVALID'],
  ] as const) {
    const error = await t.throwsAsync(async () => await engine.generate(prompt as never), { instanceOf: RequestError })
    t.is((error as RequestError).code, code)
  }
  // None of it was fatal.
  t.is((await engine.generate('Once', { maxTokens: 2, ignoreEos: true })).tokens.length, 2)
  await engine.close()
})

full('a prompt may fill the context', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1 })
  t.is((await engine.generate(Array(1023).fill(1), { maxTokens: 9, ignoreEos: true })).tokens.length, 1)
  t.is((await engine.logits(Array(1024).fill(1))).length, 1024 * 4096)
  await engine.close()
})

test('loading stops when its signal says so', async (t) => {
  const error = await t.throwsAsync(Engine.load(TINY, { signal: AbortSignal.abort() }))
  t.is((error as { code?: string }).code, 'LOAD_ABORTED')
  const abort = new AbortController()
  const midway = await t.throwsAsync(Engine.load(TINY, { signal: abort.signal, onProgress: () => abort.abort() }))
  t.is((midway as { code?: string }).code, 'LOAD_ABORTED')
})

test('a process that never closes its engine can still exit', async (t) => {
  const program = `
    import { Engine } from ${JSON.stringify(new URL('../../src/index.js', import.meta.url).href)}
    const engine = await Engine.load(${JSON.stringify(TINY)}, { ranks: 4 })
    console.log((await engine.generate('Once upon a time', { maxTokens: 3 })).tokens.length)`
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', program], { cwd: ROOT, timeout: 60_000 })
  t.is(stdout.trim(), '3')
})
