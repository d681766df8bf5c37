// Indices, heads and end-of-text ids: what the files of a checkpoint say is honoured, or refused by name.
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { CheckpointError, convert, Engine } from '../../src/index.js'
import { parseJson } from '../../src/json.js'
import { readEndIds } from '../../src/model/end-ids.js'
import { synthesize } from '../../src/tools/synth/synthesize.js'
import { largestDifference } from '../support/fixtures.js'
import { copyOf, editConfig, type PlainTensor, readTensors, safetensors, temporary } from '../support/models.js'
import { type PlainConfig, plainLogits } from '../support/plain-model.js'

const CONFIG = { n_layer: 1, n_head: 4, n_embd: 16, vocab_size: 40, block_size: 64, intermediate_size: 24, head_dim: 8, group_size: 2 }
const HEAD = 'lm_head.weight'
const EMBEDDING = 'transformer.wte.weight'
const IDS = [1, 2, 3, 4, 5, 6]

type Teardown = { teardown(f: () => void): void }

async function model(t: Teardown): Promise<{ dir: string; tensors: readonly PlainTensor[] }> {
  const dir = temporary(t)
  await synthesize(dir, { variant: 'gqa', config: CONFIG, dtype: 'f32', seed: 4 })
  return { dir, tensors: await readTensors(dir) }
}

async function logits(dir: string, options: Parameters<typeof Engine.load>[1] = {}): Promise<Float32Array> {
  const engine = await Engine.load(dir, { ranks: 1, cacheTokens: 64, ...options })
  const result = await engine.logits(IDS)
  await engine.close()
  return result
}

const write = (dir: string, tensors: readonly PlainTensor[]) => writeFileSync(join(dir, 'model.safetensors'), safetensors(tensors))
const codeOf = async (run: Promise<unknown>) =>
  run.then(
    () => undefined,
    (error) => (error as CheckpointError).code,
  )

test('an equal embedding beside the head is one matrix, whatever config.json says', async (t) => {
  const { dir, tensors } = await model(t)
  const expected = await logits(dir)
  const head = tensors.find(({ name }) => name === HEAD) as PlainTensor
  write(dir, [...tensors, { ...head, name: EMBEDDING }])
  for (const stated of [undefined, true, false]) {
    editConfig(dir, { tie_word_embeddings: stated })
    t.deepEqual(await logits(dir), expected)
  }
})

test('two different tensors: two matrices with tie_word_embeddings false, else refused', async (t) => {
  const { dir, tensors } = await model(t)
  const head = tensors.find(({ name }) => name === HEAD) as PlainTensor
  const embedding = { ...head, name: EMBEDDING, values: head.values.map((v) => v * 2 + 0.01) }
  const untied = [...tensors, embedding]
  write(dir, untied)
  for (const stated of [undefined, true]) {
    editConfig(dir, { tie_word_embeddings: stated })
    await t.throwsAsync(Engine.load(dir), { instanceOf: CheckpointError, message: /lm_head\.weight and transformer\.wte\.weight differ/ })
  }
  editConfig(dir, { tie_word_embeddings: false })
  const expected = Float32Array.from(plainLogits('gqa', CONFIG as unknown as PlainConfig, untied, IDS).flat())
  const first = await logits(dir)
  t.true(largestDifference(first, expected) < 1e-3)
  for (const ranks of [2, 4] as const) t.deepEqual(await logits(dir, { ranks }), first)
  t.true(largestDifference(await logits(dir, { backend: 'reference', ranks: 2 }), expected) < 1e-5)
  for (const weights of ['f32', 'bf16', 'int8', 'int4'] as const) {
    const out = join(temporary(t), 'converted')
    await convert(dir, out, { weights })
    t.deepEqual(await logits(out, { ranks: 2 }), await logits(dir, { weights }), weights)
  }
})

test('tie_word_embeddings false with one tensor is refused, and says which is missing', async (t) => {
  const { dir } = await model(t)
  editConfig(dir, { tie_word_embeddings: false })
  // synthesize writes one matrix for a configuration that does not say otherwise.
  const error = await t.throwsAsync(Engine.load(dir), { instanceOf: CheckpointError, message: /tie_word_embeddings.*transformer\.wte\.weight/ })
  t.is((error as CheckpointError).code, 'TENSOR_MISSING')
})

