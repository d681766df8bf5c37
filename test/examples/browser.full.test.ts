// The engine in a page of a real browser: ranks in Web Workers, with the bits that it has in Node.
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import test from 'ava'
import { chromium } from 'playwright-core'
import { Engine } from '../../src/index.js'
import { ROOT, TINY } from '../support/fixtures.js'

const BROWSER = ['/usr/bin/chromium', '/usr/bin/google-chrome'].find((path) => existsSync(path))
const PROMPT = 'The wolf and the seven'
const TOKENS = 48

interface Measured {
  readonly sha256: string
  readonly tokens: readonly number[]
  readonly text: string
  readonly tokensPerSecond: number
  readonly info: { readonly ranks: number; readonly backend: string; readonly determinismKey: string }
}

const declare = BROWSER ? test : test.skip
declare('in a page the engine has the tokens and the bits of Node at 1, 2 and 4 ranks', async (t) => {
  t.timeout(300_000)
  const { bundle } = (await import(`${ROOT}examples/browser/build.mjs`)) as { bundle: () => Promise<unknown> }
  const { serve } = (await import(`${ROOT}examples/browser/serve.mjs`)) as { serve: (port: number) => Promise<Server> }
  await bundle()
  const server = await serve(0)
  t.teardown(() => server.close())
  const browser = await chromium.launch({ executablePath: BROWSER as string, args: ['--no-sandbox'] })
  t.teardown(() => browser.close())
  const page = await browser.newPage({ viewport: { width: 390, height: 700 } })
  const errors: string[] = []
  page.on('pageerror', (error) => errors.push(error.message))
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)
  await page.waitForFunction("/ready|failed/.test(document.querySelector('#status').textContent)")
  t.regex((await page.textContent('#status')) ?? '', /ready/)

  const engine = await Engine.load(TINY, { ranks: 2, backend: 'wasm', cacheTokens: 2048, maxRunning: 4 })
  t.teardown(() => engine.close())
  const logits = await engine.logits(await engine.tokenize(PROMPT))
  const sha256 = createHash('sha256')
    .update(new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength))
    .digest('hex')
  const own = await engine.generate(PROMPT, { maxTokens: TOKENS, ignoreEos: true })
  for (const ranks of [1, 2, 4]) {
    const measured = (await page.evaluate(`tetrad.measure(${ranks}, ${JSON.stringify(PROMPT)}, ${TOKENS})`)) as Measured
    t.deepEqual([measured.info.ranks, measured.info.backend], [ranks, 'wasm'])
    t.is(measured.info.determinismKey, engine.info.determinismKey)
    t.is(measured.sha256, sha256, `${ranks} ranks`)
    t.deepEqual([...measured.tokens], [...own.tokens])
    t.is(measured.text, own.text)
    t.log(`${ranks} ranks: ${measured.tokensPerSecond.toFixed(0)} tokens/s`)
  }
  await page.evaluate('tetrad.closeAll()')
  await page.click('button')
  await page.waitForFunction("/a second|failed/.test(document.querySelector('#status').textContent)")
  t.regex((await page.textContent('#status')) ?? '', /^\d{2,3} tokens, [1-9]/)
  t.true(((await page.textContent('#output')) ?? '').length > 50)
  if (process.env.TETRAD_SCREENSHOT) await page.screenshot({ path: process.env.TETRAD_SCREENSHOT })
  t.deepEqual(errors, [])
})
