import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { Engine, inspect, OptionError, synthesize, TetradError } from '../src/index.js'
import { readTensors, temporary } from './support/models.js'
import { full } from './support/tier.js'

const CONFIG = {
  n_layer: 3,
  n_head: 4,
  n_embd: 64,
  vocab_size: 300,
  block_size: 128,
  intermediate_size: 96,
  q_lora_rank: 32,
  kv_lora_rank: 48,
  qk_nope_head_dim: 16,
  qk_rope_head_dim: 8,
}

const hash = (dir: string) =>
  createHash('sha256')
    .update(readFileSync(join(dir, 'model.safetensors')))
    .digest('hex')

test('the same seed gives the same file, another seed another; what it writes is what inspect and the loader see', async (t) => {
  const hashes: string[] = []
  for (const seed of [1, 1, 2]) {
    const dir = temporary(t)
    const result = await synthesize(join(dir, 'out'), { variant: 'mlra_4', config: CONFIG, seed })
    hashes.push(hash(join(dir, 'out')))
    const inspection = await inspect(join(dir, 'out'))
    t.is(inspection.parameters, result.parameters)
    t.is(inspection.variant, 'mlra_4')
    t.deepEqual(inspection.storedTypes, ['bf16'])
  }
  t.is(hashes[1], hashes[0])
  t.not(hashes[2], hashes[0])
  // The same on every machine and engine: the file is a fixture that nobody has to store.
  t.is(hashes[0], '0757a8fdf50aa51ad0a7f351079f7c5865959ddead2908e77f43bb9c753113b8')
})

test('each type is stored as asked for, norms are 1, and matrices have the deviation that their inputs call for', async (t) => {
  for (const dtype of ['bf16', 'f16', 'f32'] as const) {
    const dir = join(temporary(t), 'out')
    await synthesize(dir, { variant: 'mla', config: CONFIG, dtype })
    t.deepEqual((await inspect(dir)).storedTypes, [dtype])
    const tensors = await readTensors(dir)
    const deviation = (name: string) => {
      const { values } = tensors.find((tensor) => tensor.name === name) ?? { values: new Float32Array() }
      return Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length)
    }
    t.is(deviation('transformer.h.1.input_layernorm.weight'), 1)
    t.true(Math.abs(deviation('transformer.h.1.mlp.c_fc1.weight') * Math.sqrt(64) - 1) < 0.05)
    t.true(Math.abs(deviation('transformer.h.1.mlp.c_proj.weight') * Math.sqrt(96 * 6) - 1) < 0.05)
  }
})

full('logits stay finite and varied at 48 layers', async (t) => {
  const dir = join(temporary(t), 'out')
  await synthesize(dir, { variant: 'mlra_2_gated', config: { ...CONFIG, n_layer: 48 } })
  const engine = await Engine.load(dir, { ranks: 2 })
  const logits = await engine.logits(Array.from({ length: 40 }, (_, i) => (i * 37) % 300))
  const deviation = Math.sqrt(logits.reduce((sum, v) => sum + v * v, 0) / logits.length)
  t.true(deviation > 0.3 && deviation < 3, String(deviation))
  const best = Array.from({ length: 40 }, (_, i) => {
    const row = logits.subarray(i * 300, (i + 1) * 300)
    return row.indexOf(Math.max(...row))
  })
  t.true(new Set(best).size > 10)
  await engine.close()
})

test('a directory that holds a model is not overwritten; contradictory options are refused', async (t) => {
  const dir = temporary(t)
  writeFileSync(join(dir, 'config.json'), '{}')
  const error = await t.throwsAsync(synthesize(dir, { variant: 'mlra_4', config: CONFIG }), { instanceOf: TetradError })
  t.is(error.code, 'OUTPUT_EXISTS')
  t.deepEqual(readdirSync(dir), ['config.json'])
  const out = join(temporary(t), 'out')
  for (const options of [
    {},
    { variant: 'mlra_4' },
    { variant: 'mlra_4', preset: 'mid', config: CONFIG },
    { variant: 'mlra_4', preset: 'huge' },
    { preset: 'mid' },
    { config: CONFIG },
    { variant: 'mlra_9', config: CONFIG },
    { variant: 'mlra_4', config: CONFIG, dtype: 'int8' },
    { variant: 'mlra_4', config: CONFIG, seed: -1 },
    { variant: 'mlra_4', config: CONFIG, sed: 1 },
  ]) {
    await t.throwsAsync(synthesize(out, options as object), { instanceOf: OptionError }, JSON.stringify(options))
  }
  t.false(existsSync(out))
  const failed = await t.throwsAsync(synthesize(join(dir, 'config.json', 'out'), { variant: 'mlra_4', config: CONFIG }), { instanceOf: TetradError })
  t.is(failed.code, 'OUTPUT_FAILED')
})

test('stopped in the middle it leaves no weights and no configuration', async (t) => {
  const dir = temporary(t)
  const controller = new AbortController()
  const error = await t.throwsAsync(
    synthesize(dir, { variant: 'mlra_4', preset: 'mid', signal: controller.signal, onProgress: () => controller.abort() }),
    { instanceOf: TetradError },
  )
  t.is(error.code, 'SYNTH_ABORTED')
  t.deepEqual(readdirSync(dir), [])
})

test('a no_scale model is recognised by the variant field of its configuration', async (t) => {
  const dir = join(temporary(t), 'out')
  await synthesize(dir, { variant: 'mla_no_scale', config: CONFIG })
  t.is((await inspect(dir)).variant, 'mla_no_scale')
  t.is((await inspect(dir, { variant: 'mla' })).variant, 'mla')
})
