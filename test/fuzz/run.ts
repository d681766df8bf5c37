// npm run fuzz -- [--minutes 30] [--inputs 1000000] [--target zip]
// Draws inputs for every target in turn, with a new seed each round, until the time or the count is reached. A find is
// printed as base64 with its seed and ends the run with status 1; add it to test/fuzz as a fixture.
import { parseArgs } from 'node:util'
import fc from 'fast-check'
import { judge, TARGETS } from './targets.js'

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '30' }, inputs: { type: 'string' }, target: { type: 'string' } } })
const end = performance.now() + Number(values.minutes) * 60_000
const most = values.inputs ? Number(values.inputs) : Number.POSITIVE_INFINITY
const targets = TARGETS.filter((t) => values.target === undefined || t.name === values.target)
if (targets.length === 0 || Number.isNaN(end) || Number.isNaN(most)) {
  console.error(`usage: npm run fuzz -- [--minutes n] [--inputs n] [--target ${TARGETS.map((t) => t.name).join('|')}]`)
  process.exit(1)
}

/** Inputs that take longer are printed: a hang, or a busy machine. */
const SLOW_MS = 1000
// Slower ones get fewer inputs a round, so that none takes all the time.
const BATCH = 500
const counts = new Map(targets.map((t) => [t.name, { read: 0, refused: 0, ms: 0, slowestMs: 0 }]))
let seed = Date.now() & 0x7fffffff
let total = 0
const start = performance.now()
let reported = start
while (performance.now() < end && total < most) {
  for (const target of targets) {
    const count = counts.get(target.name) as { read: number; refused: number; ms: number; slowestMs: number }
    const began = performance.now()
    for (const bytes of fc.sample(target.inputs, { seed: ++seed, numRuns: target.name === 'tokenizer' ? BATCH / 10 : BATCH })) {
      const before = performance.now()
      try {
        count[await judge(target, bytes)]++
      } catch (error) {
        console.error(
          `${target.name}, seed ${seed}: ${error instanceof Error ? error.stack : String(error)}\n${Buffer.from(bytes).toString('base64')}`,
        )
        process.exit(1)
      }
      const ms = performance.now() - before
      count.slowestMs = Math.max(count.slowestMs, ms)
      if (ms > SLOW_MS) console.log(`${target.name}, seed ${seed}: ${ms.toFixed(0)} ms for ${Buffer.from(bytes).toString('base64')}`)
      total++
    }
    count.ms += performance.now() - began
  }
  if (performance.now() - reported > 10_000) report()
}
report()

function report(): void {
  reported = performance.now()
  console.log(
    `${total} inputs in ${((reported - start) / 1000).toFixed(0)} s, ${((total / (reported - start)) * 1000).toFixed(0)} a second, ${(process.memoryUsage.rss() / 2 ** 20).toFixed(0)} MiB`,
  )
  for (const [name, c] of counts) console.log(`  ${name.padEnd(12)} ${c.read} read, ${c.refused} refused, slowest ${c.slowestMs.toFixed(1)} ms`)
}