test('the index decides between two shards that hold the same tensor', async (t) => {
  const { dir, tensors } = await model(t)
  const expected = await logits(dir)
  const wrong = tensors.map((one) => ({ ...one, values: one.values.map((v) => v + 1) }))
  rmSync(join(dir, 'model.safetensors'))
  const [first, second] = [tensors.slice(0, 3), tensors.slice(3)]
  writeFileSync(join(dir, 'a.safetensors'), safetensors([...first, ...wrong.slice(3, 5)]))
  writeFileSync(join(dir, 'b.safetensors'), safetensors([...second, ...wrong.slice(0, 2)]))
  const fileOf = Object.fromEntries(tensors.map(({ name }, i) => [name, i < 3 ? 'a.safetensors' : 'b.safetensors']))
  const index = join(dir, 'model.safetensors.index.json')
  writeFileSync(index, `\ufeff${JSON.stringify({ weight_map: fileOf })}`)
  t.deepEqual(await logits(dir), expected)

  const { [tensors[0]?.name ?? '']: _, ...without } = fileOf
  writeFileSync(index, JSON.stringify({ weight_map: without }))
  await t.throwsAsync(Engine.load(dir), { message: /is in a\.safetensors too, and the index names neither/ })
  writeFileSync(index, JSON.stringify({ weight_map: { ...fileOf, 'layernorm.weight': 'a.safetensors' } }))
  await t.throwsAsync(Engine.load(dir), { message: /layernorm\.weight is in a\.safetensors, which does not hold it/ })
})

test('safetensors buffers of other types are skipped, other tensors of these types refused with Python that helps', async (t) => {
  const { dir, tensors } = await model(t)
  const expected = await logits(dir)
  const extra = (name: string, dtype: string, shape: number[]) => (header: Record<string, unknown>) => {
    const at = tensors.reduce((sum, { values }) => sum + values.byteLength, 0)
    header[name] = { dtype, shape, data_offsets: [at, at + 4] }
  }
  const data = { name: 'x', shape: [1], values: Float32Array.of(0) }
  const put = (name: string, dtype: string, shape: number[]) => {
    const file = safetensors([...tensors, data], (header) => {
      delete header.x
      extra(name, dtype, shape)(header)
    })
    writeFileSync(join(dir, 'model.safetensors'), file)
  }
  for (const [name, dtype, shape] of [
    ['transformer.h.0.attn.bias', 'BOOL', [1, 1, 2, 2]],
    ['model.rotary_emb.inv_freq', 'F32', [1]],
    ['position_ids', 'I32', [1]],
    ['num_batches_tracked', 'I32', []],
  ] as const) {
    put(name, dtype, [...shape])
    t.deepEqual(await logits(dir), expected, name)
  }
  put('transformer.h.0.attn.x.weight', 'F8_E4M3', [4])
  const error = await t.throwsAsync(Engine.load(dir), { message: /F8_E4M3.*to\(torch\.bfloat16\)/ })
  t.is((error as CheckpointError).code, 'TENSOR_DTYPE')
})

test('JSON: a byte order mark is skipped, NaN and Infinity are numbers, words in strings stay', (t) => {
  t.deepEqual(parseJson('\ufeff{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN, \\"Infinity"}'), {
    a: Number.NaN,
    b: [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY],
    c: 'NaN, "Infinity',
  })
  for (const bad of ['{"a": NaN', 'NaNNaN', '{"a": xNaN}', '{NaN: 1}']) t.throws(() => parseJson(bad), { instanceOf: SyntaxError })
})

