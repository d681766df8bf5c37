// The cache cut along the sequence: exact, with the same bits at any rank count, batch, chunk and after any fault.
import { join } from 'node:path'
import test from 'ava'
import { Engine, type EngineOptions, type GenerateParams, OptionError, SnapshotError } from '../../src/index.js'
import { writtenScalars } from '../../src/internals.js'
import { exchangedBytes, injectFault, pages, readCounters, recordLogits } from '../../src/testing.js'
import { mergedTensors, writeAdapter, writeModel } from '../support/adapters.js'
import { FIXTURES, largestDifference, randomNumbers, TINY } from '../support/fixtures.js'
import { readTensors, temporary } from '../support/models.js'
import { full, quickIf } from '../support/tier.js'
import { until } from '../support/until.js'

const golden = (name: string) => `${FIXTURES}golden/${name}`
const family = (name: string) => `${FIXTURES}golden-hf/${name}`
/** Five pages and a part of a sixth: shards 0 and 1 have two pages, the others one. */
const LONG = 330
const random = randomNumbers(3)
const NUMBERS = Array.from({ length: LONG }, () => random())
const promptOf = (vocab: number) => NUMBERS.map((x) => Math.floor(x * vocab))

const load = (dir: string, options: EngineOptions) =>
  Engine.load(dir, { backend: 'wasm', maxContext: 512, cacheTokens: 2048, maxRunning: 4, partition: 'sequence', ...options })

const MODELS = [
  ...['mla', 'mlra_4', 'tpa', 'gqa', 'mlra_2', 'gla_2', 'gta', 'mfa', 'mqa'].map(golden),
  ...['qwen3', 'deepseek_v3_dense', 'qwen2'].map(family),
]

for (const [i, dir] of MODELS.entries()) {
  const name = dir.split('/').at(-1) as string
  quickIf(i === 0)(`${name}: the logits of float64 with the cache whole, and the same bits at 1, 2 and 4 ranks and chunks`, async (t) => {
    const whole = await load(dir, { backend: 'reference', partition: 'heads', ranks: 1 })
    const prompt = promptOf(whole.info.vocab)
    const expected = await whole.logits(prompt)
    await whole.close()
    let first: Buffer | undefined
    for (const options of [{ ranks: 1 }, { ranks: 2, prefillChunk: 7 }, { ranks: 4, prefillChunk: 100 }] as const) {
      const engine = await load(dir, options)
      const logits = await engine.logits(prompt)
      await engine.close()
      t.true(largestDifference(logits, expected) < 2e-3, JSON.stringify(options))
      first ??= Buffer.from(logits.buffer)
      t.true(first.equals(Buffer.from(logits.buffer)), JSON.stringify(options))
    }
  })
}

full('the reference backend combines parts as well', async (t) => {
  const whole = await load(golden('mla'), { backend: 'reference', partition: 'heads', ranks: 1 })
  const expected = await whole.logits(promptOf(whole.info.vocab))
  await whole.close()
  const cut = await load(golden('mla'), { backend: 'reference', ranks: 2 })
  t.true(largestDifference(await cut.logits(promptOf(cut.info.vocab)), expected) < 1e-6)
  await cut.close()
})

test('a rank reads, and caches, a quarter of a latent that every rank has with the heads partition', async (t) => {
  const prompt = promptOf(160).slice(0, 256)
  const read = async (partition: 'heads' | 'sequence') => {
    const engine = await load(golden('mla'), { ranks: 4, partition })
    const { memoryBytes } = engine.info
    await engine.generate(prompt, { maxTokens: 0 })
    const before = readCounters(engine).map((rank) => rank.cacheBytes)
    // One row that attends over 257 tokens: four pages, and a row of a fifth, of shard 0.
    await engine.generate([...prompt, 5], { maxTokens: 1, ignoreEos: true })
    const after = readCounters(engine).map((rank) => rank.cacheBytes)
    await engine.close()
    return { bytes: after.map((bytes, i) => bytes - (before[i] as number)), memoryBytes }
  }
  const heads = await read('heads')
  const cut = await read('sequence')
  t.is(new Set(heads.bytes).size, 1)
  const perToken = (heads.bytes[0] as number) / 257
  t.deepEqual(cut.bytes, [65 * perToken, 64 * perToken, 64 * perToken, 64 * perToken])
  t.true(cut.memoryBytes < heads.memoryBytes)
})

