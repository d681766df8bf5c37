import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { CheckpointError, Engine, type Inspection, inspect, inspectConfig, OptionError, synthesize } from '../src/index.js'
import { VARIANT_NAMES, variantNamed } from '../src/model/attention-variants.js'
import { type RankCounters, readCounters } from '../src/testing.js'
import { PRESETS } from '../src/tools/synth/presets.js'
import { goldenCases, largestDifference, randomNumbers } from './support/fixtures.js'
import { copyOf, readTensors, safetensors, temporary } from './support/models.js'
import { configOf, LATENT, ODD, ODD_VOCABULARY, SHAPES } from './support/odd-shapes.js'
import { type PlainConfig, plainLogits } from './support/plain-model.js'
import { plainTransformersLogits, type TransformersConfig } from './support/plain-transformers.js'
import { full, inFull, quickIf } from './support/tier.js'

/** In the quick tier: goldens of the other structures run there. */
const QUICK = ['deepseek_v2, 7 heads', 'mlra_2_gated, 6 heads', 'tpa, 2 heads of 18']

const next = randomNumbers(9)
const PROMPT = Array.from({ length: 70 }, () => Math.floor(next() * ODD_VOCABULARY))

/** Rank counts, with the chunk that the prompt is cut into. */
const CUTS = [
  [1, 64],
  [2, 7],
  [4, 1],
] as const

test('the table above names every variant', (t) => {
  t.deepEqual([...new Set(SHAPES.map((s) => s.variant))].sort(), [...VARIANT_NAMES].sort())
})

for (const { what, variant, config } of SHAPES) {
  const declare = quickIf(QUICK.includes(`${variant}, ${what}`))
  declare(`${variant}, ${what}, odd widths: the logits of plain arithmetic, and the same bits at 1, 2 and 4 ranks and any chunk`, async (t) => {
    const dir = temporary(t)
    const { decoder } = variantNamed(variant)
    const all = configOf(variant, config)
    await synthesize(dir, { variant, config: all, dtype: 'f32', seed: 3 })
    const tensors = await readTensors(dir)
    const plain =
      decoder.name === 'gpt'
        ? plainLogits(variant, all as unknown as PlainConfig, tensors, PROMPT)
        : plainTransformersLogits(all as unknown as TransformersConfig, tensors, PROMPT)
    const expected = Float32Array.from(plain.flat())
    for (const backend of inFull ? (['reference', 'wasm'] as const) : (['wasm'] as const)) {
      let first: Float32Array | undefined
      for (const [ranks, prefillChunk] of CUTS) {
        const engine = await Engine.load(dir, { ranks, backend, prefillChunk })
        t.is(engine.info.variant, variant)
        const logits = await engine.logits(PROMPT)
        if (first) t.deepEqual(logits, first, `${backend} at ${ranks} ranks`)
        else {
          first = logits
          const difference = largestDifference(logits, expected)
          t.true(difference < (backend === 'wasm' ? 1e-3 : 1e-5), `${backend} differs by ${difference}`)
        }
        const decoded = await engine.generate(PROMPT.slice(0, 5), { maxTokens: 4, ignoreEos: true })
        t.is(decoded.tokens.length, 4)
        await engine.close()
      }
    }
    if (variant === 'tpa') {
      await t.throwsAsync(Engine.load(dir, { cache: 'int8' }), { instanceOf: OptionError })
    } else {
      let first: Float32Array | undefined
      for (const [ranks, prefillChunk] of CUTS) {
        const engine = await Engine.load(dir, { ranks, backend: 'wasm', prefillChunk, cache: 'int8' })
        const logits = await engine.logits(PROMPT)
        await engine.close()
        first ??= logits
        t.deepEqual(logits, first, `int8 cache at ${ranks} ranks`)
      }
      const difference = largestDifference(first as Float32Array, expected)
      const largest = expected.reduce((most, v) => Math.max(most, Math.abs(v)), 0)
      t.log(`int8 cache: ${difference} of ${largest}`)
      t.true(difference > 0 && difference < 0.05 * largest, `int8 cache differs by ${difference}, logits up to ${largest}`)
    }
    const varied = plain.map((row) => row.indexOf(Math.max(...row)))
    t.true(new Set(varied).size > 10)
  })
}

