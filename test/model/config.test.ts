// What config.json says of norms and rotary embedding is honoured, or refused by the field's name.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { CheckpointError, Engine } from '../../src/index.js'
import { parseModelConfig } from '../../src/model/model-config.js'
import { ropeShape } from '../../src/model/rope.js'
import { synthesize } from '../../src/tools/synth/synthesize.js'
import { largestDifference } from '../support/fixtures.js'
import { editConfig, readTensors, temporary } from '../support/models.js'
import { type PlainConfig, plainLogits } from '../support/plain-model.js'
import { quickIf } from '../support/tier.js'

const LATENT = {
  n_layer: 2,
  n_head: 4,
  n_embd: 40,
  vocab_size: 90,
  block_size: 64,
  intermediate_size: 48,
  q_lora_rank: 20,
  kv_lora_rank: 32,
  qk_nope_head_dim: 12,
  qk_rope_head_dim: 8,
}
const GROUPED = { ...LATENT, head_dim: 16, group_size: 2 }
const IDS = Array.from({ length: 60 }, (_, i) => (i * 37 + 5) % 90)
const parse = (change: Record<string, unknown>) => parseModelConfig({ ...LATENT, ...change })
const frequenciesOf = (change: Record<string, unknown>, dim = 8) => ropeShape(parse(change).rope, dim)

type Frequencies = (half: number) => number[]
const plain =
  (base: number): Frequencies =>
  (half) =>
    Array.from({ length: half }, (_, i) => base ** (-i / half))

const LLAMA3 = { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 32 }
/** As in transformers' _compute_llama3_parameters, in wavelengths. */
const llama3: Frequencies = (half) =>
  plain(500000)(half).map((f) => {
    const wave = (2 * Math.PI) / f
    if (wave > 32 / 1) return f / 8
    if (wave < 32 / 4) return f
    const smooth = (32 / wave - 1) / (4 - 1)
    return ((1 - smooth) * f) / 8 + smooth * f
  })

const HONOURED: readonly (readonly [string, Record<string, unknown>, Partial<PlainConfig>])[] = [
  ['rope_theta', { rope_theta: 500000 }, { frequencies: plain(500000) }],
  ['rope_parameters.rope_theta', { rope_parameters: { rope_type: 'default', rope_theta: 1e6 } }, { frequencies: plain(1e6) }],
  ['linear rope_scaling', { rope_scaling: { type: 'linear', factor: 4 } }, { frequencies: (half) => plain(10000)(half).map((f) => f / 4) }],
  ['llama3 rope_scaling', { rope_theta: 500000, rope_scaling: LLAMA3 }, { frequencies: llama3 }],
  ['rms_norm_eps', { rms_norm_eps: 0.1 }, { rms_norm_eps: 0.1 }],
]

for (const [what, change, plainChange] of HONOURED) {
  for (const [variant, base] of [
    ['mlra_4', LATENT],
    ['gqa', GROUPED],
  ] as const) {
    const declare = quickIf(variant === 'gqa' && /llama3|eps/.test(what))
    declare(`${variant}: ${what} gives the logits of plain arithmetic, and others than without`, async (t) => {
      const dir = temporary(t)
      await synthesize(dir, { variant, config: base, dtype: 'f32', seed: 2 })
      const logits = async (backend: 'wasm' | 'reference') => {
        const engine = await Engine.load(dir, { ranks: 2, backend, cacheTokens: 64 })
        const result = await engine.logits(IDS)
        await engine.close()
        return result
      }
      const before = await logits('wasm')
      editConfig(dir, change)
      const expected = Float32Array.from(
        plainLogits(variant, { ...base, ...plainChange } as unknown as PlainConfig, await readTensors(dir), IDS).flat(),
      )
      t.true(largestDifference(await logits('wasm'), expected) < 1e-3)
      t.true(largestDifference(await logits('reference'), expected) < 1e-5)
      t.true(largestDifference(before, expected) > 1e-2)
    })
  }
}

