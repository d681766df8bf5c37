// A draft model guesses tokens ahead: whatever it guesses, and whatever becomes of it, the output has the bits that it has without.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { deeperModel } from '../../bench/deeper-model.js'
import { Engine, type EngineOptions, type GenerateManyParams, OptionError, synthesize } from '../../src/index.js'
import { injectFault, recordLogits } from '../../src/testing.js'
import { TINY } from '../support/fixtures.js'
import { copyOf, editConfig, temporary } from '../support/models.js'
import { full, quickIf } from '../support/tier.js'

const folder = mkdtempSync(join(tmpdir(), 'tetrad-draft-'))
/** models/tiny with a layer more. The first says what models/tiny says, the second mostly. */
const [SAME, SIMILAR] = [join(folder, 'same'), join(folder, 'similar')]

test.before(async () => {
  for (const [dir, scale] of [
    [SAME, 0],
    [SIMILAR, 0.6],
  ] as const) {
    mkdirSync(dir)
    await deeperModel(TINY, dir, 9, scale)
  }
})
test.after.always(() => rmSync(folder, { recursive: true, force: true }))

/** Prompts of lengths about a page, with much in common. */
const PROMPTS = [3, 64, 71].map((length) => Array.from({ length }, (_, i) => (i * 37) % 4096))

/** Everything that callers see of completions but times and what was guessed, and a hash of the logits of every token. */
async function outputs(engine: Engine, params: GenerateManyParams, prompts: readonly (string | number[])[] = PROMPTS) {
  const recorder = recordLogits(engine)
  const completions = await engine.generateMany(prompts, { maxTokens: 24, ignoreEos: true, seed: 7, ...params })
  recorder.stop()
  return {
    seen: completions.map(({ timings: _t, usage: { promptTokens, completionTokens }, ...rest }) => ({ ...rest, promptTokens, completionTokens })),
    hashes: [...new Set(recorder.rows.map(({ position, hash }) => `${position} ${hash}`))].sort(),
    drafted: completions.reduce((sum, { usage }) => sum + (usage.draftedTokens ?? 0), 0),
    accepted: completions.reduce((sum, { usage }) => sum + (usage.acceptedTokens ?? 0), 0),
  }
}

for (const [ranks, model, params] of [
  [1, SAME, { temperature: 0.9, topP: 0.9, repetitionPenalty: 1.2, frequencyPenalty: 0.3, logprobs: 2, promptLogprobs: 1, minTokens: 5 }],
  [2, SIMILAR, { temperature: 0.7, logitBias: { 11: 2 }, minP: 0.01, n: 2 }],
  [4, SIMILAR, { n: 2 }],
] as const) {
  quickIf(ranks === 2)(
    `at ${ranks} ranks a draft model of ${model === SAME ? 'the same mind' : 'another mind'} changes no token, logprob or bit`,
    async (t) => {
      const options: EngineOptions = { ranks, maxRunning: 4, cacheTokens: 1024 }
      const plain = await Engine.load(model, options)
      const expected = await outputs(plain, params)
      await plain.close()
      const engine = await Engine.load(model, { ...options, draft: TINY, draftTokens: 3 })
      const got = await outputs(engine, params)
      t.deepEqual(got.seen, expected.seen)
      t.deepEqual(
        expected.hashes.filter((hash) => !got.hashes.includes(hash)),
        [],
      )
      t.true(got.drafted > 0 && got.accepted > 0)
      if (model === SAME) t.is(got.accepted, got.drafted)
      else t.true(got.accepted < got.drafted)
      t.like(engine.stats(), { draftedTokens: got.drafted, acceptedTokens: got.accepted })
      await engine.close()
    },
  )
}

