// How fast does a model (models/tiny) decode at 1, 2 and 4 ranks? Rank counts take turns, so that a busy minute hits all of them.
// Usage: node dist/bench/decode.js [model dir] [rounds] [weights]
import { availableParallelism, cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { Engine } from '../src/index.js'
import { packedBytes } from '../src/testing.js'

const dir = process.argv[2] ?? fileURLToPath(new URL('../../models/tiny', import.meta.url))
const rounds = Number(process.argv[3] ?? 7)
const TOKENS = 300
const PROMPT = Array.from({ length: 16 }, (_, i) => 100 + i)

const engines = await Promise.all(([1, 2, 4] as const).map((ranks) => Engine.load(dir, { ranks, weights: (process.argv[4] ?? 'auto') as 'auto' })))
const bytes = packedBytes(engines[0] as Engine).shards.reduce((a, b) => a + b, 0)
console.log(`${cpus()[0]?.model}, ${availableParallelism()} cores, Node ${process.version}`)
console.log(`floor: ${(bytes / 1e6).toFixed(1)} MB of weights a token / memory bandwidth (node dist/bench/matvec.js)`)
console.log(`${TOKENS} tokens after ${PROMPT.length}, ${rounds} rounds after one to warm up`)
console.log('ranks  load ms  tokens/s (median)  p10..p90     GB/s of weights  prefill of 512, tokens/s')
const rates = new Map<Engine, number[]>(engines.map((engine) => [engine, []]))
const prefills = new Map<Engine, number[]>(engines.map((engine) => [engine, []]))
const longTokens = Math.min(512, (engines[0] as Engine).info.contextTokens - 1)
for (let round = 0; round <= rounds; round++) {
  for (const engine of engines) {
    const { timings } = await engine.generate(PROMPT, { maxTokens: TOKENS, ignoreEos: true })
    // Another prompt each time: the prefix cache would answer the same one.
    const long = Array.from({ length: longTokens }, (_, i) => (i * 31 + round * 7) % 97)
    const prefill = await engine.generate(long, { maxTokens: 1, ignoreEos: true })
    if (round === 0) continue
    rates.get(engine)?.push(timings.tokensPerSecond)
    prefills.get(engine)?.push((longTokens / prefill.timings.ttftMs) * 1000)
  }
}
for (const engine of engines) {
  const sorted = (values: number[] = []) => values.toSorted((a, b) => a - b)
  const all = sorted(rates.get(engine))
  const at = (values: number[], q: number) => values[Math.round(q * (values.length - 1))] as number
  const spread = `${at(all, 0.1).toFixed(0)}..${at(all, 0.9).toFixed(0)}`
  const cells = [String(engine.info.ranks).padEnd(5), engine.info.loadMs.toFixed(0).padEnd(7), at(all, 0.5).toFixed(0).padEnd(17), spread.padEnd(11)]
  console.log([...cells, ((bytes * at(all, 0.5)) / 1e9).toFixed(1).padEnd(15), at(sorted(prefills.get(engine)), 0.5).toFixed(0)].join('  '))
  await engine.close()
}