/** Requests of several lengths, together, with all that moves pages about; logits by request and position. */
async function busy(engine: Engine, more: GenerateParams = {}) {
  const { vocab } = engine.info
  const recorder = recordLogits(engine)
  const prompt = promptOf(vocab)
  const completions = await Promise.all(
    [3, 64, 65, 130, 200, 330].map((length, seed) =>
      engine.generate([seed, ...prompt.slice(0, length)], { maxTokens: 70, ignoreEos: true, seed, temperature: seed % 2 === 0 ? 0 : 0.8, ...more }),
    ),
  )
  recorder.stop()
  return {
    tokens: completions.map((c) => [...c.tokens]),
    // A preempted request computes its rows again.
    hashes: [...new Set(recorder.rows.map(({ seed, position, hash }) => `${seed} ${position} ${hash}`))].sort(),
  }
}

const CROWDED = { maxRunning: 4, maxContext: 448, cacheTokens: 768 }

for (const [name, options, more] of [
  ['mla', {}, {}],
  ['gqa', { cache: 'int8' }, {}],
  ['mlra_4', { cache: 'bf16' }, { speculate: { ngram: 1, maxTokens: 4 } }],
] as const) {
  quickIf(name === 'mla' && !('cache' in options))(`${name} ${JSON.stringify(options)}: batches, preemption and drafts change no bit`, async (t) => {
    const one = await load(golden(name), { ...options, ranks: 1, maxRunning: 1 })
    const expected = await busy(one)
    await one.close()
    for (const ranks of [1, 2, 4] as const) {
      const engine = await load(golden(name), { ...options, ...CROWDED, ranks })
      t.deepEqual((await busy(engine, more)).tokens, expected.tokens)
      const again = await busy(engine, more)
      t.deepEqual(again.tokens, expected.tokens)
      if (!('speculate' in more)) t.deepEqual(again.hashes, expected.hashes)
      t.true(engine.stats().preemptions > 0)
      t.deepEqual(pages(engine), { free: 12, all: 12 })
      await engine.close()
    }
  })
}

test('a prefix is shared, and the rows of a page that is similar are copied within their shard', async (t) => {
  const engine = await load(golden('mla'), { ranks: 4 })
  const prompt = promptOf(engine.info.vocab)
  const cached: number[] = []
  for (const given of [prompt, [...prompt.slice(0, 300), 1, 2, 3], [...prompt.slice(0, 100), 9]]) {
    const other = await load(golden('mla'), { ranks: 1 })
    const expected = await other.generate(given, { maxTokens: 8, ignoreEos: true })
    await other.close()
    const completion = await engine.generate(given, { maxTokens: 8, ignoreEos: true })
    cached.push(completion.usage.cachedTokens)
    t.deepEqual([...completion.tokens], [...expected.tokens])
  }
  t.deepEqual(cached, [0, 300, 100])
  await engine.close()
})

for (const variant of ['mla', 'mlra_4', 'gqa', 'tpa'] as const) {
  full(`${variant}: an adapter gives the logits of the merged model, with the same bits at 1, 2 and 4 ranks`, async (t) => {
    const dir = temporary(t)
    const tensors = await readTensors(golden(variant))
    const spec = { seed: 5, rank: 3, size: 0.12 }
    writeAdapter(join(dir, 'adapter'), tensors, spec)
    writeModel(join(dir, 'merged'), golden(variant), mergedTensors(tensors, spec))
    const whole = await load(join(dir, 'merged'), { backend: 'reference', partition: 'heads', ranks: 1 })
    const prompt = promptOf(whole.info.vocab)
    const expected = await whole.logits(prompt)
    await whole.close()
    let first: Float32Array | undefined
    for (const [ranks, prefillChunk] of [
      [1, 64],
      [2, 9],
      [4, 100],
    ] as const) {
      const engine = await load(golden(variant), { ranks, prefillChunk, adapters: { one: join(dir, 'adapter') } })
      const logits = await engine.logits(prompt, { lora: 'one' })
      await engine.close()
      t.true(largestDifference(logits, expected) < 5e-3, `${ranks} ranks`)
      first ??= logits
      t.deepEqual(logits, first, `${ranks} ranks`)
    }
  })
}

for (const stage of ['gather of queries and rows to cache', 'exchange of partial attention'] as const) {
  full(`a rank that throws at the ${stage} costs no request and no bit`, async (t) => {
    const one = await load(golden('mla'), { ranks: 1 })
    const expected = await busy(one)
    await one.close()
    const engine = await load(golden('mla'), { ranks: 4 })
    const running = busy(engine)
    await until(() => engine.stats().generatedTokens > 20)
    injectFault(engine, { rank: 2, kind: 'throw', stage })
    t.deepEqual((await running).tokens, expected.tokens)
    t.is(engine.stats().restarts, 1)
    await engine.close()
  })
}

