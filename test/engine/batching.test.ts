import { setTimeout } from 'node:timers/promises'
import test from 'ava'
import { type Completion, Engine, EngineClosedError, OverloadedError, RequestError } from '../../src/index.js'
import { forgetPrefixes } from '../../src/internals.js'
import { pages, recordLogits } from '../../src/testing.js'
import { randomNumbers, TINY } from '../support/fixtures.js'
import { full, inFull, quickIf } from '../support/tier.js'
import { until } from '../support/until.js'

interface Case {
  readonly prompt: number[]
  readonly maxTokens: number
  readonly temperature: number
  readonly seed: number
  /** Tokens after which it is aborted. */
  readonly abortAfter: number | undefined
}

const random = randomNumbers(99)
const integer = (max: number) => Math.floor(random() * max)
const SYSTEM = Array.from({ length: 140 }, () => integer(4096))
const CASES: Case[] = Array.from({ length: inFull ? 64 : 22 }, (_, seed) => ({
  prompt: [...(seed % 3 === 0 ? SYSTEM : []), ...Array.from({ length: 1 + integer(120) }, () => integer(4096))],
  maxTokens: 1 + integer(40),
  temperature: seed % 2 === 0 ? 0 : 0.8,
  seed,
  abortAfter: seed % 9 === 4 ? 1 + integer(6) : undefined,
}))

async function run(engine: Engine, c: Case, abort = true): Promise<number[]> {
  const { prompt, abortAfter, ...params } = c
  const generation = engine.generate(prompt, { ...params, ignoreEos: true })
  const tokens: number[] = []
  for await (const chunk of generation) {
    tokens.push(...chunk.tokens)
    if (abort && abortAfter !== undefined && tokens.length >= abortAfter) break
  }
  return tokens
}

let computedAlone: Promise<{ tokens: number[]; hashes: Map<number, string> }[]> | undefined
/** Each request alone, with no prefix cached: tokens, and the hash of every step's logits by position. */
function alone() {
  computedAlone ??= (async () => {
    const results = []
    const engine = await Engine.load(TINY, { ranks: 1 })
    for (const c of CASES) {
      forgetPrefixes(engine)
      const recorder = recordLogits(engine)
      const tokens = await run(engine, c, false)
      recorder.stop()
      results.push({ tokens, hashes: new Map(recorder.rows.map((row) => [row.position, row.hash])) })
    }
    if (engine.stats().cachedTokens > 0) throw new Error('a request that should run alone found a cached prefix')
    await engine.close()
    return results
  })()
  return computedAlone
}

for (const ranks of [1, 2, 4] as const) {
  const declare = quickIf(ranks === 2)
  declare(
    `${CASES.length} requests at once at ${ranks} ranks, with aborts and a cache too small for all: each has the tokens and logit bits it has alone`,
    async (t) => {
      const engine = await Engine.load(TINY, { ranks, maxRunning: 12, cacheTokens: 1280, prefillChunk: 48 })
      const recorder = recordLogits(engine)
      const outputs = await Promise.all(
        CASES.map(async (c, i) => {
          await setTimeout((i % 8) * 20)
          return run(engine, c)
        }),
      )
      recorder.stop()
      const expected = await alone()
      for (const [i, tokens] of outputs.entries()) {
        const whole = (expected[i] as { tokens: number[] }).tokens
        t.deepEqual(tokens, CASES[i]?.abortAfter === undefined ? whole : whole.slice(0, tokens.length), `request ${i}`)
      }
      for (const { seed, position, hash } of recorder.rows) {
        if (expected[seed]?.hashes.get(position) !== hash) t.fail(`request ${seed}: other logits at position ${position}`)
      }
      const stats = engine.stats()
      t.log(`${stats.preemptions} preemptions, ${stats.cachedTokens} prompt tokens from the prefix cache, ${recorder.rows.length} rows of logits`)
      t.true(stats.preemptions > 0)
      t.true(stats.cachedTokens > 0)
      t.is(stats.running + stats.queued, 0)
      t.is(pages(engine).free, pages(engine).all)
      await engine.close()
    },
  )
}

test('an array of prompts gives an array of completions, and chunks with their index', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2 })
  const prompts = ['Once upon a time', [1843, 360], 'The king']
  const single: Completion[] = []
  for (const prompt of prompts) single.push(await engine.generate(prompt, { maxTokens: 12 }))
  const generation = engine.generateMany(prompts, { maxTokens: 12 })
  const texts = ['', '', '']
  for await (const { index, text } of generation) texts[index] += text
  const all = await generation
  t.deepEqual(
    all.map((c) => c.tokens),
    single.map((c) => c.tokens),
  )
  t.deepEqual(
    texts,
    single.map((c) => c.text),
  )
  await t.throwsAsync(async () => await engine.generateMany(['Once', '']), { instanceOf: RequestError })
  await engine.close()
})

test('a second turn finds the first in the prefix cache, and says so', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2 })
  const first = await engine.generate(SYSTEM, { maxTokens: 60, ignoreEos: true })
  t.is(first.usage.cachedTokens, 0)
  const turn = [...SYSTEM, ...first.tokens, 5, 6, 7]
  const second = await engine.generate(turn, { maxTokens: 5, ignoreEos: true })
  // Three full pages, and the rows of a fourth that the first request had computed.
  t.is(second.usage.cachedTokens, SYSTEM.length + 59)
  const fresh = await Engine.load(TINY, { ranks: 1 })
  t.deepEqual((await fresh.generate(turn, { maxTokens: 5, ignoreEos: true })).tokens, second.tokens)
  await fresh.close()
  await engine.close()
})

