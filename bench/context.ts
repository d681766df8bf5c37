// What does a long context cost? A decode step at 64 K cached tokens beside one at 1 K, over the floor of the difference: the larger of
// the extra cache bytes / bandwidth and the extra multiply-adds / peak. The cached values are random: speed does not depend on them.
// Usage: node dist/bench/context.js [rounds] [variant] [f32|bf16|int8]
import { Engine, type EngineOptions } from '../src/index.js'
import { attentionOperations, pretendCached, readCounters } from '../src/testing.js'
import { inTurn, machine, median, midModel, spread, table, temporaryFolder } from './measure.js'
import { Probe } from './probe.js'

const rounds = Number(process.argv[2] ?? 5)
const variant = process.argv[3] ?? 'mlra_4'
const cache = (process.argv[4] ?? 'f32') as NonNullable<EngineOptions['cache']>
const SHORT = 1024
const LONG = 65536
const STEPS = 8
const dir = await midModel(temporaryFolder(), variant)
console.log(`${machine()}; mid, ${variant}, ${cache} cache, ${rounds} rounds of ${STEPS} steps, median (p10..p90)`)
console.log(
  'floor: the larger of extra cache bytes / wasm read loop and extra operations / multiply-adds in registers, threads as ranks, in turn with the steps',
)
const rows = [['ranks', `ms a step at ${SHORT}`, `at ${LONG}`, 'difference', 'bytes floor', 'operations floor', 'over the floor']]
for (const ranks of [1, 2] as const) {
  const engine = await Engine.load(dir, { ranks, cache, maxContext: 131072, maxRunning: 2, cacheTokens: LONG + SHORT + 1024 })
  const prompt = (n: number) => Array.from({ length: n }, (_, i) => (i * 7 + (n % 13)) % 4096)
  const prompts = { short: prompt(SHORT), long: prompt(LONG) }
  for (const tokens of Object.values(prompts)) await pretendCached(engine, tokens)
  let bytes = 0
  const step = (tokens: readonly number[]) => async () => {
    const before = readCounters(engine).reduce((sum, r) => sum + r.cacheBytes, 0)
    const { timings } = await engine.generate([...tokens, 1], { maxTokens: STEPS, ignoreEos: true })
    bytes = (readCounters(engine).reduce((sum, r) => sum + r.cacheBytes, 0) - before) / STEPS
    return 1000 / timings.tokensPerSecond
  }
  const probe = new Probe(ranks, 400e6)
  let extraBytes = 0
  const times = await inTurn(rounds, {
    short: async () => {
      const ms = await step(prompts.short)()
      extraBytes = -bytes
      return ms
    },
    long: async () => {
      const ms = await step(prompts.long)()
      extraBytes += bytes
      return ms
    },
    read: () => probe.rate('wasm read'),
    multiply: () => probe.rate('multiply'),
  })
  await probe.close()
  const flops = attentionOperations(engine) * (LONG - SHORT)
  await engine.close()
  const difference = median(times.long) - median(times.short)
  const bytesFloor = extraBytes / median(times.read) / 1e6
  const flopsFloor = flops / median(times.multiply) / 1e6
  rows.push([
    String(ranks),
    spread(times.short),
    spread(times.long),
    difference.toFixed(1),
    bytesFloor.toFixed(1),
    flopsFloor.toFixed(1),
    (difference / Math.max(bytesFloor, flopsFloor)).toFixed(2),
  ])
}
console.log(table(rows))