full('a snapshot goes on at any rank count, and is another partition’s mismatch', async (t) => {
  const path = join(temporary(t), 'prefix.snapshot')
  const prompt = promptOf(160)
  const first = await load(golden('gqa'), { ranks: 2 })
  await first.saveSnapshot(prompt, path)
  const expected = await first.generate([...prompt, 7], { maxTokens: 12, ignoreEos: true })
  await first.close()
  for (const ranks of [1, 4] as const) {
    const engine = await load(golden('gqa'), { ranks })
    t.is((await engine.loadSnapshot(path)).tokens.length, LONG)
    const completion = await engine.generate([...prompt, 7], { maxTokens: 12, ignoreEos: true })
    t.is(completion.usage.cachedTokens, LONG)
    t.deepEqual([...completion.tokens], [...expected.tokens])
    await engine.close()
  }
  const other = await load(golden('gqa'), { partition: 'heads', ranks: 2 })
  const error = await t.throwsAsync(other.loadSnapshot(path), { instanceOf: SnapshotError, code: 'SNAPSHOT_MISMATCH' })
  t.regex(error?.message ?? '', /sequence/)
  await other.close()
})

test('what the partition is, is in info and key; auto follows the model and the context, not the ranks; a GPU refuses it', async (t) => {
  const info = async (dir: string, options: EngineOptions) => {
    const engine = await Engine.load(dir, { backend: 'wasm', cacheTokens: 256, maxRunning: 1, ...options })
    await engine.close()
    return engine.info
  }
  const cut = await info(golden('mla'), { partition: 'sequence', ranks: 2 })
  t.is(cut.partition, 'sequence')
  t.regex(cut.determinismKey, /\/partition-sequence\//)
  // A cache of a whole number of pages for each shard.
  t.is((await info(golden('mla'), { partition: 'sequence', cacheTokens: 65 })).cacheTokens, 256)
  t.is((await info(golden('mla'), { partition: 'auto', maxContext: 40_000, ranks: 1 })).partition, 'sequence')
  t.is((await info(golden('mla'), { partition: 'auto', maxContext: 40_000, ranks: 4 })).partition, 'sequence')
  t.is((await info(golden('mla'), { partition: 'auto' })).partition, 'heads')
  t.is((await info(golden('mlra_4'), { partition: 'auto', maxContext: 40_000 })).partition, 'heads')
  t.is((await info(golden('gqa'), {})).partition, 'heads')
  const refused = await t.throwsAsync(Engine.load(golden('mla'), { backend: 'gpu', partition: 'sequence' }), { instanceOf: OptionError })
  t.regex(refused?.message ?? '', /partition: 'sequence' is not supported by the gpu backend/)
})

full('models/tiny: 600 tokens of text have the same bits at 1, 2 and 4 ranks, alone and beside others', async (t) => {
  let first: string[] | undefined
  for (const [ranks, beside] of [
    [1, 0],
    [2, 3],
    [4, 3],
    [4, 0],
  ] as const) {
    const engine = await load(TINY, { ranks, maxContext: 1024, cacheTokens: 4096 })
    const recorder = recordLogits(engine)
    const others = Array.from({ length: beside }, (_, i) => engine.generate('Once upon a time', { maxTokens: 300, seed: 100 + i, temperature: 1 }))
    const { tokens } = await engine.generate('The king had a daughter', { maxTokens: 600, ignoreEos: true, seed: 1 })
    await Promise.all(others)
    recorder.stop()
    t.is(tokens.length, 600)
    const bits = recorder.rows.filter(({ seed }) => seed === 1).map(({ position, hash }) => `${position} ${hash}`)
    first ??= bits
    t.deepEqual(bits, first)
    await engine.close()
  }
})

for (const [i, [name, partition, ranks]] of (
  [
    ['mlra_4', 'heads', 4],
    ['mlra_4', 'sequence', 2],
    ['mla', 'heads', 2],
    ['mla', 'sequence', 4],
    ['gla_2', 'heads', 4],
    ['gqa', 'heads', 2],
    ['gqa', 'sequence', 4],
    ['tpa', 'heads', 4],
    ['mlra_2_gated', 'heads', 4],
  ] as const
).entries()) {
  quickIf(i < 2)(
    `${name} by ${partition} at ${ranks} ranks: the bytes that are counted as exchanged are those that ranks write for each other`,
    async (t) => {
      for (const backend of ['wasm', 'reference'] as const) {
        const engine = await load(golden(name), { backend, partition, ranks })
        const written = await writtenScalars(engine, async () => engine.generate([1], { maxTokens: 1, ignoreEos: true }))
        t.is(written * (backend === 'wasm' ? 4 : 8), exchangedBytes(engine), backend)
        await engine.close()
      }
    },
  )
}
