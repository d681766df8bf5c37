// What config.json and tensors of Llama's, Mistral's, Qwen's and DeepSeek's checkpoints may say: honoured, or refused by name.
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { CheckpointError, Engine, inspect, OptionError, RequestError, synthesize } from '../../src/index.js'
import { variantNamed } from '../../src/model/attention-variants.js'
import { lowerModel } from '../../src/model/lower-model.js'
import { parseModelConfig } from '../../src/model/model-config.js'
import { FIXTURES, largestDifference } from '../support/fixtures.js'
import { copyOf, editConfig, readTensors, safetensors, temporary } from '../support/models.js'

const fixture = (name: string) => `${FIXTURES}golden-hf/${name}`
const configOf = (name: string) => JSON.parse(readFileSync(`${fixture(name)}/config.json`, 'utf8')) as Record<string, unknown>
const parse = (name: string, change: Record<string, unknown>) => parseModelConfig({ ...configOf(name), ...change })

const REFUSED: readonly (readonly [string, string, Record<string, unknown>])[] = [
  ['llama', 'attention_bias', { attention_bias: true }],
  ['llama', 'mlp_bias', { mlp_bias: true }],
  ['llama', 'hidden_act', { hidden_act: 'gelu' }],
  ['llama', 'num_local_experts', { num_local_experts: 8 }],
  ['llama', 'sliding_window', { sliding_window: 16 }],
  ['llama', 'rope_parameters.partial_rotary_factor', { rope_parameters: { rope_type: 'default', rope_theta: 1e4, partial_rotary_factor: 0.5 } }],
  ['llama', 'head_dim', { head_dim: 15 }],
  ['mistral', 'layer_types', { layer_types: ['full_attention', 'chunked_attention'] }],
  ['qwen2', 'layer_types', { layer_types: ['sliding_attention', 'sliding_attention'], sliding_window: null }],
  ['mistral', 'sliding_window', { sliding_window: '16' }],
  ['qwen2', 'use_mrope', { use_mrope: true }],
  ['qwen3', 'attention_bias', { attention_bias: true }],
  ['deepseek_v2_dense', 'mixture of experts', { first_k_dense_replace: 1 }],
  ['deepseek_v3_dense', 'mixture of experts', { mlp_layer_types: ['dense', 'sparse'] }],
  ['deepseek_v3_dense', 'attention_bias', { attention_bias: true }],
  ['deepseek_v3_dense', 'num_key_value_heads', { num_key_value_heads: 2 }],
  ['deepseek_v2_dense', 'rope_interleave', { rope_interleave: false }],
  ['deepseek_v2_dense', 'qk_rope_head_dim', { qk_rope_head_dim: 7 }],
]
for (const [name, field, change] of REFUSED) {
  test(`${name}: ${JSON.stringify(change)} is refused by the name ${field}`, (t) => {
    const lower = () => lowerModel(parse(name, change), variantNamed(name.replace('_dense', '')))
    const error = t.throws(lower, { instanceOf: CheckpointError }) as CheckpointError
    t.is(error.code, 'CONFIG_INVALID')
    t.true(error.message.includes(field), error.message)
    t.regex(error.remedy, /\S/)
  })
}

test('a file without architectures is known by its model_type, and one of another model is refused by its names', (t) => {
  t.is(parse('qwen2', { architectures: undefined }).decoder.name, 'qwen2')
  t.throws(() => parse('qwen2', { architectures: ['Qwen2MoeForCausalLM'], model_type: 'qwen2_moe' }), { message: /Qwen2MoeForCausalLM/ })
})

test('a window is honoured: the context ends there, and a longer one is refused by its name', async (t) => {
  const dir = copyOf(t, fixture('mistral'))
  editConfig(dir, { sliding_window: 24 })
  const engine = await Engine.load(dir, { ranks: 1, cacheTokens: 128 })
  t.teardown(() => engine.close())
  t.is(engine.info.contextTokens, 24)
  await t.throwsAsync(
    engine.generate(
      Array.from({ length: 30 }, () => 5),
      { maxTokens: 1 },
    ),
    { instanceOf: RequestError },
  )
  const whole = await Engine.load(fixture('mistral'), { ranks: 1, cacheTokens: 128 })
  t.teardown(() => whole.close())
  const ids = Array.from({ length: 20 }, (_, i) => 3 + i)
  t.deepEqual(await engine.logits(ids), await whole.logits(ids))
  const error = await t.throwsAsync(Engine.load(dir, { maxContext: 25 }), { instanceOf: OptionError })
  t.regex(error?.message ?? '', /sliding_window/)
})

