import { Engine } from '../src/index.js'
import { goldenCases, goldenLogits, largestDifference, TINY, tinyGolden } from './support/fixtures.js'
import { inFull, quickIf } from './support/tier.js'

const TOLERANCE = 2e-3
/** Cases whose structure another one has: attention of the same kind, formats of files that are read in the same way. */
const ALIKE = ['mlra_2', 'mlra_2_gated', 'mla_gated', 'gla_4', 'mlra_2_bf16', 'mqa', 'mha']

for (const golden of goldenCases()) {
  for (const backend of ['wasm', 'reference'] as const) {
    // The reference backend cuts a model as wasm does: two rank counts show that its sums do not depend on them.
    const counts = backend === 'reference' || !inFull ? ([1, 4] as const) : ([1, 2, 4] as const)
    const declare = quickIf(backend === 'wasm' && !ALIKE.includes(golden.name))
    declare(`${golden.name} on ${backend}: golden logits and greedy tokens, the same bits at ${counts.join(', ')} ranks`, async (t) => {
      let first: Float32Array[] | undefined
      for (const ranks of counts) {
        const engine = await Engine.load(golden.dir, { backend, ranks })
        t.is(engine.info.variant, golden.variant)
        const all: Float32Array[] = []
        for (const [i, prompt] of golden.prompts.entries()) {
          const logits = await engine.logits(prompt)
          all.push(logits)
          const difference = largestDifference(logits, await goldenLogits(golden.dir, i))
          t.true(difference <= TOLERANCE, `prompt ${i} at ${ranks} ranks differs by ${difference}`)
          if (ranks === 1) t.log(`prompt ${i}: largest difference ${difference.toExponential(2)}`)
          const { tokens } = await engine.generate(prompt, { maxTokens: 40, ignoreEos: true })
          t.deepEqual([...tokens], golden.greedy[i])
        }
        if (first) t.deepEqual(all, first)
        first ??= all
        await engine.close()
      }
    })
  }
}

for (const ranks of [1, 2, 4] as const) {
  const declare = quickIf(ranks === 4)
  const continuations = tinyGolden().greedy.slice(0, inFull ? 5 : 2)
  declare(`models/tiny at ${ranks} ranks: ${continuations.length} golden continuations of 100 tokens, as tokens and as text`, async (t) => {
    const engine = await Engine.load(TINY, { ranks })
    for (const { text, ids, out, decoded } of continuations) {
      t.deepEqual(await engine.tokenize(text), ids)
      const completion = await engine.generate(text, { maxTokens: out.length, ignoreEos: true })
      t.deepEqual([...completion.tokens], out)
      t.is(completion.text, decoded)
    }
    await engine.close()
  })
}