for (const name of ['mla', 'gla_2', 'mlra_2'] as const) {
  full(
    `${name}_no_scale is ${name} with its norms divided by the factors${name === 'mlra_2' ? ' and c_proj multiplied by the square root of 2' : ''}`,
    async (t) => {
      const golden = goldenCases().find((c) => c.name === name)
      if (!golden) throw new Error(`no golden ${name}`)
      const {
        n_embd: E,
        q_lora_rank: QL,
        kv_lora_rank: KL,
      } = JSON.parse(readFileSync(join(golden.dir, 'config.json'), 'utf8')) as Record<string, number>
      const D = (KL as number) / { mla: 1, gla_2: 2, mlra_2: 4 }[name]
      const factor = (tensor: string) => {
        if (tensor.includes('q_a_layernorm')) return 1 / Math.sqrt((E as number) / (QL as number))
        if (tensor.includes('kv_a_layernorm')) return 1 / Math.sqrt((E as number) / D)
        return name === 'mlra_2' && tensor.endsWith('attn.c_proj.weight') ? Math.SQRT2 : 1
      }
      const changed = (await readTensors(golden.dir)).map((tensor) => ({ ...tensor, values: tensor.values.map((v) => v * factor(tensor.name)) }))
      const dir = temporary(t)
      writeFileSync(join(dir, 'config.json'), readFileSync(join(golden.dir, 'config.json')))
      writeFileSync(join(dir, 'model.safetensors'), safetensors(changed))
      const prompt = golden.prompts[0] as number[]
      const logitsOf = async (model: string, variant?: string) => {
        const engine = await Engine.load(model, { backend: 'reference', ranks: 1, ...(variant && { variant }) })
        const logits = await engine.logits(prompt)
        await engine.close()
        return logits
      }
      const original = await logitsOf(golden.dir)
      t.true(largestDifference(await logitsOf(golden.dir, `${name}_no_scale`), original) > 1e-2)
      const noScaleOfScaled = (await readTensors(golden.dir)).map((tensor) => ({
        ...tensor,
        values: tensor.values.map((v) => v / factor(tensor.name)),
      }))
      const back = temporary(t)
      writeFileSync(join(back, 'config.json'), readFileSync(join(golden.dir, 'config.json')))
      writeFileSync(join(back, 'model.safetensors'), safetensors(noScaleOfScaled))
      // Norms times the factors, read without factors: the original. Norms divided by them, read with factors: the no_scale one.
      t.true(largestDifference(await logitsOf(back, `${name}_no_scale`), original) < 1e-4)
      t.true(largestDifference(await logitsOf(dir), await logitsOf(golden.dir, `${name}_no_scale`)) < 1e-4)
    },
  )
}

test('an explicit variant that does not match the keys is refused with those that do; an unknown name is refused', async (t) => {
  const golden = goldenCases().find((c) => c.name === 'mlra_4')
  const error = await t.throwsAsync(async () => await Engine.load(golden?.dir as string, { variant: 'mla_no_scale' }), { instanceOf: OptionError })
  t.regex(error.message, /expected mlra_4;/)
  await t.throwsAsync(async () => await Engine.load(golden?.dir as string, { variant: 'mlra_8' }), {
    instanceOf: OptionError,
    message: /mlra_4, mlra_2/,
  })
  t.is((await inspect(golden?.dir as string, { variant: 'mlra_4' })).variant, 'mlra_4')
  const mqa = goldenCases().find((c) => c.name === 'mqa')
  t.is((await inspect(mqa?.dir as string)).variant, 'gqa')
  t.is((await inspect(mqa?.dir as string, { variant: 'mqa' })).variant, 'mqa')
})

test('heads that cannot be cut as the variant does, and head widths that cannot be rotated, are named', async (t) => {
  const cases: [string, Record<string, number>, RegExp][] = [
    ['gla_4', { ...LATENT, n_head: 6 }, /n_head .* multiple of 4/],
    ['mlra_2', { ...LATENT, n_head: 7 }, /n_head .* multiple of 2/],
    ['gqa', { n_head: 7, head_dim: 8, group_size: 2 }, /n_head .* group_size 2/],
    ['gqa', { n_head: 8, head_dim: 8 }, /group_size is missing/],
    ['gta', { n_head: 8, head_dim: 10, group_size: 2 }, /head_dim .* multiple of 4/],
    ['mha', { n_head: 8, head_dim: 9 }, /head_dim .* multiple of 2/],
    ['tpa', { n_head: 8, head_dim: 8 }, /rank is missing/],
    ['mlra_4', { ...LATENT, n_head: 8, kv_lora_rank: 70 }, /kv_lora_rank .* multiple of 4/],
  ]
  for (const [variant, config, message] of cases) {
    const dir = temporary(t)
    await t.throwsAsync(async () => await synthesize(join(dir, 'out'), { variant, config: { ...ODD, ...config } }), {
      instanceOf: CheckpointError,
      message,
    })
  }
})

