import { closeSync, cpSync, existsSync, openSync, readdirSync, readFileSync, readSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { CheckpointError, convert, Engine, type ErrorCode, inspect, OptionError, TetradError } from '../../src/index.js'
import { FIXTURES, TINY } from '../support/fixtures.js'
import { editConfig, temporary } from '../support/models.js'

const bits = async (dir: string, options: object) => {
  const engine = await Engine.load(dir, options)
  const logits = await engine.logits([1, 5, 9, 30, 77, 12, 3])
  const { tokens } = await engine.generate([5, 6], { maxTokens: 5, ignoreEos: true })
  await engine.close()
  return { logits, tokens }
}

for (const name of ['mlra_4', 'mla_gated', 'gla_2', 'gqa', 'mqa', 'gta', 'mfa', 'tpa', 'mlra_4_bf16_sharded', 'mlra_4_f16_safetensors']) {
  test(`${name} converted to int4, int8, bf16 and f32 gives the bits of the original in that format, at 1 and 4 ranks`, async (t) => {
    const dir = `${FIXTURES}golden/${name}`
    for (const weights of ['int4', 'int8', 'bf16', 'f32'] as const) {
      const out = join(temporary(t), 'out')
      const result = await convert(dir, out, { weights })
      const inspection = await inspect(out)
      t.is(inspection.format, 'packed')
      t.is(inspection.weights, weights)
      t.is(inspection.variant, result.variant)
      t.is(inspection.parameters, (await inspect(dir)).parameters)
      for (const ranks of [1, 4] as const) t.deepEqual(await bits(out, { ranks }), await bits(dir, { ranks, weights }), `${weights} at ${ranks}`)
    }
  })
}

test('the tokenizer is converted too, and the text is that of the original', async (t) => {
  const out = join(temporary(t), 'out')
  await convert(TINY, out, { weights: 'bf16' })
  const engine = await Engine.load(out)
  t.is((await engine.generate('Once upon a time', { maxTokens: 8 })).text, ' there was a man who had a wife')
  await engine.close()
})

test('the chat template and its settings are converted too', async (t) => {
  const from = join(temporary(t), 'from')
  const out = join(temporary(t), 'out')
  cpSync(`${FIXTURES}golden/mlra_4`, from, { recursive: true })
  const beside = { 'chat_template.jinja': '{{ messages[0].content }}', 'tokenizer_config.json': '{"bos_token":"<s>"}' }
  for (const [name, text] of Object.entries(beside)) writeFileSync(join(from, name), text)
  await convert(from, out, { weights: 'bf16' })
  for (const [name, text] of Object.entries(beside)) t.is(readFileSync(join(out, name), 'utf8'), text)
})

test('existing files are not overwritten, and wrong options are named', async (t) => {
  const dir = `${FIXTURES}golden/mlra_4`
  const out = temporary(t)
  await convert(dir, out, { weights: 'int8' })
  const again = await t.throwsAsync(convert(dir, out, { weights: 'int8' }), { instanceOf: TetradError })
  t.is(again.code, 'OUTPUT_EXISTS')
  await t.throwsAsync(convert(out, join(temporary(t), 'x'), { weights: 'int8' }), { instanceOf: OptionError, message: /converted already/ })
  await t.throwsAsync(convert(dir, join(temporary(t), 'x'), { weights: 'int2' } as never), { instanceOf: OptionError })
  await t.throwsAsync(convert(dir, join(temporary(t), 'x'), {} as never), { instanceOf: OptionError })
  await t.throwsAsync(Engine.load(out, { weights: 'bf16' }), { instanceOf: OptionError, message: /one format/ })
  await t.throwsAsync(Engine.load(out, { variant: 'mla' }), { instanceOf: OptionError })
})

test('stopped in the middle it leaves no weights and no configuration', async (t) => {
  const out = temporary(t)
  const controller = new AbortController()
  const error = await t.throwsAsync(convert(TINY, out, { weights: 'int8', signal: controller.signal, onProgress: () => controller.abort() }), {
    instanceOf: TetradError,
  })
  t.is(error.code, 'LOAD_ABORTED')
  t.deepEqual(readdirSync(out), [])
})

test('a spoiled converted checkpoint is refused by what is wrong with it', async (t) => {
  const fresh = async () => {
    const out = temporary(t)
    await convert(`${FIXTURES}golden/mlra_4`, out, { weights: 'int8' })
    return out
  }
  const refused = async (dir: string, code: ErrorCode) => {
    const error = await t.throwsAsync(Engine.load(dir), { instanceOf: CheckpointError })
    t.is(error.code, code)
  }
  const version = await fresh()
  editConfig(version, { packed: { version: 1, weights: 'int8', embedding: 'f32' } })
  await refused(version, 'CONFIG_INVALID')
  const format = await fresh()
  editConfig(format, { packed: { version: 3, weights: 'bf16', embedding: 'f32' } })
  await refused(format, 'TENSOR_SHAPE')
  const plain = await fresh()
  editConfig(plain, { packed: undefined })
  await refused(plain, 'TENSOR_DTYPE')
  const cut = await fresh()
  truncateSync(join(cut, 'model.safetensors'), 5000)
  t.true(existsSync(join(cut, 'model.safetensors')))
  await refused(cut, 'CHECKPOINT_INVALID')

  /** Offset of a tensor's data, and the header's entry. */
  const find = (dir: string, name: string) => {
    const file = readFileSync(join(dir, 'model.safetensors'))
    const length = Number(file.readBigUInt64LE())
    const header = JSON.parse(file.subarray(8, 8 + length).toString()) as Record<string, { data_offsets: number[] }>
    return { offset: 8 + length + (header[name]?.data_offsets[0] as number), header, length, file }
  }
  const scale = await fresh()
  const { offset } = find(scale, 'packed.shard.2.layer.1.gateUp')
  const fd = openSync(join(scale, 'model.safetensors'), 'r+')
  const bytes = Buffer.alloc(4)
  readSync(fd, bytes, 0, 4, offset + 512)
  t.true(Number.isFinite(bytes.readFloatLE()))
  bytes.writeFloatLE(Number.NaN)
  writeSync(fd, bytes, 0, 4, offset + 512)
  closeSync(fd)
  await refused(scale, 'TENSOR_NON_FINITE')

  const renamed = await fresh()
  const { file } = find(renamed, 'packed.shard.0.head')
  writeFileSync(
    join(renamed, 'model.safetensors'),
    Buffer.from(file.toString('latin1').replace('packed.shard.0.head', 'packed.shard.0.herd'), 'latin1'),
  )
  await refused(renamed, 'TENSOR_MISSING')
})
