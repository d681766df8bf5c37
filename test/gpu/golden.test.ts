import { Engine } from '../../src/index.js'
import { goldenCases, goldenLogits, largestDifference } from '../support/fixtures.js'
import { gpuTest, SOFTWARE } from '../support/software-gpu.js'

const TOLERANCE = 3e-3

for (const golden of goldenCases()) {
  gpuTest(`${golden.name} on a software GPU: golden logits and greedy tokens, the same bits at 1 and 4 ranks`, async (t) => {
    let first: Float32Array[] | undefined
    for (const ranks of [1, 4] as const) {
      const engine = await Engine.load(golden.dir, { ...SOFTWARE, ranks, maxRunning: 4 })
      t.is(engine.info.backend, 'gpu')
      t.is(engine.info.adapters.length, ranks)
      const all: Float32Array[] = []
      // A software GPU compiles and computes slowly: several ranks are compared on one prompt.
      const prompts = ranks === 1 ? golden.prompts : golden.prompts.slice(0, 1)
      for (const [i, prompt] of prompts.entries()) {
        const logits = await engine.logits(prompt)
        all.push(logits)
        const difference = largestDifference(logits, await goldenLogits(golden.dir, i))
        t.true(difference <= TOLERANCE, `prompt ${i} at ${ranks} ranks differs by ${difference}`)
        if (ranks > 1) continue
        t.log(`prompt ${i}: largest difference ${difference.toExponential(2)}`)
        const { tokens } = await engine.generate(prompt, { maxTokens: 16, ignoreEos: true })
        t.deepEqual([...tokens], golden.greedy[i]?.slice(0, 16))
      }
      if (first) t.deepEqual(all, first.slice(0, 1))
      first ??= all
      await engine.close()
    }
  })
}