// The table of the paper's configurations: values per token, layer and fullest rank at 1, 2 and 4 ranks.
const CACHED: Readonly<Record<string, readonly [number, number, number]>> = {
  mha: [6144, 3072, 1536],
  gqa: [1536, 768, 512],
  gta: [832, 448, 320],
  mfa: [512, 512, 512],
  tpa: [608, 560, 536],
  mqa: [256, 256, 256],
  mla: [576, 576, 576],
  gla_2: [576, 320, 320],
  gla_4: [576, 320, 192],
  mlra_2: [576, 320, 192],
  mlra_4: [576, 320, 192],
}

test('the 2.9 B configurations cache what the paper says at 1, 2 and 4 ranks, and have about 2.9 B parameters', async (t) => {
  for (const [variant, values] of Object.entries(CACHED)) {
    const path = join(temporary(t), 'config.json')
    writeFileSync(path, JSON.stringify(PRESETS['2.9b']?.(variant)))
    const [inspection] = await inspectConfig(path, { variant })
    t.deepEqual(
      inspection?.kvCache.map((k) => k.valuesPerTokenPerLayer),
      [...values],
      variant,
    )
    t.true(Math.abs((inspection as Inspection).parameters / 2.87e9 - 1) < 0.02, variant)
    // Of its own widths: the paper's MLRA-4, whatever the model.
    const asMlra4 = inspection?.asMlra4?.map((k) => k.valuesPerTokenPerLayer)
    if (variant === 'mlra_4') t.is(asMlra4, undefined)
    if (['gqa', 'mha', 'gta', 'mla', 'gla_2'].includes(variant)) t.deepEqual(asMlra4, [...(CACHED.mlra_4 as readonly number[])], variant)
  }
  const gated = VARIANT_NAMES.filter((v) => /gated|no_scale/.test(v))
  for (const variant of gated) t.truthy(PRESETS['2.9b']?.(variant), variant)
})

test('a configuration without a variant lists all that it fits; with one, or with the field that synth writes, that one', async (t) => {
  const path = join(temporary(t), 'config.json')
  writeFileSync(path, JSON.stringify(PRESETS['2.9b']?.('mla')))
  t.deepEqual(
    (await inspectConfig(path)).map((i) => i.variant),
    ['mlra_4', 'mlra_2', 'gla_4', 'gla_2', 'mla'],
  )
  writeFileSync(path, JSON.stringify({ ...PRESETS['2.9b']?.('mla'), variant: 'mla_no_scale' }))
  t.deepEqual(
    (await inspectConfig(path)).map((i) => i.variant),
    ['mla_no_scale'],
  )
  writeFileSync(path, JSON.stringify({ ...PRESETS['2.9b']?.('mla'), variant: 'mla2' }))
  await t.throwsAsync(async () => await inspectConfig(path), { instanceOf: CheckpointError, message: /variant is not supported/ })
})

for (const golden of goldenCases()) {
  const declare = quickIf(['mlra_4', 'gqa', 'tpa'].includes(golden.name))
  declare(`${golden.name}: every rank reads each cached value of its streams once a token, and no more than inspect says`, async (t) => {
    for (const ranks of [1, 2, 4] as const) {
      const engine = await Engine.load(golden.dir, { ranks })
      const { kvCache } = await inspect(golden.dir, { ranks })
      const prompt = (golden.prompts[0] as number[]).slice(0, 5)
      await engine.logits(prompt)
      const before = readCounters(engine)
      // One token alone reads one cached row of every stream and layer.
      await engine.logits([7])
      const read = readCounters(engine).map((after, r) => after.cacheBytes - (before[r] as RankCounters).cacheBytes)
      t.is(Math.max(...read), kvCache.find((k) => k.ranks === ranks)?.bytesPerToken as number, `${ranks} ranks read ${read}`)
      await engine.close()
    }
  })
}

test('group_size is taken from the tensors when the configuration lacks it', async (t) => {
  const golden = goldenCases().find((c) => c.name === 'gqa')
  const dir = copyOf(t, golden?.dir as string)
  const { group_size: _, ...config } = JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8')) as Record<string, unknown>
  writeFileSync(join(dir, 'config.json'), JSON.stringify(config))
  const engine = await Engine.load(dir)
  t.deepEqual([...(await engine.generate(golden?.prompts[0] as number[], { maxTokens: 40, ignoreEos: true })).tokens], golden?.greedy[0])
  await engine.close()
})