test('NaN in a field that is used is refused, in one that is not it does no harm', async (t) => {
  const { dir } = await model(t)
  const path = join(dir, 'config.json')
  const text = readFileSync(path, 'utf8')
  writeFileSync(path, text.replace('{', '{"x": NaN, "y": -Infinity,'))
  t.is((await logits(dir)).length, IDS.length * 40)
  for (const field of ['rms_norm_eps', 'rope_theta', 'eos_token_id']) {
    writeFileSync(path, text.replace('{', `{"${field}": NaN,`))
    await t.throwsAsync(Engine.load(dir), { instanceOf: CheckpointError, message: new RegExp(field) })
  }
})

test('ids that end a text come from every file that names one', async (t) => {
  const dir = temporary(t)
  const put = (file: string, value: unknown) => writeFileSync(join(dir, file), JSON.stringify(value))
  const vocabulary = { endOfText: 0, idOf: (token: string) => ['<|endoftext|>', 'a', '</s>'].indexOf(token) + 1 || undefined }
  const read = (eosTokenIds?: number[]) => readEndIds(dir, { eosTokenIds, vocab: 100 }, vocabulary)
  t.deepEqual(await read(), [0])
  t.deepEqual(await read([7]), [7])
  put('generation_config.json', { eos_token_id: [5, 7] })
  t.deepEqual(await read([7]), [7, 5])
  put('tokenizer_config.json', { eos_token: '</s>' })
  t.deepEqual(await read([7]), [7, 5, 3])
  put('tokenizer_config.json', { eos_token: { content: 'a', special: true } })
  t.deepEqual(await read(), [5, 7, 2])
  t.deepEqual(await readEndIds(dir, { eosTokenIds: undefined, vocab: 100 }, undefined), [5, 7])

  put('tokenizer_config.json', { eos_token: '<nowhere>' })
  await t.throwsAsync(read(), { message: /tokenizer_config\.json: eos_token is not in the vocabulary/ })
  put('tokenizer_config.json', {})
  put('special_tokens_map.json', { eos_token: '</s>' })
  t.deepEqual(await read(), [5, 7, 3])
  put('generation_config.json', { eos_token_id: 100 })
  await t.throwsAsync(read(), { message: /generation_config\.json: eos_token_id is out of range/ })
  writeFileSync(join(dir, 'generation_config.json'), '{')
  t.is(await codeOf(read()), 'CONFIG_INVALID')
})

test('more than 64 end ids are refused, 64 with 32 stopTokenIds are all held back below minTokens', async (t) => {
  const { dir } = await model(t)
  const ids = Array.from({ length: 65 }, (_, i) => i % 40)
  editConfig(dir, { eos_token_id: ids })
  // 40 different ids: equal ones count once.
  await (await Engine.load(dir, { ranks: 1, cacheTokens: 64 })).close()
  const large = temporary(t)
  const wide = { ...CONFIG, vocab_size: 140 }
  await synthesize(large, { variant: 'gqa', config: wide, dtype: 'f32' })
  editConfig(large, { eos_token_id: Array.from({ length: 65 }, (_, i) => i) })
  await t.throwsAsync(Engine.load(large), { instanceOf: CheckpointError, message: /eos_token_id names too many ids.*at most 64.*65/ })
  editConfig(large, { eos_token_id: Array.from({ length: 64 }, (_, i) => i) })
  const engine = await Engine.load(large, { ranks: 1, cacheTokens: 64 })
  const stopTokenIds = Array.from({ length: 32 }, (_, i) => 64 + i)
  const { tokens } = await engine.generate(IDS, { minTokens: 20, maxTokens: 20, temperature: 2, seed: 1, stopTokenIds })
  await engine.close()
  t.is(tokens.length, 20)
  t.true(tokens.slice(0, 19).every((id) => id >= 96))
})

test('convert keeps generation_config.json and tokenizer_config.json', async (t) => {
  const { dir } = await model(t)
  const copy = copyOf(t, dir)
  const files = { 'generation_config.json': '{"eos_token_id": 5}', 'tokenizer_config.json': '{"eos_token": null}' }
  for (const [file, content] of Object.entries(files)) writeFileSync(join(copy, file), content)
  const out = join(temporary(t), 'converted')
  await convert(copy, out, { weights: 'bf16' })
  for (const [file, content] of Object.entries(files)) t.is(readFileSync(join(out, file), 'utf8'), content)
})
