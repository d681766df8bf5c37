// Decoding of models/tiny in Chromium (examples/browser) beside Node, and beside onnxruntime-web, the runtime of transformers.js, in the same
// browser with the same weights as float32. Everything is measured once in each round; the medians are of whole greedy generations.
// Needs Chromium, and installs onnxruntime-web into a temporary folder unless one is given.
// Usage: node dist/bench/diagnostics/browser.js [rounds] [folder with node_modules/onnxruntime-web and onnx-proto]
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Browser, chromium, type Page } from 'playwright-core'
import { convert, Engine } from '../../src/index.js'
import { folderOfProcess, inTurn, machine, median, spread, table } from '../measure.js'
import { writeOnnx } from '../peers/write-onnx.js'
import { TINY } from '../traffic.js'
import { type OrtDecode, ortDecode } from './browser-onnxruntime.js'

const PACKAGES = ['onnxruntime-web@1.30.0', 'onnx-proto@8.0.1']
const PROMPT = 'The wolf and the seven'
const TOKENS = 128
const RANKS = [1, 2] as const
const WEIGHTS = ['bf16', 'f32'] as const
const F32_MODEL = '/models/tiny-packed-f32'

interface Measured {
  readonly tokens: readonly number[]
  readonly tokensPerSecond: number
}

const [count = '7', given] = process.argv.slice(2)
const rounds = Number(count)
const executablePath = ['/usr/bin/chromium', '/usr/bin/google-chrome'].find((path) => existsSync(path))
if (!executablePath || !Number.isInteger(rounds) || rounds < 1) {
  console.error(executablePath ? 'usage: browser.js [rounds] [folder of peers]' : 'no Chromium: apt-get install chromium')
  process.exit(1)
}
const root = fileURLToPath(new URL('../../../', import.meta.url))
const folder = folderOfProcess()
const peers = given ?? installed(join(folder, 'peers'))
const f32 = join(folder, 'tiny-f32')
await convert(TINY, f32, { weights: 'f32' })
const shape = await writeOnnx(join(folder, 'tiny.onnx'), TINY, peers)
const served = new Map([
  ...['config.json', 'tokenizer.json', 'model.safetensors'].map((name) => [`${F32_MODEL}/${name}`, join(f32, name)] as const),
  ...['ort.wasm.min.mjs', 'ort-wasm-simd-threaded.mjs', 'ort-wasm-simd-threaded.wasm'].map(
    (name) => [`/peer/${name}`, join(peers, 'node_modules/onnxruntime-web/dist', name)] as const,
  ),
  ['/peer/tiny.onnx', join(folder, 'tiny.onnx')] as const,
])
const { bundle } = (await import(`${root}examples/browser/build.mjs`)) as { bundle: () => Promise<unknown> }
const { serve } = (await import(`${root}examples/browser/serve.mjs`)) as { serve: (port: number, more: Map<string, string>) => Promise<Server> }
await bundle()
const server = await serve(0, served)
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
const engines = new Map<string, Engine>()
try {
  await compare(browser, `http://127.0.0.1:${(server.address() as AddressInfo).port}/`)
} finally {
  for (const engine of engines.values()) await engine.close()
  await browser.close()
  server.close()
}

async function compare(browser: Browser, url: string): Promise<void> {
  const page = await opened(browser, url)
  await page.evaluate(`tetrad.fetchModel(${JSON.stringify(F32_MODEL)})`)
  // The runtime takes its number of threads once in a page.
  const ortPages = new Map<number, Page>()
  for (const threads of RANKS) ortPages.set(threads, await opened(browser, url))
  for (const ranks of RANKS)
    for (const weights of WEIGHTS)
      engines.set(`${weights} ${ranks}`, await Engine.load(TINY, { ranks, weights, backend: 'wasm', cacheTokens: 2048, maxRunning: 4 }))
  const first = engines.get('f32 1') as Engine
  const prompt = [...(await first.tokenize(PROMPT))]
  const expected = new Map<string, readonly number[]>()
  for (const weights of WEIGHTS) {
    const { tokens } = await (engines.get(`${weights} 1`) as Engine).generate(prompt, { maxTokens: TOKENS, ignoreEos: true })
    expected.set(weights, [...tokens])
  }
  const agreed = (what: string, tokens: readonly number[], weights: string) => {
    const differs = tokens.findIndex((token, i) => token !== expected.get(weights)?.[i])
    if (differs >= 0) throw new Error(`${what}: token ${differs} is another than Node's`)
  }
  const own = (ranks: number, weights: (typeof WEIGHTS)[number]) => ({
    [`Node ${weights} ${ranks}`]: async () => {
      const start = performance.now()
      const { tokens } = await (engines.get(`${weights} ${ranks}`) as Engine).generate(PROMPT, { maxTokens: TOKENS, ignoreEos: true })
      return tokens.length / ((performance.now() - start) / 1000)
    },
    [`browser ${weights} ${ranks}`]: async () => {
      const model = weights === 'f32' ? `, ${JSON.stringify(F32_MODEL)}` : ''
      const { tokens, tokensPerSecond } = (await page.evaluate(`tetrad.measure(${ranks}, ${JSON.stringify(PROMPT)}, ${TOKENS}${model})`)) as Measured
      agreed(`browser, ${weights}, ${ranks} ranks`, tokens, weights)
      return tokensPerSecond
    },
  })
  const theirs = (threads: number) => ({
    [`onnxruntime-web f32 ${threads}`]: async () => {
      const options: OrtDecode = { threads, prompt, count: TOKENS, ...shape }
      const { tokens, tokensPerSecond } = await (ortPages.get(threads) as Page).evaluate(ortDecode, options)
      agreed(`onnxruntime-web, ${threads} threads`, tokens, 'f32')
      return tokensPerSecond
    },
  })
  const results: Record<string, number[]> = await inTurn(
    rounds,
    Object.assign({}, ...RANKS.flatMap((n) => [...WEIGHTS.map((weights) => own(n, weights)), theirs(n)])) as Record<string, () => Promise<number>>,
  )
  const of = (name: string) => results[name] as number[]
  const ratio = (a: string, b: string) => (median(of(a)) / median(of(b))).toFixed(2)
  console.log(`${machine()}, Chromium ${browser.version()}, ${PACKAGES[0]}; ${rounds} rounds, median (p10..p90)`)
  console.log(`models/tiny, ${TOKENS} tokens after ${prompt.length}, greedy; tokens/s. All generate the same tokens.`)
  console.log(
    table([
      ['ranks, threads', 'weights', 'Node', 'Chromium', 'Chromium over Node', 'onnxruntime-web f32', 'Chromium over onnxruntime-web'],
      ...RANKS.flatMap((n) =>
        WEIGHTS.map((weights) => {
          const [node, tab, ort] = [`Node ${weights} ${n}`, `browser ${weights} ${n}`, `onnxruntime-web f32 ${n}`]
          return [String(n), weights, spread(of(node), 0), spread(of(tab), 0), ratio(tab, node), spread(of(ort), 0), ratio(tab, ort)]
        }),
      ),
    ]),
  )
}

async function opened(browser: Browser, url: string): Promise<Page> {
  const page = await browser.newPage()
  await page.goto(url)
  await page.waitForFunction("/ready|failed/.test(document.querySelector('#status').textContent)")
  const status = (await page.textContent('#status')) ?? ''
  if (!status.includes('ready')) throw new Error(status)
  return page
}

function installed(dir: string): string {
  mkdirSync(dir)
  writeFileSync(join(dir, 'package.json'), '{"private":true}')
  execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', ...PACKAGES], { cwd: dir, stdio: 'ignore' })
  return dir
}
