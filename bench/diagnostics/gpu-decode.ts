// Time of a token of a large model on the gpu backend, at 1 K and at a long context, beside the time of reading its weights and
// cache. The long context is random values, not computed.
// Usage: node dist/bench/diagnostics/gpu-decode.js dir [long context] [rounds] [ranks] [adapter]
import { Engine, inspect } from '../../src/index.js'
import { packedBytes, pretendCached } from '../../src/testing.js'
import { gpuLine, gpuReadRate, openGpu } from '../gpu-measure.js'
import { median, spread, table } from '../measure.js'

const [dir, long = '131072', roundsText = '5', ranksText = '1', adapter] = process.argv.slice(2)
if (dir === undefined) throw new Error('usage: node dist/bench/diagnostics/gpu-decode.js dir [long context] [rounds] [ranks] [adapter]')
const rounds = Number(roundsText)
const ranks = Number(ranksText) as 1 | 2 | 4
const TOKENS = 64
const SHORT = 1000

const gpu = await openGpu(adapter)
console.log(`${gpuLine(gpu)}; ${ranks} ranks, ${rounds} rounds of ${TOKENS} tokens, median (p10..p90)`)
await gpu.context.destroy()
const bandwidth = await gpuReadRate(adapter)
console.log(`floor: weights and cache of a token at the ${bandwidth.toFixed(0)} GB/s at which a kernel reads 1 GiB`)

const ids = (n: number, seed: number) => Array.from({ length: n }, (_, i) => (i * 7919 + seed * 131 + 13) % 50_000)
const rows = [['cache', 'context', 'ms a token', 'floor ms', 'times the floor', 'first token ms']]
for (const cache of ['f32', 'f16'] as const) {
  const contexts = [SHORT, Number(long)]
  const named = adapter === undefined ? {} : { adapter }
  const cacheTokens = Number(long) + 4096
  const engine = await Engine.load(dir, { backend: 'gpu', ranks, cache, maxRunning: 2, maxContext: cacheTokens, cacheTokens, ...named })
  const { kvCache } = await inspect(dir, { backend: 'gpu', ranks, cache, ...named })
  const perToken = ranks * (kvCache.find((cost) => cost.ranks === ranks)?.bytesPerToken ?? 0)
  const weights = packedBytes(engine).shards.reduce((a, b) => a + b, 0)
  for (const context of contexts) {
    const ms: number[] = []
    const ttft: number[] = []
    const prompt = ids(context, 1)
    if (context > SHORT) await pretendCached(engine, prompt)
    for (let round = 0; round <= rounds; round++) {
      const { timings } = await engine.generate([...prompt, round], { maxTokens: TOKENS, ignoreEos: true })
      if (round === 0) continue
      ms.push(1000 / timings.tokensPerSecond)
      ttft.push(timings.ttftMs)
    }
    const floor = (weights + context * perToken) / bandwidth / 1e6
    rows.push([cache, String(context), spread(ms, 2), floor.toFixed(2), (median(ms) / floor).toFixed(2), spread(ttft, 0)])
  }
  await engine.close()
}
console.log(table(rows))
