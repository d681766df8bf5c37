// How fast does a checkpoint load from a warm file cache, as published and converted?
// Usage: node dist/bench/load.js [rounds]
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { convert, Engine } from '../src/index.js'
import { inTurn, machine, median, midModel, spread, table, temporaryFolder } from './measure.js'

const rounds = Number(process.argv[2] ?? 5)
const folder = temporaryFolder()
const dir = await midModel(folder)
const packed = join(folder, 'packed')
await convert(dir, packed, { weights: 'bf16' })
const load = (from: string) => async () => {
  const engine = await Engine.load(from, { ranks: 2, maxRunning: 4, cacheTokens: 4096 })
  await engine.close()
  return engine.info.loadMs
}
const results = await inTurn(rounds, { published: load(dir), converted: load(packed) })
const bytes = statSync(join(dir, 'model.safetensors')).size
console.log(`${machine()}; mid, bf16, 2 ranks, ${rounds} rounds, median (p10..p90)`)
console.log('floor: one copy from the file cache; start-up of the threads is in these times')
const rate = (ms: readonly number[]) => (bytes / median(ms) / 1e6).toFixed(2)
console.log(
  table([
    ['checkpoint', 'ms', 'GB/s'],
    ['as published', spread(results.published, 0), rate(results.published)],
    ['converted', spread(results.converted, 0), rate(results.converted)],
  ]),
)
