import test from 'ava'
import { Engine, type GenerateParams, OptionError } from '../../src/index.js'
import { injectFault, recordLogits } from '../../src/testing.js'
import { randomNumbers, TINY } from '../support/fixtures.js'
import { full, inFull } from '../support/tier.js'

const PHRASE = [300, 41, 7, 900, 15, 22, 300, 8]
const REPETITIVE = Array.from({ length: 80 }, (_, i) => PHRASE[i % PHRASE.length] as number)
const next = randomNumbers(31)
const ORDINARY = Array.from({ length: 50 }, () => Math.floor(next() * 4096))

/** Tokens, and a hash of the logits of every token, of one request. */
async function record(engine: Engine, prompt: readonly number[], params: GenerateParams) {
  const recorder = recordLogits(engine)
  const { tokens, usage } = await engine.generate(prompt, { maxTokens: 120, ignoreEos: true, seed: 5, ...params })
  recorder.stop()
  return { tokens, hashes: recorder.rows.map((row) => `${row.position} ${row.hash}`), usage }
}

/** Prompts, with a temperature. */
const CASES = [
  [REPETITIVE, 0],
  [ORDINARY, 0.9],
  [ORDINARY, 0],
  [REPETITIVE, 0.7],
] as const

for (const ranks of [1, 2, 4] as const) {
  full(`at ${ranks} ranks speculation gives the same tokens and logit bits in fewer steps, greedy and sampled`, async (t) => {
    const engine = await Engine.load(TINY, { ranks })
    for (const [prompt, temperature] of inFull ? CASES : CASES.slice(0, 2)) {
      const plain = await record(engine, prompt, { temperature })
      t.is(plain.usage.draftedTokens, undefined)
      const before = engine.stats().ranks[0]?.steps ?? 0
      for (const [ngram, maxTokens] of [
        [1, 4],
        [2, 16],
        [3, 64],
      ] as const) {
        const guessed = await record(engine, prompt, { temperature, speculate: { ngram, maxTokens } })
        t.deepEqual(guessed.tokens, plain.tokens)
        t.deepEqual(guessed.hashes, plain.hashes)
        const { draftedTokens = 0, acceptedTokens = 0 } = guessed.usage
        t.true(acceptedTokens <= draftedTokens)
        if (ngram === 1) {
          t.true(draftedTokens > 0)
          const steps = (engine.stats().ranks[0]?.steps ?? 0) - before
          t.true(steps <= 120 - acceptedTokens + 3, `${steps} steps, ${acceptedTokens} accepted`)
        }
      }
    }
    await engine.close()
  })
}

full('speculating requests among others, with a cache too small for all, and a rank that dies: each has the tokens it has alone', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2, maxRunning: 6, cacheTokens: 640 })
  const prompts = Array.from({ length: 8 }, (_, i) => (i % 2 === 0 ? REPETITIVE.slice(0, 30 + i) : ORDINARY.slice(0, 20 + i)))
  const params = (i: number): GenerateParams => ({ maxTokens: 90, ignoreEos: true, seed: i, temperature: i % 3 === 0 ? 0 : 0.8 })
  const alone = []
  for (const [i, prompt] of prompts.entries()) alone.push((await engine.generate(prompt, params(i))).tokens)
  injectFault(engine, { rank: 1, kind: 'throw', stage: 'gather of logits' })
  const together = await Promise.all(
    prompts.map((prompt, i) => engine.generate(prompt, { ...params(i), ...(i % 4 < 3 && { speculate: { ngram: 1, maxTokens: 8 } }) })),
  )
  t.deepEqual(
    together.map((c) => c.tokens),
    alone,
  )
  t.is(engine.stats().restarts, 1)
  t.is(engine.stats().pages.inUse, 0)
  await engine.close()
})

test('it ends where it would without: at maxTokens, at the end of text, at the end of the context', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1, maxContext: 100 })
  for (const params of [{ maxTokens: 5 }, { maxTokens: 1 }, { maxTokens: 1000 }] as const) {
    const given = { ignoreEos: true, ...params }
    const plain = await engine.generate(REPETITIVE, given)
    const guessed = await engine.generate(REPETITIVE, { ...given, speculate: { ngram: 2, maxTokens: 64 } })
    t.deepEqual(guessed.tokens, plain.tokens)
    t.is(guessed.finishReason, plain.finishReason)
  }
  await engine.close()
})

test('values out of range are refused', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1 })
  for (const speculate of [
    {},
    { ngram: 3 },
    { ngram: 0, maxTokens: 3 },
    { ngram: 17, maxTokens: 3 },
    { ngram: 3, maxTokens: 65 },
    { ngram: 3, maxTokens: 3, x: 1 },
    3,
  ])
    await t.throwsAsync(async () => await engine.generate('x', { speculate } as never), { instanceOf: OptionError })
  await engine.close()
})
