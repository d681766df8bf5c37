// Loading, generating and closing again and again must leave nothing behind. Linux: threads are counted in /proc.
import { setTimeout } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import test from 'ava'
import { Engine } from '../../src/index.js'
import { pages } from '../../src/testing.js'
import { FIXTURES, TINY } from '../support/fixtures.js'
import { INDEX, program } from '../support/program.js'

test('50 times load, generate and close leaves heap, external memory, threads and handles flat', async (t) => {
  const out = await program(`
    import { readdirSync } from 'node:fs'
    import { setTimeout } from 'node:timers/promises'
    import { Engine } from ${INDEX}
    const measure = async () => {
      await setTimeout(200)
      for (let i = 0; i < 4; i++) { gc(); await setTimeout(20) }
      const { heapUsed, external, arrayBuffers } = process.memoryUsage()
      return { heapUsed, external, arrayBuffers, threads: readdirSync('/proc/self/task').length, handles: process.getActiveResourcesInfo().filter((r) => r !== 'Timeout').length }
    }
    const results = []
    for (let i = 1; i <= 50; i++) {
      const engine = await Engine.load(${JSON.stringify(`${FIXTURES}golden/mlra_4`)}, { ranks: 2 })
      await engine.generate([23], { maxTokens: 3 })
      await engine.close()
      if (i === 10 || i === 50) results.push(await measure())
    }
    console.log(JSON.stringify(results))`)
  const [early, late] = JSON.parse(out) as [Record<string, number>, Record<string, number>]
  t.log(JSON.stringify({ early, late }))
  const grown = (name: string) => (late[name] as number) - (early[name] as number)
  t.true(grown('heapUsed') < 3 << 20, `heap grew by ${grown('heapUsed')}`)
  t.true(grown('external') < 1 << 20, `external memory grew by ${grown('external')}`)
  t.true(grown('arrayBuffers') < 1 << 20, `array buffers grew by ${grown('arrayBuffers')}`)
  t.true(grown('threads') <= 0, `threads grew by ${grown('threads')}`)
  t.true(grown('handles') <= 0, `handles grew by ${grown('handles')}`)
})

test('10,000 short requests leave heap, external memory and pages flat', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2 })
  const wave = async (n: number) => {
    for (let i = 0; i < n; i += 50) await Promise.all(Array.from({ length: 50 }, (_, k) => engine.generate([1 + ((i + k) % 4000)], { maxTokens: 1 })))
  }
  await wave(2000)
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as () => void
  const measure = async () => {
    await setTimeout(50)
    gc()
    const { heapUsed, external } = process.memoryUsage()
    return { heapUsed, external }
  }
  const before = await measure()
  await wave(8000)
  const after = await measure()
  t.log(JSON.stringify({ before, after }))
  t.true(after.external - before.external < 4 << 20)
  t.true(after.heapUsed - before.heapUsed < 8 << 20)
  t.is(pages(engine).free, pages(engine).all)
  await engine.close()
})
