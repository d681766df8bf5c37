// The live page in a real browser.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { chromium } from 'playwright-core'
import { Engine } from '../../src/index.js'
import { createServer } from '../../src/serve/server.js'
import { PLAIN } from '../../src/tokenizer/chat-template.js'
import { TINY } from '../support/fixtures.js'
import { temporary } from '../support/models.js'
import { until } from '../support/until.js'

const BROWSER = ['/usr/bin/chromium', '/usr/bin/google-chrome'].find((path) => existsSync(path))
// Where CI requires a GPU it has installed the browser that brings it.
const withBrowser = BROWSER || process.env.TETRAD_GPU_TESTS === 'require' ? test : test.skip

withBrowser('the page: tokens with their probabilities, lanes of the ranks, stop, keyboard, dark and light, an API key', async (t) => {
  t.timeout(180_000)
  const engine = await Engine.load(TINY, { ranks: 4, maxRunning: 4, cacheTokens: 4096 })
  const server = createServer(new Map([['tiny', { id: 'tiny', engine, template: PLAIN, created: 1 }]]), { apiKey: 'k' })
  const address = await server.app.listen({ port: 0, host: '127.0.0.1' })
  const browser = await chromium.launch({ executablePath: BROWSER as string, args: ['--no-sandbox'] })
  t.teardown(async () => {
    await browser.close()
    await server.app.close()
    await engine.close()
  })
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 }, colorScheme: 'dark' })
  const problems: string[] = []
  page.on('pageerror', (error) => problems.push(error.message))
  const foreign: string[] = []
  page.on('request', (request) => {
    if (!request.url().startsWith('http://127.0.0.1:') && !request.url().startsWith('data:')) foreign.push(request.url())
  })
  await page.goto(address)
  await page.getByText('The server asks for an API key.').waitFor()
  await page.getByLabel('API key').fill('k')
  await page.getByLabel('API key').press('Tab')
  await page.getByText('Connected.', { exact: true }).waitFor()
  t.is(await page.locator('.lane').count(), 4)
  await page.getByLabel('Tokens', { exact: true }).fill('150')
  await page.getByLabel('Temperature').fill('0')
  await page.getByRole('button', { name: 'Generate' }).click()
  await page.getByText(/^150 tokens, \d+ a second; /).waitFor({ timeout: 60_000 })
  const expected = await engine.generate('Once upon a time', { maxTokens: 150, temperature: 0 })
  t.is(await page.locator('#output').textContent(), `Once upon a time${expected.text}`)
  // Something was seen of the ranks at work.
  const lane = (await page.locator('.lane canvas').first().getAttribute('aria-label')) ?? ''
  t.regex(lane, /^Rank 0: /)
  // In the order in which they were seen.
  const legend = (await page.locator('#legend').textContent()) ?? ''
  for (const kind of ['projections', 'attention', 'MLP', 'logits and sampling', 'norms, sums, copies', 'waiting: all-reduce of the MLP'])
    t.true(legend.includes(kind), legend)
  await page.locator('#output span[data-index="3"]').hover()
  t.regex((await page.locator('#token-facts').textContent()) ?? '', /^".*" had \d+\.\d %\. Most likely: /)
  // The text scrolls in its box, and the facts stay in the window.
  const box = await page.locator('#output').boundingBox()
  t.true((box?.height ?? 900) < 420, JSON.stringify(box))
  const facts = await page.locator('#token-facts').boundingBox()
  t.true((facts?.y ?? 900) + (facts?.height ?? 0) <= 900, JSON.stringify(facts))
  await page.locator('#output').focus()
  await page.keyboard.press('Home')
  const first = await page.locator('#token-facts').textContent()
  await page.keyboard.press('ArrowRight')
  t.not(await page.locator('#token-facts').textContent(), first)
  const shots = process.env.TETRAD_SCREENSHOTS ?? temporary(t)
  await page.screenshot({ path: join(shots, 'dark.png') })
  await page.emulateMedia({ colorScheme: 'light' })
  await page.setViewportSize({ width: 420, height: 1500 })
  await page.screenshot({ path: join(shots, 'light-narrow.png') })
  await page.getByLabel('Tokens', { exact: true }).fill('800')
  await page.getByLabel('Temperature').fill('1.5')
  await page.getByRole('button', { name: 'Generate' }).click()
  await page.getByRole('button', { name: 'Stop' }).click()
  await page.getByText(/^Stopped after \d+ tokens\.$/).waitFor()
  // Under a schema: forced tokens are marked, and what is no schema is said.
  const schema = {
    type: 'object',
    properties: { name: { type: 'string', maxLength: 12 }, kind: { enum: ['fox', 'hen'] } },
    required: ['name', 'kind'],
  }
  await page.getByText('Hold the output to a JSON schema').click()
  await page.getByLabel('JSON schema').fill('{"type": ')
  await page.getByLabel('Temperature').fill('0.8')
  await page.getByRole('button', { name: 'Generate' }).click()
  await page.getByText(/^Failed: the schema is not JSON/).waitFor()
  await page.getByLabel('JSON schema').fill(JSON.stringify({ not: schema }))
  await page.getByRole('button', { name: 'Generate' }).click()
  await page.getByText(/^Failed: .*not: this keyword/).waitFor()
  await page.getByLabel('JSON schema').fill(JSON.stringify(schema))
  await page.getByRole('button', { name: 'Generate' }).click()
  await page.getByText(/^\d+ tokens, \d+ a second; /).waitFor({ timeout: 60_000 })
  const written = ((await page.locator('#output').textContent()) ?? '').slice('Once upon a time'.length)
  t.deepEqual(Object.keys(JSON.parse(written)), ['name', 'kind'])
  t.true((await page.locator('#output .forced').count()) > 5)
  await page.locator('#output .forced').first().hover()
  t.regex((await page.locator('#token-facts').textContent()) ?? '', /The schema allowed nothing else\.$/)
  for (const [name, width, height] of [
    ['schema-desktop', 1280, 900],
    ['schema-phone', 390, 844],
  ] as const) {
    await page.setViewportSize({ width, height })
    await page.locator('#output .forced').first().hover()
    // Nothing is wider than the window.
    t.is(await page.evaluate('document.documentElement.scrollWidth'), width)
    const shown = await page.locator('#token-facts').boundingBox()
    t.true((shown?.y ?? height) + (shown?.height ?? 0) <= height, JSON.stringify(shown))
    await page.screenshot({ path: join(shots, `${name}.png`), fullPage: true })
  }
  await page.getByLabel('JSON schema').fill('')
  await page.getByLabel('Temperature').fill('-1')
  await page.evaluate(
    () =>
      ((globalThis as unknown as { document: { getElementById(id: string): { noValidate: boolean } } }).document.getElementById('form').noValidate =
        true),
  )
  await page.getByRole('button', { name: 'Generate' }).click()
  await page.getByText(/^Failed: temperature is out of range/).waitFor()
  await until(() => engine.stats().running === 0)
  // Without a key there is nothing to ask for, and no field.
  const open = createServer(new Map([['tiny', { id: 'tiny', engine, template: PLAIN, created: 1 }]]))
  t.teardown(() => open.app.close())
  await page.goto(await open.app.listen({ port: 0, host: '127.0.0.1' }))
  await page.getByText('Connected.', { exact: true }).waitFor()
  t.false(await page.getByLabel('API key').isVisible())
  t.deepEqual(problems, [])
  t.deepEqual(foreign, [])
})
