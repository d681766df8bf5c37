import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { Engine, type EngineOptions, OptionError, RequestError, SnapshotError, TetradError } from '../../src/index.js'
import { pages, recordLogits } from '../../src/testing.js'
import { FIXTURES, randomNumbers, TINY } from '../support/fixtures.js'
import { temporary } from '../support/models.js'
import { full, quickIf } from '../support/tier.js'

const golden = (name: string) => `${FIXTURES}golden/${name}`
/** Two full pages short of a part, and the part. */
const PREFIX = Array.from({ length: 100 }, (_, i) => (i * 37 + 11) % 160)
const MORE = Array.from({ length: 10 }, (_, i) => (i * 53 + 7) % 160)

/** Tokens after PREFIX and MORE, with a hash of every row of logits from there on. */
async function continued(engine: Engine) {
  const recorder = recordLogits(engine)
  const { tokens, usage } = await engine.generate([...PREFIX, ...MORE], { maxTokens: 12, ignoreEos: true, seed: 1, temperature: 0.7 })
  recorder.stop()
  return { tokens: [...tokens], cached: usage.cachedTokens, hashes: recorder.rows.map(({ position, hash }) => `${position} ${hash}`) }
}

for (const [name, options] of [
  ['mlra_4', {}],
  ['mla', { cache: 'bf16' }],
  ['mlra_2', { cache: 'int8' }],
  ['gqa', { cache: 'int8' }],
  ['gqa', { weights: 'bf16' }],
  ['tpa', {}],
  ['gta', {}],
] as const) {
  const declare = quickIf(name === 'mlra_4' || (name === 'gqa' && 'cache' in options))
  declare(`${name} ${JSON.stringify(options)}: a snapshot of 2 ranks goes on at 1, 2 and 4 ranks with the bits of a fresh engine`, async (t) => {
    const dir = golden(name)
    const path = join(temporary(t), 'prefix.snapshot')
    const load = (more: EngineOptions) => Engine.load(dir, { ...options, maxContext: 128, maxRunning: 4, ...more })
    const first = await load({ ranks: 2 })
    t.deepEqual((await first.saveSnapshot(PREFIX, path)).tokens, PREFIX.length)
    await first.close()
    const fresh = await load({ ranks: 1 })
    const expected = await continued(fresh)
    t.is(expected.cached, 0)
    await fresh.close()
    for (const ranks of [1, 2, 4] as const) {
      const engine = await load({ ranks })
      t.deepEqual((await engine.loadSnapshot(path)).tokens, PREFIX)
      const actual = await continued(engine)
      t.is(actual.cached, PREFIX.length)
      t.deepEqual(actual.tokens, expected.tokens)
      t.deepEqual(actual.hashes, expected.hashes)
      await engine.close()
    }
  })
}

test('a snapshot of another model, format or build is refused by name', async (t) => {
  const path = join(temporary(t), 'prefix.snapshot')
  const engine = await Engine.load(golden('mlra_4'), { ranks: 1, simd: 'simd128' })
  await engine.saveSnapshot(PREFIX, path)
  await engine.close()
  for (const [dir, options, name] of [
    [golden('mla'), { simd: 'simd128' }, 'variant'],
    [golden('mlra_4_gated'), { simd: 'simd128' }, 'variant'],
    [golden('mlra_4'), { simd: 'simd128', cache: 'bf16' }, 'cache'],
    [golden('mlra_4'), { simd: 'simd128', weights: 'bf16' }, 'weights'],
    [golden('mlra_4'), { backend: 'reference' }, 'determinismKey'],
    [golden('mlra_4_f16_safetensors'), { simd: 'simd128' }, 'model'],
    [golden('mlra_4'), { simd: 'simd128', maxContext: 64 }, 'context'],
  ] as const) {
    const other = await Engine.load(dir, { ranks: 1, ...options })
    const error = await t.throwsAsync(other.loadSnapshot(path), { instanceOf: SnapshotError })
    t.is((error as TetradError).code, 'SNAPSHOT_MISMATCH')
    t.true(error.message.includes(`saved with another ${name}`), `${name}: ${error.message}`)
    t.is((await other.generate([1, 2], { maxTokens: 1, ignoreEos: true })).tokens.length, 1)
    await other.close()
  }
})

