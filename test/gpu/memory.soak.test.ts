import { Engine } from '../../src/index.js'
import { FIXTURES } from '../support/fixtures.js'
import { gpuTest, SOFTWARE } from '../support/software-gpu.js'

gpuTest('loading and closing again and again does not keep what is on the devices', async (t) => {
  const CACHE_MIB = 128
  const cycle = async () => {
    const engine = await Engine.load(`${FIXTURES}golden/mlra_4`, { ...SOFTWARE, ranks: 1, maxRunning: 2, cacheBytes: CACHE_MIB * 2 ** 20 })
    await engine.generate([1, 2], { maxTokens: 1, ignoreEos: true })
    await engine.close()
    return process.memoryUsage.rss() / 2 ** 20
  }
  // The process itself grows by some 300 MiB before it levels off.
  const sizes: number[] = []
  for (let i = 0; i < 30; i++) sizes.push(await cycle())
  t.log(`RSS in MiB: ${sizes.map((s) => s.toFixed(0)).join(' ')}`)
  const grown = (sizes[29] as number) - (sizes[9] as number)
  t.true(grown < 2 * CACHE_MIB, `${grown.toFixed(0)} MiB in 20 loads; caches that stay would be ${20 * CACHE_MIB} MiB`)
})
