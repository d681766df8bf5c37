import test from 'ava'
import type { AdapterFacts } from '../../kernels/gpu/adapter.js'
import { planTensorAttention } from '../../kernels/gpu/wgsl/tensor-shape.js'
import { type ModelPlan, openModel, planRun } from '../../src/engine/model.js'
import { variantNamed } from '../../src/model/attention-variants.js'
import { lowerModel } from '../../src/model/lower-model.js'
import { parseModelConfig } from '../../src/model/model-config.js'
import { checkOptions, resolveFor } from '../../src/options/engine-options.js'
import { PRESETS } from '../../src/tools/synth/presets.js'
import { GpuPlan } from '../../workers/gpu/plan.js'
import { layoutModel } from '../../workers/layout/model-layout.js'
import { goldenCases } from '../support/fixtures.js'

const ADAPTER: AdapterFacts = {
  vendor: '',
  architecture: '',
  device: '',
  description: '',
  software: false,
  tensorCores: true,
  workgroupStorage: 49_152,
  workgroupThreads: 1024,
  largestBuffer: 2 ** 31,
}

/** The goldens, which are narrow, and models of the paper's size. */
const MODELS: Record<string, () => Promise<ModelPlan>> = {
  ...Object.fromEntries(goldenCases().map(({ name, dir }) => [name, () => openModel(dir, undefined)])),
  ...Object.fromEntries(
    ['mlra_4', 'mlra_2', 'gla_2', 'mla', 'gqa', 'mha', 'tpa'].map((name) => [
      `${name} of 2.9 B`,
      async () => {
        const config = parseModelConfig(PRESETS['2.9b']?.(name))
        const variant = variantNamed(name)
        return { config, variant, lowered: lowerModel(config, variant), storedTypes: ['bf16'], parameters: 0 }
      },
    ]),
  ),
}

for (const [name, open] of Object.entries(MODELS)) {
  test(`${name}: how a context is cut into parts, and the order of sums, do not follow from the rank count`, async (t) => {
    const model = await open()
    for (const cache of ['f32', 'f16'] as const) {
      const orders = ([1, 2, 4] as const).flatMap((ranks) => {
        const run = planRun(model, resolveFor('gpu', checkOptions({ ranks, cache, maxContext: 300_000, cacheTokens: 300_032 })), 4, 2 ** 33)
        const layout = layoutModel(model.lowered.shape, run)
        return Array.from({ length: ranks }, (_, rank) => {
          const plan = new GpuPlan(model.lowered.shape, run, layout, rank, ADAPTER)
          const parts = [1, 64, 65, 5000, 131_072, 300_000].map((length) => JSON.stringify(plan.partsOf(length)))
          const tilings = [plan.tensor?.single.tiling, plan.tensor?.prompt?.tiling ?? plan.tensor?.single.tiling]
          return [plan.kernels.products, ...tilings.flatMap((tiling) => [tiling?.tokens, tiling?.split]), ...parts].join()
        })
      })
      t.deepEqual([...new Set(orders)].length, 1, `${cache}: ${orders.join(' / ')}`)
    }
  })
}

test('tensor cores: tokens and split follow from the widths and the heads of a stream, and every group fits the workgroup memory that there is', (t) => {
  for (const [keyWidth, valueOffset, valueWidth, ropeDim] of [
    [128, 0, 128, 64],
    [512, 0, 512, 64],
    [22, 0, 22, 10],
    [18, 18, 26, 0],
    [256, 256, 256, 0],
  ] as const) {
    const rowWidth = Math.ceil(Math.max(keyWidth, valueOffset + valueWidth) / 4) * 4
    const shape = { keyWidth, keyOffset: 0, valueOffset, valueWidth, ropeDim, rowWidth, ropeRowWidth: Math.ceil(ropeDim / 4) * 4 }
    const planned = Array.from({ length: 130 }, (_, i) => planTensorAttention(shape, i + 1, 49_152))
    for (const streamHeads of [8, 64]) {
      const ofRanks = [streamHeads, streamHeads / 2, streamHeads / 4].map((heads) => planTensorAttention(shape, heads, 49_152, streamHeads))
      t.is(new Set(ofRanks.map((p) => `${p?.tiling.tokens} ${p?.tiling.split} ${p?.tiling.scores} ${p?.workgroups}`)).size, 1)
    }
    t.true(planned.every((p) => p !== undefined && p.groupHeads % 16 === 0 && p.groupHeads <= 64))
  }
  t.is(
    planTensorAttention({ keyWidth: 17, keyOffset: 0, valueOffset: 17, valueWidth: 17, ropeDim: 0, rowWidth: 36, ropeRowWidth: 0 }, 8, 49_152),
    undefined,
  )
})