test('a full queue refuses at once and says when to retry; queued requests are served', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2, maxRunning: 2, maxQueue: 3 })
  const taken = Array.from({ length: 5 }, () => engine.generate('Once', { maxTokens: 20, ignoreEos: true }))
  const error = (await t.throwsAsync(async () => await engine.generate('Once'), { instanceOf: OverloadedError })) as OverloadedError
  t.is(error.code, 'OVERLOADED')
  t.true(error.retryAfterMs >= 100)
  for (const completion of await Promise.all(taken)) t.is(completion.tokens.length, 20)
  t.is((await engine.generate('Once', { maxTokens: 2, ignoreEos: true })).tokens.length, 2)
  await engine.close()
})

full('queueTimeoutMs and timeoutMs reject their request only, and the error says which', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1, maxRunning: 1 })
  const long = engine.generate('Once', { maxTokens: 900, ignoreEos: true })
  // Prompts are tokenized on other threads, so the next one could overtake it.
  await until(() => engine.stats().running === 1)
  const queued = (await t.throwsAsync(async () => await engine.generate('Once', { queueTimeoutMs: 30 }), {
    instanceOf: RequestError,
  })) as RequestError
  t.is(queued.code, 'TIMEOUT')
  t.regex(queued.message, /waited in the queue longer than 30 ms/)
  t.is((await long).tokens.length, 900)
  const total = (await t.throwsAsync(async () => await engine.generate('Once', { maxTokens: 1000, ignoreEos: true, timeoutMs: 40 }), {
    instanceOf: RequestError,
  })) as RequestError
  t.is(total.code, 'TIMEOUT')
  t.is((await engine.generate('Once', { maxTokens: 3, ignoreEos: true, timeoutMs: 60_000, queueTimeoutMs: 60_000 })).tokens.length, 3)
  t.is(pages(engine).free, pages(engine).all)
  await engine.close()
})

test('a request that can never fit the cache is refused at once', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1, cacheTokens: 128 })
  t.is(engine.info.contextTokens, 128)
  const error = (await t.throwsAsync(async () => await engine.generate(Array(128).fill(1)), { instanceOf: RequestError })) as RequestError
  t.is(error.code, 'PROMPT_TOO_LONG')
  t.regex(error.message, /more cacheTokens/)
  t.is((await engine.generate(Array(100).fill(1), { maxTokens: 1000, ignoreEos: true })).usage.completionTokens, 28)
  await engine.close()
})

full('a slow reader pauses its own request only, and gets the same tokens', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2 })
  const whole = await engine.generate('Once upon a time', { maxTokens: 300, ignoreEos: true })
  const slow = engine.generate('Once upon a time', { maxTokens: 300, ignoreEos: true })
  const iterator = slow[Symbol.asyncIterator]()
  const tokens = [...((await iterator.next()).value?.tokens ?? [])]
  // Others run to their end meanwhile, and the slow one stops near the bound: once nobody reads, nothing is generated any more.
  t.deepEqual((await engine.generate('Once upon a time', { maxTokens: 300, ignoreEos: true })).tokens, whole.tokens)
  const others = 2 * whole.tokens.length
  const ahead = engine.stats().generatedTokens - others
  t.true(ahead < 90, `${ahead} tokens`)
  const other = await engine.generate('The king', { maxTokens: 100, ignoreEos: true })
  t.is(engine.stats().generatedTokens - others - other.tokens.length, ahead)
  t.is(engine.stats().running, 1)
  for (let step = await iterator.next(); !step.done; step = await iterator.next()) tokens.push(...step.value.tokens)
  t.deepEqual(tokens, [...whole.tokens])
  await engine.close()
})

test('close drains what runs within its time, and refuses new requests meanwhile', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2 })
  const running = engine.generate('Once', { maxTokens: 60, ignoreEos: true })
  const closing = engine.close({ drainMs: 20_000 })
  await t.throwsAsync(async () => await engine.generate('Once'), { instanceOf: EngineClosedError })
  t.is((await running).tokens.length, 60)
  await closing
  const short = await Engine.load(TINY, { ranks: 2 })
  const cut = short.generate('Once', { maxTokens: 1000, ignoreEos: true })
  await short.close({ drainMs: 20 })
  await t.throwsAsync(async () => await cut, { instanceOf: EngineClosedError })
})

test('stats count what was done', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2 })
  await Promise.all([engine.generate('Once', { maxTokens: 10, ignoreEos: true }), engine.generate('The', { maxTokens: 10, ignoreEos: true })])
  const stats = engine.stats()
  t.is(stats.finished, 2)
  t.is(stats.generatedTokens, 20)
  t.is(stats.ttft.count, 2)
  t.is(stats.timePerToken.count, 18)
  t.true(stats.scheduling.count > 0 && stats.tokensPerSecond > 0)
  t.is(stats.ranks.length, 2)
  for (const { stepMs, waitMs, computeMs } of stats.ranks) {
    t.true(stepMs > 0 && (waitMs['all-reduce of the MLP'] ?? 0) > 0)
    t.deepEqual(Object.keys(computeMs), ['projections', 'attention', 'MLP', 'logits and sampling'])
    const parts = [...Object.values(waitMs), ...Object.values(computeMs)].reduce<number>((sum, ms) => sum + (ms ?? 0), 0)
    t.true(parts > 0 && parts < stepMs, `${parts} of ${stepMs} ms`)
  }
  await engine.close()
})
