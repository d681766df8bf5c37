// How much of its speed does decoding keep while another process keeps one core busy?
// Usage: node dist/bench/busy.js [model dir] [rounds]
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Engine } from '../src/index.js'
import { machine, median, midModel, spread, table, temporaryFolder } from './measure.js'

const rounds = Number(process.argv[3] ?? 5)
const models = process.argv[2]
  ? { [process.argv[2]]: process.argv[2] }
  : { tiny: fileURLToPath(new URL('../../models/tiny', import.meta.url)), mid: await midModel(temporaryFolder()) }
console.log(`${machine()}; 2 ranks, ${rounds} rounds, median (p10..p90) of tokens/s, quiet and busy in turn`)
console.log('floor: a fair share of two cores of which one is wanted by another process is 0.75 of them')
const rows = [['model', 'quiet', 'one core busy', 'kept']]
for (const [name, dir] of Object.entries(models)) {
  const engine = await Engine.load(dir, { ranks: 2, maxRunning: 4 })
  const rate = async () => (await engine.generate([5, 6, 7], { maxTokens: name === 'tiny' ? 300 : 64, ignoreEos: true })).timings.tokensPerSecond
  const quiet: number[] = []
  const busy: number[] = []
  await rate()
  for (let round = 0; round < rounds; round++) {
    quiet.push(await rate())
    const other = spawn(process.execPath, ['-e', 'for (;;);'])
    await once(other, 'spawn')
    await new Promise((resolve) => setTimeout(resolve, 300))
    busy.push(await rate())
    other.kill('SIGKILL')
    await once(other, 'exit')
  }
  rows.push([name, spread(quiet), spread(busy), `${((median(busy) / median(quiet)) * 100).toFixed(0)} %`])
  await engine.close()
}
console.log(table(rows))
