// GGUF files that are written as llama.cpp's converter writes them: the logits are those of the checkpoint that they were made from.
import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { Engine, type EngineOptions, inspect } from '../../src/index.js'
import { blockedLlama } from '../support/blocked-llama.js'
import { FIXTURES, familyCases, goldenLogits, largestDifference } from '../support/fixtures.js'
import { asGguf, type GgufTensorType, rounded, writeGgufFile } from '../support/gguf-file.js'
import { editConfig, readTensors, safetensors, temporary } from '../support/models.js'
import { full, quickIf } from '../support/tier.js'

const TOLERANCE = 2e-3
const CASES = familyCases().filter(({ variant }) => !variant.startsWith('deepseek'))
const caseOf = (name: string) => `${FIXTURES}golden-hf/${name}`

for (const golden of CASES) {
  quickIf(['llama_rope_scaling', 'qwen2', 'qwen3'].includes(golden.name))(
    `${golden.name} as GGUF in f32: golden logits at 1 and 4 ranks`,
    async (t) => {
      const path = writeGgufFile(join(temporary(t), 'x.gguf'), await asGguf(golden.dir, 'f32'))
      for (const ranks of [1, 4] as const) {
        const engine = await Engine.load(path, { ranks, backend: 'wasm', weights: 'f32' })
        for (const [i, prompt] of golden.prompts.entries()) {
          const difference = largestDifference(await engine.logits(prompt), await goldenLogits(golden.dir, i))
          t.true(difference <= TOLERANCE, `prompt ${i} at ${ranks} ranks differs by ${difference}`)
          t.log(`prompt ${i}: largest difference ${difference.toExponential(2)}`)
        }
        await engine.close()
      }
    },
  )
}

for (const [name, type] of [
  ['llama', 'q8_0'],
  ['qwen2', 'q4_0'],
  ['llama', 'f16'],
  ['llama', 'q4_0'],
  ['qwen3', 'bf16'],
  ['qwen3', 'q8_0'],
] as const satisfies readonly (readonly [string, GgufTensorType])[]) {
  quickIf(type === 'q8_0' && name === 'llama')(
    `${name} as GGUF in ${type}: the bits of a checkpoint of the values that the blocks stand for`,
    async (t) => {
      const dir = caseOf(name)
      const path = writeGgufFile(join(temporary(t), 'x.gguf'), await asGguf(dir, type))
      const plain = temporary(t)
      cpSync(join(dir, 'config.json'), join(plain, 'config.json'))
      const tensors = (await readTensors(dir)).map((tensor) => ({
        ...tensor,
        values: tensor.shape.length > 1 ? rounded(type, tensor.values) : tensor.values,
      }))
      writeFileSync(join(plain, 'model.safetensors'), safetensors(tensors))
      // A number of float32, as GGUF has it.
      editConfig(plain, {})
      const prompt = familyCases().find((golden) => golden.name === name)?.prompts[2] as number[]
      // Blocks of 4 bits in int8 are kept, not quantized from their values.
      for (const weights of type === 'q4_0' ? (['f32'] as const) : (['f32', 'int8'] as const)) {
        const [expected, actual] = await Promise.all(
          [plain, path].map(async (model) => {
            const engine = await Engine.load(model, { ranks: 2, backend: 'wasm', weights })
            const logits = await engine.logits(prompt)
            await engine.close()
            return logits
          }),
        )
        t.deepEqual(actual, expected, weights)
      }
    },
  )
}

test('a q4_0 file runs in int4: the logits are those of its values up to the rounding of activations, with the same bits at 1, 2 and 4 ranks', async (t) => {
  const path = writeGgufFile(join(temporary(t), 'x.gguf'), await asGguf(blockedLlama(temporary(t)), 'q4_0'))
  const prompt = Array.from({ length: 70 }, (_, i) => (i * 37 + 11) % 160)
  const logits = await Promise.all(
    ([{ ranks: 1 }, { ranks: 2 }, { ranks: 4 }, { ranks: 1, weights: 'f32' }, { ranks: 1, weights: 'int8' }] as EngineOptions[]).map(
      async (options) => {
        const engine = await Engine.load(path, { backend: 'wasm', ...options })
        const of = await engine.logits(prompt)
        const { weights } = engine.info
        await engine.close()
        return { of, weights }
      },
    ),
  )
  t.deepEqual(
    logits.map(({ weights }) => weights),
    ['int4', 'int4', 'int4', 'f32', 'int8'],
  )
  const [one, two, four, exact, int8] = logits.map(({ of }) => of) as Float32Array[]
  t.deepEqual(two, one)
  t.deepEqual(four, one)
  const [of4, of8] = [one, int8].map((each) => largestDifference(each as Float32Array, exact as Float32Array)) as [number, number]
  t.log(`from f32: int4 ${of4.toExponential(2)}, int8 ${of8.toExponential(2)}`)
  t.true(of4 < 0.15 && of8 < 0.3)
})

test('a folder with one .gguf file is a model; inspect tells types, and int8 is what blocks become', async (t) => {
  const dir = temporary(t)
  writeGgufFile(join(dir, 'x.gguf'), await asGguf(caseOf('llama_rope_scaling'), 'q8_0'))
  const inspection = await inspect(dir, { backend: 'wasm' })
  t.like(inspection, { variant: 'llama', format: 'gguf', storedTypes: ['q8_0'], weights: 'int8' })
  t.deepEqual(inspection.skipped, ['rope_freqs.weight (f32 [8])'])
  writeGgufFile(join(dir, 'y.gguf'), await asGguf(caseOf('llama'), 'f16'))
  await t.throwsAsync(inspect(dir), { code: 'MODEL_NOT_FOUND', message: /2 \.gguf files[\s\S]*Give the path of one/ })
  t.like(await inspect(join(dir, 'y.gguf')), { storedTypes: ['f16'], weights: 'f32' })
})

full('a GGUF file is converted, and gives the same bits packed', async (t) => {
  const { convert } = await import('../../src/index.js')
  const path = writeGgufFile(join(temporary(t), 'x.gguf'), await asGguf(caseOf('llama_rope_scaling'), 'q8_0'))
  const out = join(temporary(t), 'packed')
  await convert(path, out, { weights: 'int8' })
  const logits = await Promise.all(
    [path, out].map(async (model) => {
      const engine = await Engine.load(model, { ranks: 1, backend: 'wasm' })
      t.is(engine.info.weights, 'int8')
      const all = await engine.logits([1, 2, 3, 4, 5])
      await engine.close()
      return all
    }),
  )
  t.deepEqual(logits[1], logits[0])
})
