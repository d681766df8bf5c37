// Loading and closing must leave nothing behind. Linux: threads are counted in /proc.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import test from 'ava'
import { Engine } from '../../src/index.js'
import { FIXTURES, ROOT, TINY } from '../support/fixtures.js'

const run = promisify(execFile)
const INDEX = JSON.stringify(new URL('../../src/index.js', import.meta.url).href)

async function program(source: string): Promise<string> {
  const { stdout } = await run(process.execPath, ['--expose-gc', '--input-type=module', '-e', source], { cwd: ROOT, timeout: 200_000 })
  return stdout.trim()
}

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

test('an engine that was dropped without close does not keep the process alive, idle or after a request', async (t) => {
  t.is(await program(`import { Engine } from ${INDEX}; await Engine.load(${JSON.stringify(TINY)}, { ranks: 2 }); console.log('loaded')`), 'loaded')
})

test('two engines in one process do not disturb each other', async (t) => {
  const alone = await Engine.load(TINY, { ranks: 2 })
  const expected = await alone.generate('Once upon a time', { maxTokens: 40 })
  await alone.close()
  const [a, b] = await Promise.all([Engine.load(TINY, { ranks: 4 }), Engine.load(TINY, { ranks: 1 })])
  const both = await Promise.all([a.generate('Once upon a time', { maxTokens: 40 }), b.generate('Once upon a time', { maxTokens: 40 })])
  for (const { tokens } of both) t.deepEqual(tokens, expected.tokens)
  await a.close()
  t.deepEqual((await b.generate('Once upon a time', { maxTokens: 40 })).tokens, expected.tokens)
  await b.close()
})