full('stop texts and stop ids end it where they would', async (t) => {
  const [plain, engine] = [await Engine.load(SAME, { ranks: 1 }), await Engine.load(SAME, { ranks: 1, draft: TINY })]
  const { text, tokens } = await plain.generate('Once upon a time', { maxTokens: 40, ignoreEos: true })
  for (const params of [{ stop: text.slice(30, 34) }, { stopTokenIds: [tokens[17] as number] }]) {
    const [expected, got] = [await plain.generate('Once upon a time', params), await engine.generate('Once upon a time', params)]
    t.deepEqual([got.text, got.tokens, got.finishReason, got.stoppedBy], [expected.text, expected.tokens, 'stop', expected.stoppedBy])
    t.true((got.usage.acceptedTokens ?? 0) > 0)
  }
  await plain.close()
  await engine.close()
})

full('where it is always right, a step gives as many tokens as were guessed and one more', async (t) => {
  const engine = await Engine.load(SAME, { ranks: 1, maxRunning: 2, cacheTokens: 1024, draft: TINY, draftTokens: 4 })
  const before = engine.stats().ranks[0]?.steps ?? 0
  const { usage } = await engine.generate('Once upon a time', { maxTokens: 51, ignoreEos: true, temperature: 0.8, seed: 1 })
  // One token comes of the prompt's step; the others are ten steps of five.
  t.is((engine.stats().ranks[0]?.steps ?? 0) - before, 11)
  t.deepEqual([usage.draftedTokens, usage.acceptedTokens], [40, 40])
  t.like(engine.info.draft, { dir: TINY, contextTokens: 1024 })
  t.true(engine.info.memoryBytes > (engine.info.draft?.memoryBytes ?? 0) + 20e6)
  await engine.close()
})

full('models/tiny drafts for a larger model of random weights, whose tokens it never guesses: soon it guesses seldom', async (t) => {
  const dir = temporary(t)
  await synthesize(dir, { variant: 'llama', config: WIDER })
  const options = { ranks: 2, maxRunning: 2, cacheTokens: 1024 } as const
  const [plain, drafting] = [await Engine.load(dir, options), await Engine.load(dir, { ...options, draft: TINY })]
  const params = { maxTokens: 80 }
  const got = await outputs(drafting, params, [PROMPTS[0] as number[]])
  t.deepEqual(got.seen, (await outputs(plain, params, [PROMPTS[0] as number[]])).seen)
  t.true(got.drafted > 0 && got.drafted < 24, `${got.drafted} drafted`)
  await plain.close()
  await drafting.close()
})

/** Heads and widths that four shards do not divide, and the vocabulary of models/tiny. */
const WIDER = {
  ...{ architectures: ['LlamaForCausalLM'], model_type: 'llama', num_hidden_layers: 3, num_attention_heads: 9, num_key_value_heads: 3 },
  ...{ hidden_size: 576, intermediate_size: 1100, vocab_size: 4096, max_position_embeddings: 512, rms_norm_eps: 1e-5 },
}

full('a rank that dies on either side, and a cache too small for all, cost no token', async (t) => {
  const model = SIMILAR
  const plain = await Engine.load(model, { ranks: 1, maxRunning: 3, cacheTokens: 320 })
  const expected = await outputs(plain, { temperature: 0.8 })
  await plain.close()
  const engine = await Engine.load(model, { ranks: 2, maxRunning: 3, cacheTokens: 320, draft: TINY })
  injectFault(engine, { rank: 1, kind: 'throw', stage: 'gather of logits' })
  injectFault(engine, { rank: 0, kind: 'exit', draft: true })
  const got = await outputs(engine, { temperature: 0.8 })
  t.deepEqual(got.seen, expected.seen)
  t.true(got.accepted > 0)
  t.is(engine.stats().restarts, 1)
  t.deepEqual(engine.stats().draft, { restarts: 1, failed: false })
  t.is(engine.stats().pages.inUse, 0)
  await engine.close()
})

