import test from 'ava'
import { Engine, type GenerateParams, OptionError } from '../../src/index.js'
import { injectFault } from '../../src/testing.js'
import { FIXTURES, TINY } from '../support/fixtures.js'
import { adjust, argmax, probabilities } from '../support/plain-sampling.js'
import { full } from '../support/tier.js'
import { until } from '../support/until.js'

const MODEL = `${FIXTURES}golden/mlra_4`
const PROMPT = Array.from({ length: 20 }, (_, i) => (i * 37 + 11) % 160)

/** Everything at once. */
const ALL: GenerateParams = {
  temperature: 1.3,
  topK: 60,
  topP: 0.95,
  minP: 0.001,
  typicalP: 0.97,
  repetitionPenalty: 1.2,
  presencePenalty: 0.3,
  frequencyPenalty: 0.2,
  logitBias: { 5: 1.5, 17: -2, 100: 0.25 },
  minTokens: 4,
  logprobs: 3,
  ignoreEos: true,
  maxTokens: 24,
}

test('greedy tokens with bias, penalties and a minimum of tokens are those of a plain implementation over the same logits', async (t) => {
  const engine = await Engine.load(MODEL, { ranks: 1, maxRunning: 4 })
  const stopTokenIds = [3, 40, 41, 42, 43]
  for (const params of [
    { repetitionPenalty: 1.4 },
    { repetitionPenalty: 0.7, frequencyPenalty: -0.5 },
    { presencePenalty: 2, frequencyPenalty: 1.5 },
    { logitBias: { 7: 9, 8: -30 }, repetitionPenalty: 1.1 },
    { minTokens: 10, logitBias: { 3: 25, 40: 24 } },
  ] satisfies GenerateParams[]) {
    const { tokens, finishReason } = await engine.generate(PROMPT, { ...params, stopTokenIds, ignoreEos: true, maxTokens: 30 })
    const all = [...PROMPT]
    for (const token of tokens) {
      const logits = (await engine.logits(all)).slice(-engine.info.vocab)
      t.is(token, argmax(adjust(logits, params, all, PROMPT.length, stopTokenIds)), JSON.stringify(params))
      all.push(token)
    }
    if (finishReason === 'stop') {
      t.true(tokens.length >= (params.minTokens ?? 0))
      const logits = (await engine.logits(all)).slice(-engine.info.vocab)
      t.true(stopTokenIds.includes(argmax(adjust(logits, params, all, PROMPT.length, stopTokenIds))))
    }
  }
  await engine.close()
})

full('sampled tokens are distributed as a plain implementation says: chi-square at the 0.1 % level, fixed seeds', async (t) => {
  const engine = await Engine.load(MODEL, { ranks: 2, maxRunning: 64, maxQueue: 10_000 })
  const logits = [...(await engine.logits(PROMPT)).slice(-engine.info.vocab)]
  for (const params of [
    { temperature: 3 },
    { temperature: 4, topK: 12 },
    { temperature: 4, topP: 0.6 },
    { temperature: 5, minP: 0.2 },
    { temperature: 4, typicalP: 0.5 },
    { temperature: 4, topK: 40, topP: 0.9, minP: 0.02, typicalP: 0.9, logitBias: { 9: 4, 30: 3 }, repetitionPenalty: 1.3 },
  ] satisfies GenerateParams[]) {
    const expected = probabilities(adjust(logits, params, PROMPT, PROMPT.length, []), params)
    const counts = new Float64Array(expected.length)
    const runs = await Promise.all(
      Array.from({ length: 40 }, (_, seed) => engine.generateMany([PROMPT], { ...params, seed, n: 64, maxTokens: 1, ignoreEos: true })),
    )
    for (const { tokens } of runs.flat()) counts[tokens[0] as number] = (counts[tokens[0] as number] as number) + 1
    const total = counts.reduce((a, b) => a + b, 0)
    t.is(total, 40 * 64)
    for (const [id, p] of expected.entries())
      if (p === 0) t.is(counts[id] as number, 0, `${id} was left out, and was sampled: ${JSON.stringify(params)}`)
    // Bins of five expected or more; the rest together.
    const rare = { expected: 0, seen: 0 }
    let chiSquare = 0
    let bins = 0
    const add = (seen: number, e: number) => {
      chiSquare += (seen - e) ** 2 / e
      bins++
    }
    for (const [id, p] of expected.entries()) {
      if (p * total >= 5) add(counts[id] as number, p * total)
      else {
        rare.expected += p * total
        rare.seen += counts[id] as number
      }
    }
    if (rare.expected >= 5) add(rare.seen, rare.expected)
    // Wilson and Hilferty: the 99.9 % quantile of chi-square with k degrees of freedom; 3.09 is the normal's.
    const k = bins - 1
    const limit = k * (1 - 2 / (9 * k) + 3.0902 * Math.sqrt(2 / (9 * k))) ** 3
    t.true(chiSquare < limit, `${JSON.stringify(params)}: ${chiSquare.toFixed(1)} of ${bins} bins, limit ${limit.toFixed(1)}`)
  }
  await engine.close()
})

