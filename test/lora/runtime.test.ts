// Adapters that come and go while requests run.
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Engine, type EngineOptions } from '../../src/index.js'
import { writeAdapter } from '../support/adapters.js'
import { FIXTURES } from '../support/fixtures.js'
import { readTensors, temporary } from '../support/models.js'

const BASE = `${FIXTURES}golden/mlra_4`
const IDS = [3, 1, 4, 1, 5, 92, 6]
const LONG = { maxTokens: 100, ignoreEos: true }

async function prepare(t: ExecutionContext, options: EngineOptions = {}) {
  const dir = temporary(t)
  const tensors = await readTensors(BASE)
  const [a, b] = [join(dir, 'a'), join(dir, 'b')] as const
  writeAdapter(a, tensors, { seed: 1, rank: 3 })
  writeAdapter(b, tensors, { seed: 2, rank: 8 })
  const engine = await Engine.load(BASE, { backend: 'wasm', ranks: 2, ...options })
  t.teardown(() => engine.close())
  return { engine, a, b }
}

test('adapters are loaded and unloaded while requests run; one in use stays until its last request has ended', async (t) => {
  const { engine, a, b } = await prepare(t)
  const alone = (await engine.generate(IDS, LONG)).tokens
  await engine.loadAdapter('a', a)
  const ofA = (await engine.generate(IDS, { ...LONG, lora: 'a' })).tokens
  t.notDeepEqual(ofA, alone)

  const base = engine.generate(IDS, LONG)
  const running = engine.generate(IDS, { ...LONG, lora: 'a' })
  const loaded = engine.loadAdapter('b', b)
  let ended = false
  void running.then(() => {
    ended = true
  })
  const unloaded = engine.unloadAdapter('a').then(() => ended)
  t.deepEqual(
    engine.adapters.map(({ name }) => name).filter((name) => name !== 'b'),
    [],
  )
  await t.throwsAsync(engine.generate(IDS, { lora: 'a' }), { code: 'ADAPTER_NOT_FOUND', message: /"a"/ })
  await t.throwsAsync(engine.unloadAdapter('a'), { code: 'ADAPTER_NOT_FOUND' })
  t.deepEqual((await running).tokens, ofA)
  t.true(await unloaded, 'its request ended first')
  t.deepEqual((await base).tokens, alone)
  t.like(await loaded, { name: 'b', dir: b, rank: 8 })
  const ofB = (await engine.generate(IDS, { ...LONG, lora: 'b' })).tokens
  // The place and the memory that a had are taken by another, with the same bits as ever.
  await engine.loadAdapter('again', a)
  t.deepEqual((await engine.generate(IDS, { ...LONG, lora: 'again' })).tokens, ofA)
  t.deepEqual((await engine.generate(IDS, { ...LONG, lora: 'b' })).tokens, ofB)
})

test('the number and the memory of adapters are bounded; both are free again after unloading', async (t) => {
  const { engine, a, b } = await prepare(t, { maxAdapters: 2, adapterBytes: 400_000 })
  const { bytes } = await engine.loadAdapter('a', a)
  t.true(bytes > 10_000 && bytes < 200_000, String(bytes))
  await t.throwsAsync(engine.loadAdapter('a', b), { code: 'ADAPTER_EXISTS' })
  await engine.loadAdapter('b', b)
  await t.throwsAsync(engine.loadAdapter('c', a), { code: 'ADAPTER_NO_ROOM', message: /maxAdapters: 3/ })
  await engine.unloadAdapter('b')
  await engine.loadAdapter('c', a)
  await engine.unloadAdapter('c')
  const { engine: small } = await prepare(t, { adapterBytes: 20_000 })
  await t.throwsAsync(small.loadAdapter('b', b), { code: 'ADAPTER_NO_ROOM', message: /adapterBytes/ })
  const { engine: none } = await prepare(t, { maxAdapters: 0 })
  await t.throwsAsync(none.loadAdapter('b', b), { code: 'ADAPTER_NO_ROOM', message: /maxAdapters: 1/ })
})

test('calls that score have adapters too, and an aborted or closed engine lets them go', async (t) => {
  const { engine, a } = await prepare(t)
  await engine.loadAdapter('a', a)
  const plain = await engine.loglikelihood(IDS, [9, 8])
  const adapted = await engine.loglikelihood(IDS, [9, 8], { lora: 'a' })
  t.not(plain.sum, adapted.sum)
  const all = await engine.logits([...IDS, 9, 8], { lora: 'a' })
  const rows: Float32Array[] = []
  await engine.forEachLogits([...IDS, 9, 8], (_, row) => rows.push(row.slice()), { lora: 'a' })
  t.deepEqual(
    rows.flatMap((row) => [...row]),
    [...all],
  )
  await t.throwsAsync(engine.logits(IDS, { lora: 'none' }), { code: 'ADAPTER_NOT_FOUND' })
  await t.throwsAsync(engine.generate(IDS, { lora: 3 as never }), { code: 'OPTION_INVALID', message: /lora/ })
  const controller = new AbortController()
  const aborted = engine.generate(IDS, { ...LONG, lora: 'a', signal: controller.signal })
  controller.abort()
  t.is((await aborted).finishReason, 'abort')
  const failed = t.throwsAsync(engine.generate(IDS, { ...LONG, lora: 'a' }), { code: 'ENGINE_CLOSED' })
  const unloaded = engine.unloadAdapter('a')
  await engine.close()
  await failed
  await t.notThrowsAsync(unloaded)
  await t.throwsAsync(engine.loadAdapter('b', a), { code: 'ENGINE_CLOSED' })
})
