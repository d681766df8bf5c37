// Files of adapters: what is honoured, and what is refused by name.
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Engine, type ErrorCode, TetradError } from '../../src/index.js'
import { checkAdapterConfig } from '../../src/model/adapters/adapter-config.js'
import { type AdapterSpec, adapterTensors, mergedTensors, writeAdapter, writeModel } from '../support/adapters.js'
import { FIXTURES, largestDifference } from '../support/fixtures.js'
import { type PlainTensor, readTensors, safetensors, temporary } from '../support/models.js'

const BASE = `${FIXTURES}golden-hf/llama`
const IDS = [3, 1, 4, 1, 5, 92, 6]

async function engineOf(t: ExecutionContext): Promise<Engine> {
  const engine = await Engine.load(BASE, { backend: 'wasm', ranks: 1, maxAdapterRank: 16 })
  t.teardown(() => engine.close())
  return engine
}

async function refused(t: ExecutionContext, engine: Engine, dir: string, code: ErrorCode, ...words: string[]): Promise<void> {
  const error = await t.throwsAsync(engine.loadAdapter('refused', dir), { instanceOf: TetradError, code }, words.join(' '))
  for (const word of words) t.true(error?.message.includes(word), `${word} in: ${error?.message}`)
  t.false(engine.adapters.some(({ name }) => name === 'refused'))
}

const writeConfig = (dir: string, change: (config: Record<string, unknown>) => unknown) => {
  const path = join(dir, 'adapter_config.json')
  writeFileSync(path, JSON.stringify(change(JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>)))
}

test('alpha, rslora, patterns of ranks and alphas, chosen layers and 16-bit types are honoured', async (t) => {
  const engine = await engineOf(t)
  const dir = temporary(t)
  const tensors = await readTensors(BASE)
  const rankOf = (module: string) => (module.endsWith('layers.1.self_attn.q_proj') ? 2 : module.endsWith('o_proj') ? 7 : 4)
  const specs: Record<string, AdapterSpec> = {
    alpha: { seed: 1, rank: 4, alpha: 3 },
    rslora: { seed: 2, rank: 4, alpha: 3, config: { use_rslora: true }, scaleOf: (_, rank) => 3 / Math.sqrt(rank) },
    patterns: {
      ...{ seed: 3, rank: 4, alpha: 3, rankOf },
      config: { rank_pattern: { '^model.layers.1.self_attn.q_proj': 2, o_proj: 7 }, alpha_pattern: { 'mlp.up_proj': 20 } },
      scaleOf: (module, rank) => (module.endsWith('mlp.up_proj') ? 20 : 3) / rank,
    },
  }
  for (const [name, spec] of Object.entries(specs)) {
    writeAdapter(join(dir, name), tensors, spec)
    writeModel(join(dir, `${name}-merged`), BASE, mergedTensors(tensors, spec))
    t.like(await engine.loadAdapter(name, join(dir, name)), { name, rank: name === 'patterns' ? 7 : 4 })
    const merged = await Engine.load(join(dir, `${name}-merged`), { backend: 'wasm', ranks: 1 })
    const difference = largestDifference(await engine.logits(IDS, { lora: name }), await merged.logits(IDS))
    await merged.close()
    t.true(difference < 1e-4, `${name} differs by ${difference}`)
  }
  // The same values in bfloat16, and in a layer alone.
  const first = { seed: 9, rank: 4 }
  writeAdapter(join(dir, 'one'), tensors, first)
  const rounded = adapterTensors(tensors, first).filter(({ name }) => name.includes('layers.1.'))
  for (const { values } of rounded) {
    const halves = new Uint16Array(values.buffer)
    for (let i = 0; i < halves.length; i += 2) halves[i] = 0
  }
  writeConfig(join(dir, 'one'), (config) => ({ ...config, layers_to_transform: [1], target_modules: '.*_proj' }))
  writeFileSync(join(dir, 'one', 'adapter_model.safetensors'), safetensors(rounded))
  await engine.loadAdapter('f32', join(dir, 'one'))
  writeFileSync(join(dir, 'one', 'adapter_model.safetensors'), narrowed(rounded))
  await engine.loadAdapter('bf16', join(dir, 'one'))
  const logits = await engine.logits(IDS, { lora: 'f32' })
  t.deepEqual(await engine.logits(IDS, { lora: 'bf16' }), logits)
  t.notDeepEqual(await engine.logits(IDS), logits)
})