test('the same seed gives the same tokens and logprobs, whatever the ranks, the batch, speculation, and a rank that dies', async (t) => {
  const runs: string[] = []
  for (const ranks of [1, 2, 4] as const) {
    const engine = await Engine.load(MODEL, { ranks, maxRunning: 8 })
    const own = (r: { tokens: readonly number[]; logprobs?: readonly unknown[] }) => JSON.stringify([r.tokens, r.logprobs])
    runs.push(own(await engine.generate(PROMPT, { ...ALL, seed: 9 })))
    const others = Array.from({ length: 6 }, (_, i) =>
      engine.generate(PROMPT.slice(0, 3 + i), { temperature: 2, seed: i, maxTokens: 30, ignoreEos: true }),
    )
    runs.push(own(await engine.generate(PROMPT, { ...ALL, seed: 9 })))
    await Promise.all(others)
    runs.push(own(await engine.generate(PROMPT, { ...ALL, seed: 9, speculate: { ngram: 1, maxTokens: 4 } })))
    injectFault(engine, { rank: ranks - 1, kind: 'exit', stage: 'sampling' })
    runs.push(own(await engine.generate(PROMPT, { ...ALL, seed: 9 })))
    await engine.close()
  }
  t.is(new Set(runs).size, 1)
})

test('logprobs are the log-softmax of the logits; the most likely come in order, and the prompt has its own', async (t) => {
  const engine = await Engine.load(MODEL, { ranks: 2, maxRunning: 4 })
  const { tokens, logprobs, promptLogprobs } = await engine.generate(PROMPT, {
    maxTokens: 8,
    temperature: 2,
    seed: 3,
    logprobs: 5,
    promptLogprobs: 2,
    ignoreEos: true,
  })
  const { vocab } = engine.info
  const all = [...PROMPT, ...tokens]
  const logits = await engine.logits(all)
  const expected = (position: number) => {
    const row = [...logits.slice((position - 1) * vocab, position * vocab)]
    const max = Math.max(...row)
    const logSum = max + Math.log(row.reduce((sum, l) => sum + Math.exp(l - max), 0))
    return row.map((l) => l - logSum)
  }
  t.is(promptLogprobs?.length, PROMPT.length)
  t.is(promptLogprobs?.[0], null)
  for (const [i, entry] of [...(promptLogprobs ?? []), ...(logprobs ?? [])].entries()) {
    if (!entry) continue
    const row = expected(i)
    t.is(entry.token, all[i] as number)
    t.true(Math.abs(entry.logprob - (row[entry.token] as number)) < 1e-5)
    t.is(entry.top.length, i < PROMPT.length ? 2 : 5)
    const order = row.map((_, id) => id).sort((a, b) => (row[b] as number) - (row[a] as number) || a - b)
    t.deepEqual(
      entry.top.map(({ token }) => token),
      order.slice(0, entry.top.length),
    )
    for (const { token, logprob } of entry.top) t.true(Math.abs(logprob - (row[token] as number)) < 1e-5)
  }
  t.is(logprobs?.length, tokens.length)
  const { logprobs: chosen } = await engine.generate(PROMPT, { maxTokens: 2, logprobs: 0, ignoreEos: true })
  t.deepEqual(
    chosen?.map(({ top }) => top.length),
    [0, 0],
  )
  await engine.close()
})

