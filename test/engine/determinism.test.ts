// The key and the digest of what fixes the bits: equal where bits are, different where they may differ.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { Engine, type EngineOptions, inspect } from '../../src/index.js'
import { FIXTURES, TINY } from '../support/fixtures.js'
import { copyOf } from '../support/models.js'

const MLA = `${FIXTURES}golden/mla`
const of = async (options: EngineOptions, dir = MLA) => {
  const { determinismKey, determinismDigest } = await inspect(dir, { backend: 'wasm', ...options })
  return `${determinismKey} ${determinismDigest}`
}

test('ranks, chunks and the size of the cache change neither', async (t) => {
  const expected = await of({ ranks: 1 })
  t.regex(expected, /^tetrad-[^/]+\/wasm\/\w+\/weights-f32\/cache-f32\/partition-heads\/kernels-[0-9a-f]{12} [0-9a-f]{32}$/)
  for (const options of [{ ranks: 2 }, { ranks: 4, prefillChunk: 7 }, { ranks: 4, cacheTokens: 4096, maxRunning: 3, maxContext: 100 }] as const)
    t.is(await of(options), expected)
})

test('formats, kernels, backend and partition change both', async (t) => {
  const all: EngineOptions[] = [
    {},
    { weights: 'bf16' },
    { weights: 'int8' },
    { weights: 'int4' },
    { cache: 'bf16' },
    { cache: 'int8' },
    { simd: 'simd128' },
    { partition: 'sequence' },
    { backend: 'reference' },
  ]
  const seen = await Promise.all(all.map((options) => of(options)))
  for (const part of [0, 1]) t.is(new Set(seen.map((one) => one.split(' ')[part])).size, all.length)
  const kernels = seen.map((one) => /kernels-(\w+)/.exec(one)?.[1])
  t.is(new Set(kernels).size, 3, 'two builds and the reference')
})

test('another tokenizer changes the digest, not the key; an engine says what inspect says', async (t) => {
  const dir = copyOf(t, TINY)
  const before = (await of({ ranks: 2 }, dir)).split(' ')
  const engine = await Engine.load(dir, { ranks: 2, backend: 'wasm' })
  await engine.close()
  t.deepEqual([engine.info.determinismKey, engine.info.determinismDigest], before)
  const path = join(dir, 'tokenizer.json')
  writeFileSync(path, `${readFileSync(path, 'utf8')}\n`)
  const after = (await of({ ranks: 2 }, dir)).split(' ')
  t.is(after[0], before[0])
  t.not(after[1], before[1])
})