/** As bfloat16: the upper halves. */
function narrowed(tensors: readonly PlainTensor[]): Buffer {
  const halves = tensors.map(({ name, shape, values }) => ({ name, shape, bits: new Uint16Array(values.buffer).filter((_, i) => i % 2 === 1) }))
  let at = 0
  const header = Object.fromEntries(
    halves.map(({ name, shape, bits }) => {
      const start = at
      at += bits.byteLength
      return [name, { dtype: 'BF16', shape, data_offsets: [start, at] }]
    }),
  )
  const json = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  return Buffer.concat([length, json, ...halves.map(({ bits }) => Buffer.from(bits.buffer))])
}

test('what would change the result and is not done is refused by the name of its field', async (t) => {
  const engine = await engineOf(t)
  const dir = temporary(t)
  const tensors = await readTensors(BASE)
  const fields: Record<string, unknown> = {
    ...{ use_dora: true, bias: 'lora_only', modules_to_save: ['lm_head'], fan_in_fan_out: true, lora_bias: true, use_qalora: true },
    ...{ trainable_token_indices: [1, 2], peft_type: 'IA3', init_lora_weights: 'pissa_niter_4', layer_replication: [[0, 1]] },
    ...{ megatron_config: { tp: 2 }, alora_invocation_tokens: [1], something_new: 3 },
  }
  for (const [name, value] of Object.entries(fields)) {
    writeAdapter(join(dir, name), tensors, { seed: 1, rank: 2, modules: ['q_proj'], config: { [name]: value } })
    await refused(t, engine, join(dir, name), 'ADAPTER_UNSUPPORTED', name)
  }
  writeAdapter(join(dir, 'regex'), tensors, { seed: 1, rank: 2, config: { rank_pattern: { '.*q_proj|(a+)+b': 3 } } })
  await refused(t, engine, join(dir, 'regex'), 'ADAPTER_UNSUPPORTED', 'rank_pattern', 'regular expression')
})

test('fields that are not valid are named', (t) => {
  const valid = { peft_type: 'LORA', r: 4, lora_alpha: 8, target_modules: ['q_proj'] }
  t.is(checkAdapterConfig(valid, 'x').scaleOf('a.q_proj'), 2)
  for (const [name, value] of Object.entries({
    r: 0,
    lora_alpha: 'x',
    use_rslora: 1,
    rank_pattern: [],
    layers_to_transform: 'all',
    target_modules: 3,
  })) {
    const error = t.throws(() => checkAdapterConfig({ ...valid, [name]: value }, 'x'), { instanceOf: TetradError, code: 'ADAPTER_INVALID' })
    t.true(error?.message.includes(name), error?.message)
  }
  t.throws(() => checkAdapterConfig([], 'x'), { code: 'ADAPTER_INVALID' })
  t.throws(() => checkAdapterConfig({ ...valid, rank_pattern: { q_proj: -1 } }, 'x'), { code: 'ADAPTER_INVALID' })
})