test('yarn frequencies and amplitude are those of its formula', (t) => {
  const { frequencies, amplitude } = frequenciesOf({ rope_scaling: { type: 'yarn', factor: 4, original_max_position_embeddings: 16 } }, 16)
  t.true(Math.abs(amplitude - (0.1 * Math.log(4) + 1)) < 1e-12)
  const index = (rotations: number) => (16 * Math.log(16 / (rotations * 2 * Math.PI))) / (2 * Math.log(10000))
  const [low, high] = [Math.max(0, Math.floor(index(32))), Math.min(15, Math.ceil(index(1)))]
  for (const [i, f] of frequencies.entries()) {
    const full = 10000 ** (-i / 8)
    const ramp = Math.min(1, Math.max(0, (i - low) / (high - low)))
    t.true(Math.abs(f / ((full / 4) * ramp + full * (1 - ramp)) - 1) < 1e-12, `frequency ${i}`)
  }
  const deepseek = { type: 'yarn', factor: 40, mscale: 0.707, mscale_all_dim: 0.707, original_max_position_embeddings: 16 }
  t.is(frequenciesOf({ rope_scaling: deepseek }).amplitude, 1)
  t.is(frequenciesOf({ rope_scaling: { ...deepseek, attention_factor: 1.5 } }).amplitude, 1.5)
})

test('fields that change nothing are accepted, in the spelling of transformers 4 and 5', (t) => {
  const before = frequenciesOf({})
  for (const change of [
    { rope_scaling: null, rope_parameters: null, sliding_window: null, hidden_act: 'silu', tie_word_embeddings: true },
    { rope_scaling: {}, rope_theta: 10000 },
    { rope_parameters: { rope_type: 'default', rope_theta: 10000, partial_rotary_factor: 1 } },
    { rope_scaling: { type: 'default', rope_type: 'default' }, layer_norm_epsilon: 1e-6, sliding_window: 4096, use_sliding_window: true },
    { bias: false, attention_bias: false, dropout: 0, layer_types: ['full_attention', 'full_attention'], quantization_config: null },
  ])
    t.deepEqual(frequenciesOf(change), before)
})

const REFUSED: readonly (readonly [string, Record<string, unknown>])[] = [
  ['rope_scaling', { rope_scaling: { type: 'dynamic', factor: 2 } }],
  ['rope_scaling', { rope_scaling: { rope_type: 'longrope', factor: 2, short_factor: [1], long_factor: [1] } }],
  ['rope_scaling', { rope_scaling: { factor: 2 } }],
  ['rope_scaling', { rope_scaling: 'linear' }],
  ['rope_scaling.factor', { rope_scaling: { type: 'linear' } }],
  ['rope_scaling.low_freq_factor', { rope_scaling: { rope_type: 'llama3', factor: 2, high_freq_factor: 4 } }],
  ['rope_scaling.mrope_section', { rope_scaling: { type: 'default', mrope_section: [1, 2] } }],
  ['rope_parameters.partial_rotary_factor', { rope_parameters: { rope_type: 'default', partial_rotary_factor: 0.5 } }],
  ['rope_parameters.full_attention', { rope_parameters: { full_attention: { rope_type: 'default' } } }],
  ['rope_theta', { rope_theta: '10000' }],
  ['rope_theta', { rope_theta: 5e5, rope_parameters: { rope_type: 'default', rope_theta: 1e4 } }],
  ['rope_parameters', { rope_scaling: { type: 'linear', factor: 2 }, rope_parameters: { rope_type: 'linear', factor: 4 } }],
  ['rms_norm_eps', { rms_norm_eps: -1 }],
  ['layer_norm_epsilon', { layer_norm_epsilon: 1e-5 }],
  ['bias', { bias: true }],
  ['attention_bias', { attention_bias: true }],
  ['hidden_act', { hidden_act: 'gelu' }],
  ['sliding_window', { sliding_window: 16 }],
  ['partial_rotary_factor', { partial_rotary_factor: 0.5 }],
  ['quantization_config', { quantization_config: { quant_method: 'fp8' } }],
  ['num_experts', { num_experts: 8 }],
  ['layer_types', { layer_types: ['full_attention', 'sliding_attention'] }],
]
for (const [field, change] of REFUSED) {
  test(`${JSON.stringify(change)} is refused by the name ${field}`, (t) => {
    const error = t.throws(() => parse(change), { instanceOf: CheckpointError })
    t.is((error as CheckpointError).code, 'CONFIG_INVALID')
    t.true(error?.message.includes(field), error?.message)
  })
}

test('a config.json with such a field is refused when the model is opened', async (t) => {
  const dir = temporary(t)
  await synthesize(dir, { variant: 'mlra_4', config: LATENT, dtype: 'f32' })
  const path = join(dir, 'config.json')
  writeFileSync(path, readFileSync(path, 'utf8').replace('{', '{"sliding_window": 16,'))
  await t.throwsAsync(Engine.load(dir), { message: /sliding_window is not supported/ })
})
