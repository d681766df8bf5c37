// GGUF files on a GPU, whose kernels multiply float32 activations: logits of the values that the file's blocks stand for.
import { join } from 'node:path'
import { Engine, type EngineOptions } from '../../src/index.js'
import { blockedLlama } from '../support/blocked-llama.js'
import { FIXTURES, familyCases, goldenLogits, largestDifference } from '../support/fixtures.js'
import { asGguf, type GgufTensorType, writeGgufFile } from '../support/gguf-file.js'
import { temporary } from '../support/models.js'
import { gpuTest, SOFTWARE } from '../support/software-gpu.js'

const PROMPT = Array.from({ length: 9 }, (_, i) => (i * 37 + 11) % 160)

async function run(path: string, options: EngineOptions, prompt = PROMPT) {
  const engine = await Engine.load(path, options)
  const logits = await engine.logits(prompt)
  const { weights } = engine.info
  await engine.close()
  return { logits, weights }
}

for (const [type, format, others] of [
  ['q4_0', 'int4', [2]],
  ['q8_0', 'int8', []],
] as const satisfies readonly (readonly [GgufTensorType, string, readonly 2[]])[]) {
  gpuTest(`a ${type} file runs in ${format} on a GPU: the logits of its values, with the same bits at any number of ranks`, async (t) => {
    const path = writeGgufFile(join(temporary(t), 'x.gguf'), await asGguf(blockedLlama(temporary(t)), type))
    const exact = await run(path, { backend: 'wasm', weights: 'f32', ranks: 1 })
    const one = await run(path, { ...SOFTWARE, ranks: 1 })
    t.is(one.weights, format)
    const difference = largestDifference(one.logits, exact.logits)
    t.log(`largest difference ${difference.toExponential(2)}`)
    // A compiled kernel takes seconds on a software GPU: prompts and ranks are few.
    t.true(difference < 1e-4)
    for (const ranks of others) t.deepEqual(await run(path, { ...SOFTWARE, ranks }), one, `${ranks} ranks`)
  })
}

gpuTest('rope_freqs.weight and a head without a matrix of its own: golden logits on a GPU', async (t) => {
  for (const name of ['llama_rope_scaling', 'llama_tied_bf16_sharded']) {
    const dir = `${FIXTURES}golden-hf/${name}`
    const path = writeGgufFile(join(temporary(t), 'x.gguf'), await asGguf(dir, 'f32'))
    const prompt = familyCases().find((golden) => golden.name === name)?.prompts[2] as number[]
    const { logits } = await run(path, { ...SOFTWARE, ranks: 1, weights: 'f32' }, prompt)
    t.true(largestDifference(logits, await goldenLogits(dir, 2)) <= 2e-3, name)
  }
})