test('files that are missing, damaged, of another model or too large are refused, and say what is wrong', async (t) => {
  const engine = await engineOf(t)
  const dir = join(temporary(t), 'adapter')
  const tensors = await readTensors(BASE)
  const spec = { seed: 5, rank: 3 }
  const weights = join(dir, 'adapter_model.safetensors')
  const good = () => {
    rmSync(dir, { recursive: true, force: true })
    writeAdapter(dir, tensors, spec)
    return adapterTensors(tensors, spec)
  }
  await refused(t, engine, dir, 'ADAPTER_NOT_FOUND', 'adapter_config.json')
  good()
  rmSync(weights)
  await refused(t, engine, dir, 'ADAPTER_NOT_FOUND', 'adapter_model.safetensors')
  writeFileSync(join(dir, 'adapter_model.bin'), 'cos\nsystem\n(S"touch /tmp/owned"\ntR.')
  await refused(t, engine, dir, 'ADAPTER_UNSUPPORTED', 'adapter_model.bin', 'save_file')
  good()
  writeFileSync(join(dir, 'adapter_config.json'), '{"peft_type": "LORA",')
  await refused(t, engine, dir, 'ADAPTER_INVALID', 'not JSON')
  good()
  writeFileSync(weights, readFileSync(weights).subarray(0, 5000))
  await refused(t, engine, dir, 'CHECKPOINT_INVALID', 'adapter_model.safetensors')
  const key = 'base_model.model.model.layers.1.mlp.down_proj.lora_B.weight'
  const changed = (change: (tensor: PlainTensor) => PlainTensor | PlainTensor[]) =>
    writeFileSync(weights, safetensors(good().flatMap((tensor) => (tensor.name === key ? change(tensor) : [tensor]))))
  changed((tensor) => ({ ...tensor, shape: [32, 6] }))
  await refused(t, engine, dir, 'TENSOR_SHAPE', key, '[64, 3]', '[32, 6]')
  changed(() => [])
  await refused(t, engine, dir, 'TENSOR_MISSING', key, '[64, 3]')
  changed((tensor) => ({ ...tensor, values: tensor.values.map((v, i) => (i === 7 ? Number.NaN : v)) }))
  await refused(t, engine, dir, 'TENSOR_NON_FINITE', key, 'element 7')
  for (const other of ['lm_head.lora_A.weight', 'model.embed_tokens.lora_embedding_A', 'model.layers.7.mlp.up_proj.lora_A.weight', 'x']) {
    changed((tensor) => [tensor, { ...tensor, name: `base_model.model.${other}` }])
    await refused(t, engine, dir, 'ADAPTER_UNSUPPORTED', other)
  }
  changed((tensor) => tensor)
  writeConfig(dir, (config) => ({ ...config, r: 4 }))
  await refused(t, engine, dir, 'TENSOR_SHAPE', 'lora_A.weight', '[4, 64]', '[3, 64]')
  writeConfig(dir, (config) => ({ ...config, r: 3, target_modules: ['q_proj'] }))
  await refused(t, engine, dir, 'ADAPTER_UNSUPPORTED', 'target_modules')
  good()
  writeAdapter(dir, tensors, { seed: 1, rank: 17 })
  await refused(t, engine, dir, 'ADAPTER_NO_ROOM', 'maxAdapterRank: 17')
  good()
  renameSync(join(dir, 'adapter_config.json'), join(dir, 'away'))
  mkdirSync(join(dir, 'adapter_config.json'))
  await refused(t, engine, dir, 'MODEL_NOT_FOUND', 'adapter_config.json')
  // The engine is as it was.
  good()
  await engine.loadAdapter('good', dir)
  t.is((await engine.generate(IDS, { maxTokens: 2, lora: 'good' })).tokens.length, 2)
})

test('a parameter that target_parameters does not name, and the options, are checked', async (t) => {
  const dir = temporary(t)
  const base = `${FIXTURES}golden/mlra_4`
  writeAdapter(join(dir, 'a'), await readTensors(base), { seed: 1, rank: 2 })
  const tensor = { name: 'base_model.model.transformer.h.0.attn.lora_A.weight', shape: [8, 12], values: new Float32Array(96) }
  writeFileSync(join(dir, 'a', 'adapter_model.safetensors'), safetensors([tensor]))
  const load = (options: Parameters<typeof Engine.load>[1]) => Engine.load(base, { backend: 'wasm', ranks: 1, ...options })
  await t.throwsAsync(load({ adapters: { a: join(dir, 'a') } }), { code: 'ADAPTER_UNSUPPORTED', message: /target_parameters/ })
  await t.throwsAsync(load({ adapters: { 'a b': 'x' } }), { code: 'OPTION_INVALID', message: /adapters/ })
  await t.throwsAsync(load({ adapters: { a: 3 } as never }), { code: 'OPTION_INVALID', message: /the directory of a/ })
  await t.throwsAsync(load({ adapters: { a: 'x', b: 'y' }, maxAdapters: 1 }), { code: 'ADAPTER_NO_ROOM', message: /maxAdapters: 2/ })
  await t.throwsAsync(load({ adapters: { a: join(dir, 'nowhere') } }), { code: 'ADAPTER_NOT_FOUND' })
})
