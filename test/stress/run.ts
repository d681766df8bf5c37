// npm run stress -- [--minutes 30] [--seed 7] [--gpu adapter] [--replay seed:round]
// Random traffic with faults until the time is over; a summary at the end. Exit status 1 on the first thing that must not happen, with what
// repeats it.
import { parseArgs } from 'node:util'
import { StressFailure, stress } from './stress.js'

const { values } = parseArgs({
  options: { minutes: { type: 'string', default: '30' }, seed: { type: 'string' }, gpu: { type: 'string' }, replay: { type: 'string' } },
})
const [replaySeed, replayRound] = values.replay?.split(':').map(Number) ?? []
const seed = replaySeed ?? Number(values.seed ?? Date.now() % 1_000_000)
const minutes = Number(values.minutes)
if (!Number.isInteger(seed) || !(minutes > 0) || (values.replay !== undefined && !Number.isInteger(replayRound))) {
  console.error('usage: npm run stress -- [--minutes n] [--seed n] [--gpu adapter] [--replay seed:round]')
  process.exit(1)
}
const rss = () => process.memoryUsage().rss / 2 ** 20
/** Rounds until memory has levelled off, a fourth of them on a GPU if there is one. */
const WARM_UP = 20
let rssWarm = 0
let rssHalf = 0
let reported = performance.now()
const start = performance.now()
console.log(`seed ${seed}, ${values.replay === undefined ? `${minutes} minutes` : `round ${replayRound} alone`}`)
try {
  const summary = await stress({
    seed,
    round: replayRound ?? 0,
    rounds: replayRound === undefined ? Number.POSITIVE_INFINITY : 1,
    minutes,
    gpu: values.gpu === undefined ? undefined : { backend: 'gpu', adapter: values.gpu, gpuKernels: 'gpu.js', gpuChecks: true },
    onRound: ({ requests, faults, recoveries, rounds }) => {
      if (rounds === WARM_UP) rssWarm = rss()
      if (performance.now() - start < minutes * 30_000) rssHalf = rss()
      if (performance.now() - reported < 10_000) return
      reported = performance.now()
      const seconds = ((reported - start) / 1000).toFixed(0)
      console.log(`${seconds} s: ${rounds} rounds, ${requests} requests, ${faults} faults, ${recoveries} recoveries, RSS ${rss().toFixed(0)} MiB`)
    },
  })
  const { worstRecoveryMs, ...counts } = summary
  for (const [name, count] of Object.entries(counts)) console.log(`${name.padEnd(16)}${count}`)
  console.log(`worst recovery  ${worstRecoveryMs.toFixed(0)} ms`)
  const warm = rssWarm > 0 ? `${rssWarm.toFixed(0)} MiB after ${WARM_UP} rounds, ` : ''
  console.log(`RSS             ${warm}${rssHalf.toFixed(0)} at half time, ${rss().toFixed(0)} MiB at the end`)
} catch (error) {
  console.error(error instanceof StressFailure ? error.message : error)
  process.exit(1)
}
