// Which rank count decodes fastest: tokens/s of one request at 1, 2, ... ranks up to the cores, the engines in turn in one process.
// Usage: node dist/bench/diagnostics/ranks.js <model dir> <weights> [tokens] [rounds] [context]
import { availableParallelism, loadavg } from 'node:os'
import { Engine } from '../../src/index.js'
import { automaticRanks } from '../../src/options/engine-options.js'
import { inTurn, machine, spread, table } from '../measure.js'

const [dir = 'models/tiny', weights = 'bf16', tokens = '128', rounds = '5', context = '16'] = process.argv.slice(2)
/** Until the ranks' code is compiled for good: tokens, and milliseconds at most. */
const WARM_TOKENS = 600
const WARM_MS = 10_000
const counts = ([1, 2, 4] as const).filter((ranks) => ranks <= Math.max(2, availableParallelism()))
const length = Number(context)
const options = { weights: weights as 'bf16', maxRunning: 1, maxContext: length + Number(tokens) }
const engines = new Map<number, Engine>()
for (const ranks of counts) engines.set(ranks, await Engine.load(dir, { ...options, ranks }))

const decode = async (engine: Engine) => {
  const prompt = Array.from({ length }, (_, i) => (300 + i * 37) % engine.info.vocab)
  return (await engine.generate(prompt, { maxTokens: Number(tokens), ignoreEos: true })).timings.tokensPerSecond
}
for (const engine of engines.values()) {
  const start = performance.now()
  for (let done = 0; done < WARM_TOKENS && performance.now() - start < WARM_MS; done += Number(tokens)) await decode(engine)
}
const speeds = await inTurn(Number(rounds), Object.fromEntries([...engines].map(([ranks, engine]) => [String(ranks), () => decode(engine)])))
for (const engine of engines.values()) await engine.close()
const load = loadavg()[0]?.toFixed(1)
console.log(`${machine()}; ${dir}, ${weights}, context ${context} to ${options.maxContext}, ${rounds} rounds, median (p10..p90), load ${load}`)
console.log(table([['ranks', 'tokens/s'], ...Object.entries(speeds).map(([ranks, values]) => [ranks, spread(values)])]))
console.log(`ranks: 'auto' takes ${automaticRanks(availableParallelism())}`)