test('windows that no layer uses, or that are longer than the context, change nothing', (t) => {
  const plain = parse('qwen2', {})
  for (const change of [
    { sliding_window: 16, use_sliding_window: false, layer_types: undefined },
    { sliding_window: 16, use_sliding_window: true, max_window_layers: 2, layer_types: undefined },
    { sliding_window: 16 },
    { sliding_window: 4096, layer_types: ['sliding_attention', 'sliding_attention'] },
  ]) {
    const { window, contextTokens } = parse('qwen2', change)
    t.deepEqual([window, contextTokens], [undefined, plain.contextTokens], JSON.stringify(change))
  }
  t.is(parse('qwen2', { sliding_window: 16, use_sliding_window: true, max_window_layers: 1, layer_types: undefined }).window, 16)
  t.is(parse('qwen2', { sliding_window: 16, use_sliding_window: true, max_window_layers: undefined, layer_types: undefined }).window, undefined)
  t.is(parse('qwen2', { sliding_window: 16, layer_types: ['full_attention', 'sliding_attention'] }).window, 16)
})

test("Mistral's window is null, what the file says, or its class's 4096", (t) => {
  const long = { max_position_embeddings: 8192 }
  for (const [sliding_window, window] of [
    [null, undefined],
    [undefined, 4096],
    [512, 512],
  ] as const)
    t.is(parse('mistral', { ...long, sliding_window }).window, window, String(sliding_window))
})

/** What a config says of rope, lowered. */
const ropeOf = (name: string, change: Record<string, unknown>) =>
  lowerModel(parse(name, { rope_parameters: undefined, ...change }), variantNamed(name.replace('_dense', ''))).shape.rope

test('one rope in the spellings of transformers 4 and 5 is one rope', (t) => {
  const llama3 = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 32 }
  const yarn = { factor: 4, original_max_position_embeddings: 32, attention_factor: 1.25, beta_fast: 16, beta_slow: 2, truncate: false }
  for (const [type, fields] of [
    ['linear', { factor: 4 }],
    ['llama3', llama3],
    ['yarn', yarn],
  ] as const) {
    const five = ropeOf('llama', { rope_parameters: { rope_type: type, rope_theta: 5e5, ...fields } })
    t.notDeepEqual(five, ropeOf('llama', { rope_theta: 5e5 }), type)
    for (const names of [{ rope_type: type }, { type }, { type, rope_type: type }])
      t.deepEqual(ropeOf('llama', { rope_theta: 5e5, rope_scaling: { ...names, ...fields } }), five, JSON.stringify(names))
  }
  t.deepEqual(
    ropeOf('llama', { rope_theta: 5e5, rope_scaling: null }),
    ropeOf('llama', { rope_parameters: { rope_type: 'default', rope_theta: 5e5 } }),
  )
  const both = { rope_scaling: { type: 'linear', rope_type: 'yarn', factor: 4 } }
  t.throws(() => ropeOf('llama', both), { message: /rope_scaling has a type that is not supported/ })
})

test('yarn: what attention_factor, mscale and mscale_all_dim make of the amplitude, and truncate of the frequencies', (t) => {
  const yarn = { rope_type: 'yarn', rope_theta: 1e4, factor: 8, original_max_position_embeddings: 16 }
  const of = (change: Record<string, unknown>) => ropeOf('llama', { rope_parameters: { ...yarn, ...change } })
  const magnitude = (scale: number) => 0.1 * scale * Math.log(8) + 1
  for (const [change, amplitude] of [
    [{}, magnitude(1)],
    [{ attention_factor: 0.75 }, 0.75],
    [{ attention_factor: null }, magnitude(1)],
    [{ mscale: 0.707 }, magnitude(1)],
    [{ mscale: 1, mscale_all_dim: 0.5 }, magnitude(1) / magnitude(0.5)],
    [{ mscale: 0.707, mscale_all_dim: 0.707 }, 1],
    [{ factor: null, original_max_position_embeddings: 16 }, magnitude(1)],
  ] as const)
    t.true(Math.abs(of(change).amplitude / amplitude - 1) < 1e-12, JSON.stringify(change))
  const long = { original_max_position_embeddings: 64 }
  t.deepEqual(of({ ...long, truncate: true }).frequencies, of(long).frequencies)
  t.notDeepEqual(of({ ...long, truncate: false }).frequencies, of(long).frequencies)
})

test('fields that are null, of another version, or say what is so anyway change nothing', (t) => {
  for (const [name, change] of [
    ['llama', { dtype: undefined, torch_dtype: 'bfloat16', head_dim: null, mlp_bias: null, attention_bias: false, partial_rotary_factor: 1 }],
    ['llama', { tie_word_embeddings: undefined, rope_scaling: null, sliding_window: null }],
    ['qwen2', { use_sliding_window: false, sliding_window: 16, layer_types: undefined }],
    ['deepseek_v3_dense', { rope_interleave: undefined, n_routed_experts: 8, first_k_dense_replace: 99, mlp_layer_types: undefined }],
  ] as const)
    t.deepEqual(
      lowerModel(parse(name, change), variantNamed(name.replace('_dense', ''))).shape,
      lowerModel(parse(name, {}), variantNamed(name.replace('_dense', ''))).shape,
      JSON.stringify(change),
    )
  t.is(parse('deepseek_v2_dense', { q_lora_rank: null }).dims.queryRank, undefined)
  t.false(parse('deepseek_v3_dense', { rope_interleave: false }).pairedRope)
  t.deepEqual(parse('llama', { eos_token_id: [2, 5] }).eosTokenIds, [2, 5])
})

