import { once } from 'node:events'
import test from 'ava'
import { Engine, inspect, OptionError, RequestError } from '../../src/index.js'
import { FIXTURES } from '../support/fixtures.js'

const MODEL = `${FIXTURES}golden/mlra_4`
const PROMPT = Array.from({ length: 100 }, (_, i) => (i * 7) % 160)

test('maxContext raises the context above block_size, with a warning; positions go on, the same bits at every rank count', async (t) => {
  const bounded = await Engine.load(MODEL, { ranks: 1 })
  t.is(bounded.info.contextTokens, 128)
  const within = await bounded.generate(PROMPT, { maxTokens: 1000, ignoreEos: true })
  t.is(within.tokens.length, 28)
  const tooLong = await t.throwsAsync(async () => await bounded.generate([...PROMPT, ...PROMPT]), { instanceOf: RequestError })
  t.regex(tooLong.message, /maxContext/)
  await bounded.close()

  let first: readonly number[] | undefined
  for (const ranks of [1, 2, 4] as const) {
    const warned = once(process, 'warning')
    const engine = await Engine.load(MODEL, { ranks, maxContext: 300 })
    const [warning] = (await warned) as [Error & { code: string }]
    t.is(warning.code, 'CONTEXT_BEYOND_TRAINING')
    t.regex(warning.message, /300 .* 128/)
    t.is(engine.info.contextTokens, 300)
    const { tokens, finishReason } = await engine.generate(PROMPT, { maxTokens: 1000, ignoreEos: true })
    t.is(tokens.length, 200)
    t.is(finishReason, 'length')
    t.deepEqual(tokens.slice(0, 28), within.tokens)
    t.deepEqual(tokens, first ?? tokens)
    first = tokens
    await engine.close()
  }
})

test('a smaller maxContext bounds a request, without a warning', async (t) => {
  const engine = await Engine.load(MODEL, { ranks: 1, maxContext: 20 })
  t.is((await engine.generate([1], { maxTokens: 100, ignoreEos: true })).tokens.length, 19)
  await engine.close()
  const warned = once(process, 'warning')
  const small = await Engine.load(MODEL, { ranks: 1, maxContext: 100, cacheTokens: 64 })
  const [warning] = (await warned) as [Error & { code: string }]
  t.is(warning.code, 'CONTEXT_CUT')
  t.is(small.info.contextTokens, 64)
  await small.close()
  t.is((await inspect(MODEL, { maxContext: 2 ** 20 })).contextTokens > 128, true)
  await t.throwsAsync(Engine.load(MODEL, { maxContext: 2 ** 24 + 1 }), { instanceOf: OptionError })
  await t.throwsAsync(Engine.load(MODEL, { maxContext: 0 }), { instanceOf: OptionError })
})
