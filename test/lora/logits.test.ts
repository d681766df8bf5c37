// Adapters beside the model, unmerged: the logits of plain float64 arithmetic with W + scale B A, and of a merged checkpoint, in every variant.
import { join } from 'node:path'
import { Engine, synthesize } from '../../src/index.js'
import { variantNamed } from '../../src/model/attention-variants.js'
import { mergedTensors, writeAdapter, writeModel } from '../support/adapters.js'
import { largestDifference, randomNumbers } from '../support/fixtures.js'
import { readTensors, temporary } from '../support/models.js'
import { configOf, ODD_VOCABULARY, SHAPES } from '../support/odd-shapes.js'
import { type PlainConfig, plainLogits } from '../support/plain-model.js'
import { plainTransformersLogits, type TransformersConfig } from '../support/plain-transformers.js'
import { inFull, quickIf } from '../support/tier.js'

/** In the quick tier: one of each structure. */
const QUICK = ['qwen2, 7 heads over 1', 'qwen3, 6 heads over 2', 'mlra_4_gated, 7 heads']

const next = randomNumbers(4)
const PROMPT = Array.from({ length: 12 }, () => Math.floor(next() * ODD_VOCABULARY))

/** Rank counts, with the chunk that the prompt is cut into. */
const CUTS = [
  [1, 64],
  [2, 5],
  [4, 1],
] as const

for (const [index, { what, variant, config }] of SHAPES.entries()) {
  const declare = quickIf(QUICK.includes(`${variant}, ${what}`))
  declare(
    `${variant}, ${what}: an adapter on every projection gives the logits of the merged model, with the same bits at 1, 2, 4 ranks`,
    async (t) => {
      const dir = temporary(t)
      const base = join(dir, 'base')
      const all = configOf(variant, config)
      await synthesize(base, { variant, config: all, dtype: 'f32', seed: 3 })
      const tensors = await readTensors(base)
      const spec = { seed: 11 + index, rank: index % 2 === 0 ? 3 : 5, size: 0.12, parameters: true }
      writeAdapter(join(dir, 'adapter'), tensors, spec)
      const merged = mergedTensors(tensors, spec)
      writeModel(join(dir, 'merged'), base, merged)
      const plain =
        variantNamed(variant).decoder.name === 'gpt'
          ? plainLogits(variant, all as unknown as PlainConfig, merged, PROMPT)
          : plainTransformersLogits(all as unknown as TransformersConfig, merged, PROMPT)
      const expected = Float32Array.from(plain.flat())
      for (const backend of inFull ? (['reference', 'wasm'] as const) : (['wasm'] as const)) {
        const whole = await Engine.load(join(dir, 'merged'), { ranks: 1, backend, variant })
        const ofMerged = await whole.logits(PROMPT)
        await whole.close()
        let first: Float32Array | undefined
        for (const [ranks, prefillChunk] of CUTS) {
          const engine = await Engine.load(base, { ranks, backend, prefillChunk, variant, adapters: { one: join(dir, 'adapter') } })
          const logits = await engine.logits(PROMPT, { lora: 'one' })
          const alone = await engine.logits(PROMPT)
          await engine.close()
          if (first) {
            t.deepEqual(logits, first, `${backend} at ${ranks} ranks`)
            continue
          }
          first = logits
          const tolerance = backend === 'wasm' ? 1e-3 : 1e-5
          t.true(largestDifference(logits, alone) > 0.05, 'the adapter changes something')
          const [plainly, asMerged] = [largestDifference(logits, expected), largestDifference(logits, ofMerged)]
          t.log(`${backend}: ${plainly.toExponential(1)} from plain arithmetic, ${asMerged.toExponential(1)} from the merged model`)
          t.true(plainly < tolerance, `${backend} differs by ${plainly} from plain arithmetic`)
          t.true(asMerged < tolerance, `${backend} differs by ${asMerged} from the merged model`)
        }
      }
    },
  )
}