test('head_dim and num_key_value_heads that are left out follow from the widths and the tensors', async (t) => {
  const dir = copyOf(t, fixture('llama'))
  const engineOf = (from: string) => Engine.load(from, { ranks: 1, cacheTokens: 64 })
  const [before, path] = [await engineOf(dir), join(dir, 'config.json')]
  const { head_dim: _, num_key_value_heads: __, ...rest } = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
  writeFileSync(path, JSON.stringify(rest))
  const after = await engineOf(dir)
  t.deepEqual(await after.logits([1, 2, 3]), await before.logits([1, 2, 3]))
  await Promise.all([before.close(), after.close()])
})

test("DeepSeek's yarn multiplies scores by the square of mscale_all_dim's magnitude", (t) => {
  const yarn = { rope_type: 'yarn', rope_theta: 1e4, factor: 40, mscale: 0.707, mscale_all_dim: 0.707, original_max_position_embeddings: 16 }
  for (const name of ['deepseek_v2', 'deepseek_v3']) {
    const scaleOf = (change: Record<string, unknown>) => lowerModel(parse(`${name}_dense`, change), variantNamed(name)).shape.attention.scale
    const magnitude = 0.1 * 0.707 * Math.log(40) + 1
    t.true(Math.abs(scaleOf({ rope_parameters: yarn }) / (scaleOf({}) * magnitude ** 2) - 1) < 1e-12)
  }
})

test("layers that predict further tokens are skipped by name, and inspect lists them; other layers' surplus is refused", async (t) => {
  const dir = copyOf(t, fixture('deepseek_v3_dense'))
  const tensors = await readTensors(dir)
  const extra = tensors
    .filter(({ name }) => name.startsWith('model.layers.1.'))
    .map((x) => ({ ...x, name: x.name.replace('layers.1.', 'layers.2.') }))
  writeFileSync(join(dir, 'model.safetensors'), safetensors([...tensors, ...extra]))
  t.is((await inspect(dir)).skipped.length, extra.length)
  const surplus = { ...(extra[0] as (typeof extra)[number]), name: 'model.layers.1.self_attn.extra.weight' }
  writeFileSync(join(dir, 'model.safetensors'), safetensors([...tensors, surplus]))
  await t.throwsAsync(inspect(dir), { instanceOf: CheckpointError, code: 'TENSOR_SURPLUS' })
})

test('a tensor that is missing or of another shape is named, with what config.json expects', async (t) => {
  const dir = copyOf(t, fixture('qwen3'))
  const tensors = await readTensors(dir)
  writeFileSync(join(dir, 'model.safetensors'), safetensors(tensors.filter(({ name }) => !name.endsWith('1.self_attn.q_norm.weight'))))
  await t.throwsAsync(inspect(dir), { code: 'TENSOR_MISSING', message: /model\.layers\.1\.self_attn\.q_norm\.weight.*\[24\]/ })
  editConfig(dir, { intermediate_size: 97 })
  writeFileSync(join(dir, 'model.safetensors'), safetensors(tensors))
  await t.throwsAsync(inspect(dir), { code: 'TENSOR_SHAPE', message: /mlp\.gate_proj\.weight.*\[97, 64\].*\[96, 64\]/ })
})

test('a model without tokenizer.json that is not of the authors has no tokenizer, whatever its vocabulary', async (t) => {
  const dir = temporary(t)
  const config = { ...configOf('llama'), hidden_size: 8, num_attention_heads: 2, num_key_value_heads: 1, head_dim: 4, intermediate_size: 8 }
  await synthesize(dir, { config: { ...config, num_hidden_layers: 1, vocab_size: 50304 }, dtype: 'f32' })
  const engine = await Engine.load(dir, { ranks: 1, cacheTokens: 64 })
  t.teardown(() => engine.close())
  t.false(engine.info.hasTokenizer)
})

test('a converted checkpoint of each structure gives the bits of the original, and keeps its vectors', async (t) => {
  const { convert } = await import('../../src/index.js')
  for (const name of ['qwen2', 'qwen3', 'deepseek_v3_dense']) {
    const out = temporary(t)
    rmSync(out, { recursive: true })
    await convert(fixture(name), out, { weights: 'int8' })
    const load = (dir: string, ranks: 1 | 4) => Engine.load(dir, { ranks, cacheTokens: 64, ...(dir === out ? {} : { weights: 'int8' }) })
    const [original, converted] = [await load(fixture(name), 1), await load(out, 4)]
    const [a, b] = [await original.logits([5, 6, 7, 8]), await converted.logits([5, 6, 7, 8])]
    t.is(largestDifference(a, b), 0, name)
    await Promise.all([original.close(), converted.close()])
  }
})
