// Checkpoints as transformers writes them: the logits and continuations that it computed in float64, at every rank count.
import { Engine } from '../src/index.js'
import { familyCases, goldenLogits, largestDifference } from './support/fixtures.js'
import { inFull, quickIf } from './support/tier.js'

const TOLERANCE = 2e-3
/** Cases whose structure another one has. */
const ALIKE = ['llama', 'llama_rope_scaling', 'mistral', 'deepseek_v2_dense']

for (const golden of familyCases()) {
  for (const backend of ['wasm', 'reference'] as const) {
    const counts = backend === 'reference' || !inFull ? ([1, 4] as const) : ([1, 2, 4] as const)
    const declare = quickIf(backend === 'wasm' && !ALIKE.includes(golden.name))
    declare(`${golden.name} on ${backend}: golden logits and greedy tokens, the same bits at ${counts.join(', ')} ranks`, async (t) => {
      let first: Float32Array[] | undefined
      for (const ranks of counts) {
        const engine = await Engine.load(golden.dir, { backend, ranks })
        t.teardown(() => engine.close())
        t.true(golden.variant.startsWith(engine.info.variant))
        const all: Float32Array[] = []
        for (const [i, prompt] of golden.prompts.entries()) {
          const logits = await engine.logits(prompt)
          all.push(logits)
          const difference = largestDifference(logits, await goldenLogits(golden.dir, i))
          t.true(difference <= TOLERANCE, `prompt ${i} at ${ranks} ranks differs by ${difference}`)
          if (ranks === 1) t.log(`prompt ${i}: largest difference ${difference.toExponential(2)}`)
          const { tokens } = await engine.generate(prompt, { maxTokens: 40, ignoreEos: true })
          t.true((golden.margins[i] as number) > TOLERANCE)
          t.deepEqual([...tokens], golden.greedy[i])
        }
        if (first) t.deepEqual(all, first)
        first ??= all
      }
    })
  }
}