test('n completions of each prompt: the first is the single one, others differ, and the prompt is computed once', async (t) => {
  const engine = await Engine.load(MODEL, { ranks: 1, maxRunning: 8 })
  const params = { temperature: 3, seed: 4, maxTokens: 8, ignoreEos: true }
  const prompts = [PROMPT, PROMPT.slice(2)]
  const many = await engine.generateMany(prompts, { ...params, n: 3 })
  t.is(many.length, 6)
  for (const [i, prompt] of prompts.entries()) {
    const own = many.slice(3 * i, 3 * i + 3)
    t.is(new Set(own.map(({ tokens }) => tokens.join())).size, 3)
    t.deepEqual([...(own[0]?.tokens ?? [])], [...(await engine.generate(prompt, params)).tokens])
    // All but the last token, whose row must sample.
    t.deepEqual(
      own.slice(1).map(({ usage }) => usage.cachedTokens),
      [prompt.length - 1, prompt.length - 1],
    )
  }
  const indices = new Set<number>()
  for await (const chunk of engine.generateMany([PROMPT], { ...params, n: 2 })) indices.add(chunk.index)
  t.deepEqual([...indices].sort(), [0, 1])
  await engine.close()
})

test('a stop string may begin and end within tokens; it is not shown, and a chunk never shows its beginning', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2, maxRunning: 4 })
  const whole = await engine.generate('Once upon a time', { maxTokens: 60 })
  const at = whole.text.indexOf(' wife')
  t.true(at > 0)
  // From the middle of one word to the middle of another.
  const stop = whole.text.slice(at + 2, at + 9)
  let shown = ''
  const generation = engine.generate('Once upon a time', { maxTokens: 60, stop: ['no such text', stop] })
  for await (const { text } of generation) shown += text
  const { text, finishReason, stoppedBy, tokens } = await generation
  t.is(text, whole.text.slice(0, at + 2))
  t.is(shown, text)
  t.is(finishReason, 'stop')
  t.is(stoppedBy, stop)
  t.true(tokens.length < whole.tokens.length)
  const later = await engine.generate('Once upon a time', { maxTokens: 60, stop, minTokens: whole.tokens.length })
  t.is(later.text, whole.text)
  const id = whole.tokens[5] as number
  const byId = await engine.generate('Once upon a time', { maxTokens: 60, stopTokenIds: [id] })
  t.deepEqual([...byId.tokens], whole.tokens.slice(0, whole.tokens.indexOf(id)))
  t.is(byId.stoppedBy, id)
  // The step that ran ahead of the stop still has to end.
  await until(() => engine.stats().running === 0)
  t.is(engine.stats().running, 0)
  await engine.close()
})

test('invalid values are refused by name, and the engine serves the next request', async (t) => {
  const engine = await Engine.load(MODEL, { ranks: 1, maxRunning: 2 })
  const wrong: object[] = [
    { topK: 0 },
    { topK: 1.5 },
    { topP: 0 },
    { topP: 1.1 },
    { minP: -0.1 },
    { typicalP: Number.NaN },
    { repetitionPenalty: 0 },
    { repetitionPenalty: 5e-324 },
    { repetitionPenalty: 0.0099 },
    { presencePenalty: 11 },
    { frequencyPenalty: '1' },
    { logitBias: [1] },
    { logitBias: { 160: 1 } },
    { logitBias: { x: 1 } },
    { logitBias: { 1: Number.POSITIVE_INFINITY } },
    { logitBias: Object.fromEntries(Array.from({ length: 1025 }, (_, i) => [i, 1])) },
    { stop: [''] },
    { stop: 'no tokenizer here' },
    { stopTokenIds: [-1] },
    { stopTokenIds: 3 },
    { minTokens: 9, maxTokens: 8 },
    { n: 0 },
    { n: 65 },
    { logprobs: 21 },
    { promptLogprobs: -1 },
    { bestOf: 2 },
    { guidedJson: {} },
  ]
  for (const params of wrong) {
    const error = await t.throwsAsync(async () => engine.generate(PROMPT, params as GenerateParams), { instanceOf: OptionError })
    const [name] = Object.keys(params)
    t.true(error.message.includes(name as string), error.message)
  }
  t.is((await engine.generate(PROMPT, { maxTokens: 2, ignoreEos: true })).tokens.length, 2)
  await engine.close()
})
