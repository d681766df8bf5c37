// npm run soak -- [--minutes 90] [--rate 1.3] [--seed 7] [--ranks 2] [--log soak.log] [--out bench/results] [--picture soak.log]
// A server under modest traffic for long: equal requests must have equal answers, and memory, handles and threads must not grow. A line of
// JSON by minute goes to the log; --picture makes the result of a log, of one that is still being written too. Exit status 1 at wrong
// answers, a server that ends, requests left over, or memory that grew by more than a tenth.
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { machineFacts } from '../../bench/harness/machine.js'
import { writeSoak } from './outcome.js'
import { soak } from './soak.js'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '90' },
    rate: { type: 'string', default: '1.3' },
    seed: { type: 'string', default: '7' },
    ranks: { type: 'string', default: '2' },
    log: { type: 'string', default: 'soak.log' },
    out: { type: 'string', default: 'bench/results' },
    picture: { type: 'string' },
  },
})
const [minutes, perSecond, seed, ranks] = [values.minutes, values.rate, values.seed, values.ranks].map(Number) as [number, number, number, number]
if (!(minutes > 0) || !(perSecond > 0) || !Number.isInteger(seed) || ![1, 2, 4].includes(ranks)) {
  console.error(
    'usage: npm run soak -- [--minutes n] [--rate requests a second] [--seed n] [--ranks 1|2|4] [--log file] [--out folder] [--picture log]',
  )
  process.exit(1)
}

const MAX_GROWTH = 0.1

if (values.picture !== undefined) {
  console.log(await text(values.picture))
} else {
  const folder = mkdtempSync(join(tmpdir(), 'tetrad-soak-'))
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  const write = (line: object) => appendFileSync(values.log, `${JSON.stringify(line)}\n`)
  writeFileSync(values.log, '')
  write({ seed, minutes, perSecond, ranks, machine: machineFacts(), date: new Date().toISOString() })
  const { wrong, exitCode, byKind, growth } = await soak({
    ...{ minutes, perSecond, seed, ranks, folder },
    onSample: (sample) => {
      write(sample)
      const { minute, rssMiB, heapMiB, requests, wrong } = sample
      console.log(`minute ${minute.toFixed(1)}: RSS ${rssMiB.toFixed(0)} MiB, heap ${heapMiB.toFixed(0)} MiB, ${requests} requests, ${wrong} wrong`)
    },
    onWrong: (what) => console.error(what),
  })
  write({ end: { wrong, exitCode, byKind } })
  console.log(await text(values.log))
  if (wrong.length > 0 || exitCode !== 0 || (growth ?? 0) > MAX_GROWTH) process.exit(1)
}

async function text(log: string): Promise<string> {
  const { files, answer } = await writeSoak(log, values.out)
  return [...answer, ...files].join('\n')
}
