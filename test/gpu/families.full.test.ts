// Llama's, Qwen's and DeepSeek's structures on a software GPU, with either set of kernels.
import { Engine } from '../../src/index.js'
import { familyCases, goldenLogits, largestDifference } from '../support/fixtures.js'
import { gpuTest, SOFTWARE } from '../support/software-gpu.js'

const TOLERANCE = 3e-3

/** Of each structure one: biases, norms of heads, a latent with and without a query latent. */
const CASES = ['llama_rope_scaling', 'qwen2', 'qwen3', 'deepseek_v2_dense', 'deepseek_v3_dense']

for (const golden of familyCases().filter(({ name }) => CASES.includes(name))) {
  // WGSL of plain keys and values, and of a query latent, runs in golden.full.
  for (const kernels of ['llama_rope_scaling', 'deepseek_v3_dense'].includes(golden.name) ? (['gpu.js'] as const) : (['WGSL', 'gpu.js'] as const)) {
    const counts = kernels === 'gpu.js' ? ([1, 4] as const) : ([1] as const)
    gpuTest(`${golden.name} with ${kernels} kernels: golden logits and tokens, the same bits at ${counts.join(', ')} ranks`, async (t) => {
      let first: Float32Array[] | undefined
      for (const ranks of counts) {
        const engine = await Engine.load(golden.dir, { ...SOFTWARE, ...(kernels === 'gpu.js' ? { gpuKernels: 'gpu.js' } : {}), ranks, maxRunning: 4 })
        t.teardown(() => engine.close())
        t.is(engine.info.backend, 'gpu')
        const all: Float32Array[] = []
        for (const [i, prompt] of golden.prompts.slice(0, ranks === 1 ? 2 : 1).entries()) {
          const logits = await engine.logits(prompt)
          all.push(logits)
          const difference = largestDifference(logits, await goldenLogits(golden.dir, i))
          t.true(difference <= TOLERANCE, `prompt ${i} at ${ranks} ranks differs by ${difference}`)
        }
        if (ranks === 1) {
          const { tokens } = await engine.generate(golden.prompts[0] as number[], { maxTokens: 8, ignoreEos: true })
          t.deepEqual([...tokens], golden.greedy[0]?.slice(0, 8))
        }
        if (first) t.deepEqual(all, first.slice(0, 1))
        first ??= all
        await engine.close()
      }
    })
  }
}
