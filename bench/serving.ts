// What does the engine do with many requests? Throughput by concurrency, latency under Poisson arrivals, what a prefix hit
// saves, the scheduler's own time, and recovery from a dead rank. models/tiny.
// Usage: node dist/bench/serving.js [ranks]
import { availableParallelism, cpus } from 'node:os'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Engine, type RestartEvent } from '../src/index.js'
import { injectFault, packedBytes } from '../src/testing.js'

const dir = fileURLToPath(new URL('../../models/tiny', import.meta.url))
const ranks = Number(process.argv[2] ?? Math.min(2, availableParallelism())) as 1 | 2 | 4
const engine = await Engine.load(dir, { ranks, maxRunning: 64, maxRestarts: 1000 })
const bytes = packedBytes(engine).shards.reduce((a, b) => a + b, 0)

const quantile = (values: readonly number[], q: number) => values.toSorted((a, b) => a - b)[Math.round(q * (values.length - 1))] as number
const spread = (values: readonly number[], digits = 0) =>
  `${quantile(values, 0.5).toFixed(digits)} (${quantile(values, 0.1).toFixed(digits)}..${quantile(values, 0.9).toFixed(digits)})`

// A linear congruential generator: the same requests every time, on every machine.
let state = 1
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return state / 4294967296
}
const prompt = (length: number) => Array.from({ length }, () => Math.floor(random() * 4096))

console.log(`${cpus()[0]?.model}, ${availableParallelism()} cores, Node ${process.version}, ${ranks} ranks, ${engine.info.determinismKey}`)
console.log(`floor: ${(bytes / 1e6).toFixed(1)} MB of weights a step / memory bandwidth, then arithmetic (npm run bench:matvec)`)
await engine.generate(prompt(64), { maxTokens: 200, ignoreEos: true })

console.log('\nthroughput: prompts of 32 tokens, 64 tokens out\nconcurrent  tokens/s, median of 5 (p10..p90)')
for (const concurrent of [1, 4, 16, 64]) {
  const rates: number[] = []
  for (let round = 0; round < 6; round++) {
    const start = performance.now()
    await Promise.all(Array.from({ length: concurrent }, () => engine.generate(prompt(32), { maxTokens: 64, ignoreEos: true })))
    if (round > 0) rates.push((concurrent * 64 * 1000) / (performance.now() - start))
  }
  console.log(`${String(concurrent).padEnd(10)}  ${spread(rates)}`)
}

console.log('\nPoisson arrivals: 120 prompts of 16 to 200 tokens, 32 tokens out\nrequests/s  TTFT ms p50 / p99   ms per token p50 / p99')
for (const rate of [5, 15]) {
  const ttft: number[] = []
  const perToken: number[] = []
  const running: Promise<void>[] = []
  for (let i = 0; i < 120; i++) {
    await setTimeout((-Math.log(1 - random()) * 1000) / rate)
    const request = engine.generate(prompt(16 + Math.floor(random() * 185)), { maxTokens: 32, ignoreEos: true })
    running.push(
      request.then(({ timings }) => {
        ttft.push(timings.ttftMs)
        perToken.push(timings.decodeMs / 31)
      }),
    )
  }
  await Promise.all(running)
  console.log(
    `${String(rate).padEnd(10)}  ${`${quantile(ttft, 0.5).toFixed(0)} / ${quantile(ttft, 0.99).toFixed(0)}`.padEnd(18)}  ${quantile(perToken, 0.5).toFixed(2)} / ${quantile(perToken, 0.99).toFixed(2)}`,
  )
}

console.log('\nprefix: 512 shared tokens and 8 of its own; TTFT ms, median of 7 (p10..p90)')
const hits: number[] = []
const misses: number[] = []
for (let i = 0; i < 7; i++) {
  const shared = prompt(512)
  misses.push((await engine.generate([...shared, ...prompt(8)], { maxTokens: 1 })).timings.ttftMs)
  hits.push((await engine.generate([...shared, ...prompt(8)], { maxTokens: 1 })).timings.ttftMs)
}
console.log(`miss ${spread(misses, 1)}, hit ${spread(hits, 1)}, ratio ${(quantile(misses, 0.5) / quantile(hits, 0.5)).toFixed(1)}`)

const before = engine.stats().scheduling
await Promise.all(Array.from({ length: 64 }, () => engine.generate(prompt(8), { maxTokens: 200, ignoreEos: true })))
const after = engine.stats().scheduling
console.log(
  `\nscheduling and publishing a step of 64 sequences: ${((after.sumMs - before.sumMs) / (after.count - before.count)).toFixed(3)} ms on average of ${after.count - before.count} steps`,
)

const recoveries: number[] = []
for (let i = 0; i < 7; i++) {
  const restarted = new Promise<RestartEvent>((resolve) => engine.on('restart', resolve))
  injectFault(engine, { rank: ranks - 1, kind: 'exit' })
  await engine.generate(prompt(16), { maxTokens: 32, ignoreEos: true })
  recoveries.push((await restarted).recoveryMs)
}
console.log(`recovery from a dead thread, from noticing it to all ranks ready: ${spread(recoveries)} ms`)
await engine.close()
