import { Engine } from '../../src/index.js'
import { goldenCases, goldenLogits, largestDifference } from '../support/fixtures.js'
import { gpuTest, SOFTWARE } from '../support/software-gpu.js'

const TOLERANCE = 3e-3

const KERNELS = { WGSL: {}, 'gpu.js': { gpuKernels: 'gpu.js' } } as const

/** A software GPU is slow at WGSL's barriers: with these kernels one of each structure runs on several devices, on one prompt; with gpu.js kernels on 2 devices, too. */
const ON_FOUR = ['mlra_4', 'mla', 'gqa', 'tpa']
/** WGSL of the same kinds as another case's: only where this file is run by its name. */
const ALIKE = ['mlra_2_gated', 'mla_gated', 'gla_4', 'mlra_2_bf16', 'mlra_4_bf16_sharded', 'mlra_4_f16_safetensors', 'mqa', 'mha']
const byName = process.env.TETRAD_TEST_TIER === undefined

for (const golden of goldenCases()) {
  for (const kernels of ['WGSL', 'gpu.js'] as const) {
    if (kernels === 'WGSL' && !byName && ALIKE.includes(golden.name)) continue
    const isWhole = ON_FOUR.includes(golden.name)
    const counts = kernels === 'gpu.js' && isWhole ? ([1, 2, 4] as const) : kernels === 'gpu.js' || isWhole ? ([1, 4] as const) : ([1] as const)
    gpuTest(
      `${golden.name} with ${kernels} kernels on a software GPU: golden logits and tokens, the same bits at ${counts.join(', ')} ranks`,
      async (t) => {
        let first: Float32Array[] | undefined
        for (const ranks of counts) {
          const engine = await Engine.load(golden.dir, { ...SOFTWARE, ...KERNELS[kernels], ranks, maxRunning: 4 })
          t.is(engine.info.backend, 'gpu')
          t.is(engine.info.adapters.length, ranks)
          const all: Float32Array[] = []
          const prompts = ranks === 1 ? golden.prompts : golden.prompts.slice(0, 1)
          for (const [i, prompt] of prompts.entries()) {
            const logits = await engine.logits(prompt)
            all.push(logits)
            const difference = largestDifference(logits, await goldenLogits(golden.dir, i))
            t.true(difference <= TOLERANCE, `prompt ${i} at ${ranks} ranks differs by ${difference}`)
            if (ranks > 1) continue
            t.log(`prompt ${i}: largest difference ${difference.toExponential(2)}`)
            if (i > 0) continue
            const { tokens } = await engine.generate(prompt, { maxTokens: 16, ignoreEos: true })
            t.deepEqual([...tokens], golden.greedy[i]?.slice(0, 16))
          }
          if (first) t.deepEqual(all, first.slice(0, 1))
          first ??= all
          await engine.close()
        }
      },
    )
  }
}
