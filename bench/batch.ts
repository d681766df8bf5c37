// What does decoding several sequences at once gain? Weights are read once for all of them; from a few on arithmetic binds.
// Usage: node dist/bench/batch.js [rounds]
import { Engine } from '../src/index.js'
import { inTurn, machine, median, midModel, spread, table, temporaryFolder } from './measure.js'
import { Probe } from './probe.js'

const rounds = Number(process.argv[2] ?? 5)
const TOKENS = 40
const dir = await midModel(temporaryFolder())
console.log(`${machine()}; mid, 2 ranks, ${rounds} rounds, median (p10..p90) of tokens/s, all sequences together`)
const probe = new Probe(2, 64)
await probe.rate('multiply')
const peak = median(await Promise.all([1, 2, 3].map(() => probe.rate('multiply'))))
await probe.close()
const rows = [['weights', 'batch 1', 'batch 4', 'batch 8', 'batch 8 over 1']]
for (const weights of ['bf16', 'int8'] as const) {
  const engine = await Engine.load(dir, { ranks: 2, weights, maxRunning: 8 })
  if (weights === 'bf16')
    console.log(
      `floor: bytes / bandwidth for one; ${((engine.info.parameters * 2) / 1e9).toFixed(2)} GFLOP a token / ${peak.toFixed(0)} GFLOP/s (multiply-adds in registers) for many`,
    )
  const batch = (n: number) => async () => {
    const start = performance.now()
    const prompts = Array.from({ length: n }, (_, i) => [20 + i, 21, 22])
    await engine.generate(prompts, { maxTokens: TOKENS, ignoreEos: true })
    return (n * TOKENS * 1000) / (performance.now() - start)
  }
  const results = await inTurn(rounds, { one: batch(1), four: batch(4), eight: batch(8) })
  rows.push([weights, spread(results.one), spread(results.four), spread(results.eight), (median(results.eight) / median(results.one)).toFixed(2)])
  await engine.close()
}
console.log(table(rows))
