import test from 'ava'
import { Engine } from '../src/index.js'
import { type PartialKind, partials, plannedBytes, shardBytes, shardLayout } from '../src/internals.js'
import { packedBytes, type RankCounters, readCounters } from '../src/testing.js'
import { TINY } from './support/fixtures.js'
import { quickIf } from './support/tier.js'

const PROMPT = [1843, 360, 661, 259, 566]

for (const ranks of [1, 2, 4] as const) {
  const declare = quickIf(ranks === 4)
  declare(`at ${ranks} ranks each reads its share of the weights and of the cache, and the shares make the whole`, async (t) => {
    const engine = await Engine.load(TINY, { ranks })
    await engine.generate(PROMPT, { maxTokens: 1 })
    const before = readCounters(engine)
    await engine.logits([1])
    const read = readCounters(engine).map((after, r) => {
      const earlier = before[r] as RankCounters
      return {
        sharded: after.shardedWeightBytes - earlier.shardedWeightBytes,
        replicated: after.replicatedWeightBytes - earlier.replicatedWeightBytes,
        cache: after.cacheBytes - earlier.cacheBytes,
      }
    })
    const whole: number = packedBytes(engine).shards.reduce((a, b) => a + b, 0)
    t.is(
      read.reduce((sum, r) => sum + r.sharded, 0),
      whole,
    )
    const planned = plannedBytes(engine)
    for (const [r, { sharded, replicated, cache }] of read.entries()) {
      t.true(sharded <= (whole / ranks) * 1.1, `rank ${r} read ${sharded} of ${whole}`)
      t.is(sharded, planned[r]?.sharded as number)
      // The plan counts norm vectors as well, which are not read by a matrix kernel.
      t.true(replicated <= (planned[r]?.replicated ?? 0) && replicated > 0)
      // One cached token: this rank's latents (4 / ranks of 64 values) and the rope key (32), in 8 layers of float32.
      t.is(cache, 8 * 4 * ((4 / ranks) * 64 + 32))
    }
    await engine.close()
  })
}

test('a prefill chunk of 64 reads a quarter or less of the weight bytes of chunk 1', async (t) => {
  const prompt = Array.from({ length: 128 }, (_, i) => i + 1)
  const bytes: number[] = []
  for (const prefillChunk of [1, 64]) {
    const engine = await Engine.load(TINY, { ranks: 2, prefillChunk })
    await engine.generate(prompt, { maxTokens: 1 })
    bytes.push(readCounters(engine).reduce((sum, c) => sum + c.shardedWeightBytes + c.replicatedWeightBytes, 0))
    await engine.close()
  }
  const [one, sixtyFour] = bytes as [number, number]
  t.log(`chunk 1: ${one / 128} bytes a token, chunk 64: ${sixtyFour / 128}`)
  t.true(sixtyFour <= one / 4)
})

for (const [kind, matrix] of [
  ['attention', 'valueUp'],
  ['attentionOut', 'attentionOut'],
  ['mlp', 'down'],
] as const satisfies readonly (readonly [PartialKind, string])[]) {
  test(`poisoning one shard's ${matrix} in the last layer changes only that shard's ${kind} partial`, async (t) => {
    const engine = await Engine.load(TINY, { ranks: 4 })
    await engine.logits([5])
    const clean = partials(engine, kind)
    const { ptr, bytes } = (shardLayout(engine, 2).layers.at(-1) as ReturnType<typeof shardLayout>['layers'][number])[matrix]
    // Doubles every bfloat16 of exponent below 255: adds one to the exponent.
    const weights = new Uint16Array(shardBytes(engine, 2).buffer, ptr, bytes / 2)
    for (let i = 0; i < weights.length; i++) if ((weights[i] as number) & 0x7fff) weights[i] = (weights[i] as number) + 0x80
    await engine.logits([5])
    const poisoned = partials(engine, kind)
    for (const shard of [0, 1, 2, 3]) {
      const same = Buffer.compare(clean[shard] as Uint8Array, poisoned[shard] as Uint8Array) === 0
      t.is(same, shard !== 2, `shard ${shard}`)
    }
    await engine.close()
  })
}