full('a snapshot that is damaged anywhere is refused: no page leaks, and none of its tokens are cached', async (t) => {
  const dir = temporary(t)
  const path = join(dir, 'prefix.snapshot')
  const engine = await Engine.load(golden('mlra_4'), { ranks: 2, maxRunning: 4 })
  await engine.saveSnapshot(PREFIX, path)
  await engine.close()
  const whole = readFileSync(path)
  const victim = await Engine.load(golden('mlra_4'), { ranks: 2, maxRunning: 4 })
  const { free } = pages(victim)
  const random = randomNumbers(3)
  const broken = join(dir, 'broken.snapshot')
  const attempt = async (bytes: Uint8Array) => {
    writeFileSync(broken, bytes)
    const error = await t.throwsAsync(victim.loadSnapshot(broken), { instanceOf: SnapshotError })
    t.true(['SNAPSHOT_INVALID', 'SNAPSHOT_MISMATCH'].includes((error as TetradError).code))
  }
  for (let i = 0; i < 150; i++) {
    const bytes = Uint8Array.from(whole)
    // A byte changed anywhere, or near the beginning, where the structure is.
    const at = Math.floor(random() * (i % 2 === 0 ? bytes.length : 600))
    bytes[at] = (bytes[at] as number) ^ (1 + Math.floor(random() * 255))
    await attempt(bytes)
    await attempt(whole.subarray(0, Math.floor(random() * whole.length)))
  }
  await attempt(Buffer.concat([whole, Buffer.of(0)]))
  await attempt(new Uint8Array(0))
  // Lengths that a reader must not believe.
  const long = Buffer.from(whole)
  long.writeUInt32LE(0xffffffff, 0)
  await attempt(long)
  await t.throwsAsync(victim.loadSnapshot(join(dir, 'none')), { instanceOf: SnapshotError })
  t.is(pages(victim).free, free)
  t.is((await continued(victim)).cached, 0)
  await victim.close()
})

test('wrong arguments of saveSnapshot are named; no partial file is left, and a snapshot replaces the file atomically', async (t) => {
  const dir = temporary(t)
  const path = join(dir, 'prefix.snapshot')
  const engine = await Engine.load(golden('mlra_4'), { ranks: 1, maxRunning: 2 })
  await t.throwsAsync(engine.saveSnapshot([], path), { instanceOf: RequestError })
  await t.throwsAsync(engine.saveSnapshot([160], path), { instanceOf: RequestError })
  await t.throwsAsync(engine.saveSnapshot(PREFIX, ''), { instanceOf: OptionError })
  const unwritable = await t.throwsAsync(engine.saveSnapshot(PREFIX, join(dir, 'no such folder', 'x')), { instanceOf: TetradError })
  t.is((unwritable as TetradError).code, 'OUTPUT_FAILED')
  t.deepEqual(readdirSync(dir), [])
  await engine.saveSnapshot(PREFIX, path)
  await engine.saveSnapshot(PREFIX.slice(0, 70), path)
  t.deepEqual(readdirSync(dir), ['prefix.snapshot'])
  t.deepEqual((await engine.loadSnapshot(path)).tokens, PREFIX.slice(0, 70))
  await engine.close()
  await t.throwsAsync(engine.loadSnapshot(path), { message: /closed/ })
})

full('loading a snapshot into a full cache fails with SNAPSHOT_NO_ROOM', async (t) => {
  const path = join(temporary(t), 'prefix.snapshot')
  const prompt = Array.from({ length: 700 }, (_, i) => (i * 31) % 4096)
  const engine = await Engine.load(TINY, { ranks: 1, maxRunning: 4 })
  await engine.saveSnapshot(prompt, path)
  await engine.close()
  const small = await Engine.load(TINY, { ranks: 1, maxRunning: 4, cacheTokens: 768 })
  const running = small.generate(prompt.slice(0, 300), { maxTokens: 400, ignoreEos: true })
  for await (const _ of running) break
  const other = small.generate(prompt.slice(0, 300), { maxTokens: 300, ignoreEos: true })
  await new Promise((resolve) => setImmediate(resolve))
  const error = await t.throwsAsync(small.loadSnapshot(path), { instanceOf: SnapshotError })
  t.is((error as TetradError).code, 'SNAPSHOT_NO_ROOM')
  await other
  t.is((await small.loadSnapshot(path)).tokens.length, prompt.length)
  await small.close()
})
