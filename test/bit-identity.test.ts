import { Engine, type EngineOptions, inspect } from '../src/index.js'
import { recordLogits } from '../src/testing.js'
import { randomNumbers, TINY } from './support/fixtures.js'
import { full, quickIf } from './support/tier.js'

const random = randomNumbers(7)
const PROMPT = Array.from({ length: 150 }, () => Math.floor(random() * 4096))

/** Bits of the logits of every prompt position, and of 200 tokens decoded after it. */
async function bits(options: EngineOptions) {
  const engine = await Engine.load(TINY, options)
  const logits = await engine.logits(PROMPT)
  const recorder = recordLogits(engine)
  const { tokens } = await engine.generate(PROMPT, { maxTokens: 200, ignoreEos: true })
  recorder.stop()
  await engine.close()
  return { logits: Buffer.from(logits.buffer), tokens, hashes: recorder.rows.map((row) => `${row.position} ${row.hash}`) }
}

let oneRank: ReturnType<typeof bits> | undefined
/** Bits of one rank and chunk 64, computed by the first test that asks. */
const reference = () => {
  oneRank ??= bits({ ranks: 1 })
  return oneRank
}

for (const options of [
  { ranks: 2 },
  { ranks: 1, prefillChunk: 1 },
  { ranks: 2, prefillChunk: 7 },
  { ranks: 4, prefillChunk: 64 },
  { ranks: 2, prefillChunk: 1024 },
  { ranks: 4, prefillChunk: 7 },
] as const) {
  const declare = quickIf(options.ranks === 4 && 'prefillChunk' in options && options.prefillChunk === 7)
  declare(`${JSON.stringify(options)} gives the bits of one rank and chunk 64`, async (t) => {
    const expected = await reference()
    const actual = await bits(options)
    t.true(actual.logits.equals(expected.logits), 'prompt logits')
    t.deepEqual(actual.tokens, expected.tokens)
    t.is(actual.hashes.length, 200)
    t.deepEqual(actual.hashes, expected.hashes)
  })
}

full('a bf16 cache gives the same bits at 1, 2 and 4 ranks and chunks 1 and 64, and other bits than f32', async (t) => {
  const one = await bits({ ranks: 1, cache: 'bf16' })
  for (const options of [{ ranks: 2, prefillChunk: 1 }, { ranks: 4 }] as const) {
    const other = await bits({ ...options, cache: 'bf16' })
    t.true(other.logits.equals(one.logits))
    t.deepEqual(other.hashes, one.hashes)
  }
  t.false(one.logits.equals((await reference()).logits))
})

full('sampling with a seed gives the same text at every rank count, and another seed another', async (t) => {
  const texts: string[] = []
  for (const [ranks, seed] of [
    [1, 5],
    [2, 5],
    [4, 5],
    [2, 6],
  ] as const) {
    const engine = await Engine.load(TINY, { ranks })
    texts.push((await engine.generate('Once upon a time', { maxTokens: 50, temperature: 0.9, seed })).text)
    await engine.close()
  }
  t.is(texts[1], texts[0])
  t.is(texts[2], texts[0])
  t.not(texts[3], texts[0])
})

full('f32 weights of a bf16 checkpoint are the same numbers, so the same bits', async (t) => {
  const other = await bits({ ranks: 2, weights: 'f32' })
  t.true(other.logits.equals((await reference()).logits))
})

full('plain SIMD kernels give the same bits at 1, 2 and 4 ranks and chunks 1 and 64, under a key of their own', async (t) => {
  const one = await bits({ ranks: 1, simd: 'simd128' })
  for (const options of [{ ranks: 2, prefillChunk: 1 }, { ranks: 4 }] as const) {
    const other = await bits({ ...options, simd: 'simd128' })
    t.true(other.logits.equals(one.logits))
    t.deepEqual(other.hashes, one.hashes)
  }
  t.regex((await inspect(TINY, { simd: 'simd128' })).determinismKey, /simd128/)
})

for (const weights of ['int8', 'int4'] as const)
  full(`${weights} weights give the same bits at 1, 2 and 4 ranks, chunks 1, 7 and 64, and with either build of the kernels`, async (t) => {
    const one = await bits({ ranks: 1, weights })
    for (const options of [
      { ranks: 2, prefillChunk: 1 },
      { ranks: 4, prefillChunk: 7 },
    ] as const) {
      const other = await bits({ ...options, weights })
      t.true(other.logits.equals(one.logits))
      t.deepEqual(other.hashes, one.hashes)
    }
    t.false(one.logits.equals((await reference()).logits))
    // The products are the same integers in every build; attention is not, so the first token of a sequence is compared.
    const first: Float32Array[] = []
    for (const simd of ['auto', 'simd128'] as const) {
      const engine = await Engine.load(TINY, { ranks: 2, weights, simd })
      first.push(await engine.logits([77]))
      await engine.close()
    }
    t.deepEqual(first[0], first[1])
  })