full('a draft model that fails for good is left out, and the engine says so', async (t) => {
  const warnings: string[] = []
  const hear = (warning: Error & { code?: string }) => void warnings.push(warning.code ?? '')
  process.on('warning', hear)
  const engine = await Engine.load(SAME, { ranks: 1, maxRunning: 4, cacheTokens: 1024, maxRestarts: 0, draft: TINY })
  const expected = await outputs(engine, {})
  injectFault(engine, { rank: 0, kind: 'throw', draft: true })
  const got = await outputs(engine, {})
  t.deepEqual(got.seen, expected.seen)
  t.true(expected.drafted > 0)
  t.is(got.drafted, 0)
  t.deepEqual(engine.stats().draft, { restarts: 0, failed: true })
  t.is(engine.failure, undefined)
  t.is(warnings.filter((code) => code === 'DRAFT_FAILED').length, 1)
  process.off('warning', hear)
  await engine.close()
})

full('a request that is aborted or constrained, or guesses by n-grams, goes its own way', async (t) => {
  const engine = await Engine.load(SAME, { ranks: 1, maxRunning: 4, cacheTokens: 1024, draft: TINY })
  const abort = new AbortController()
  const generation = engine.generate('Once upon a time', { maxTokens: 500, ignoreEos: true, signal: abort.signal })
  for await (const _ of generation) abort.abort()
  t.is((await generation).finishReason, 'abort')
  const constrained = await engine.generate('Once', { choice: ['yes', 'no'], maxTokens: 10 })
  t.true(['yes', 'no'].includes(constrained.text))
  t.is(constrained.usage.draftedTokens, undefined)
  const { usage } = await engine.generate([1, 2, 3, 4], { maxTokens: 20, ignoreEos: true, speculate: { ngram: 16, maxTokens: 4 } })
  t.is(usage.draftedTokens, 0)
  t.is(engine.stats().pages.inUse, 0)
  await engine.close()
})

test('a draft model that does not fit is refused by name', async (t) => {
  const other = temporary(t)
  await synthesize(other, { variant: 'llama', config: { ...WIDER, vocab_size: 512 } })
  const renamed = copyOf(t, TINY)
  const path = `${renamed}/tokenizer.json`
  const file = JSON.parse(readFileSync(path, 'utf8')) as { model: { vocab: Record<string, number> } }
  const [a, b] = Object.keys(file.model.vocab).slice(-2) as [string, string]
  const { vocab } = file.model
  ;[vocab[a], vocab[b]] = [vocab[b] as number, vocab[a] as number]
  writeFileSync(path, JSON.stringify(file))
  const load = (options: EngineOptions) => Engine.load(TINY, { ranks: 1, cacheTokens: 256, maxRunning: 1, ...options })
  const refused = { instanceOf: OptionError, code: 'OPTION_INVALID' }
  await t.throwsAsync(load({ draft: other }), { ...refused, message: /another vocabulary.*4096 tokens.*512 tokens/s })
  await t.throwsAsync(load({ draft: renamed }), { ...refused, message: /the tokenizer of the draft model/ })
  await t.throwsAsync(load({ draft: '' }), { ...refused, message: /draft has the wrong type/ })
  await t.throwsAsync(load({ draftTokens: 3 }), { ...refused, message: /draftTokens is given without draft/ })
  await t.throwsAsync(load({ draft: TINY, draftTokens: 33 }), { ...refused, message: /draftTokens is out of range/ })
  await t.throwsAsync(load({ draft: `${TINY}/nowhere` }), { code: 'MODEL_NOT_FOUND' })
})

full('a model on the reference backend, and one with a shorter context than its draft, are drafted for', async (t) => {
  const model = SAME
  const short = copyOf(t, model)
  editConfig(short, { block_size: 48 })
  for (const [dir, options] of [
    [short, { ranks: 2 }],
    [model, { backend: 'reference', ranks: 1 }],
  ] as const) {
    const engine = await Engine.load(dir, { ...options, cacheTokens: 128, maxRunning: 1, draft: TINY })
    const { usage, finishReason } = await engine.generate([1, 2, 3], { maxTokens: 45, ignoreEos: true })
    t.is(finishReason, 'length')
    t.is(usage.completionTokens, 45)
    t.true((usage.acceptedTokens ?? 0) > 20)
    await engine.close()
  }
})
