// Runs tests. Usage: node scripts/test.mjs quick|full|soak, or compiled test files and flags of ava (also after a tier).
// Tiers are described in test/support/tier.ts. Each file runs in an ava process of its own, two at a time, and one more that mostly waits
// (for processes, deadlines and silences), so that two cores stay busy. Of those with a software GPU, which takes all cores, one at a time. ava itself runs one file after another where tests are serial.
// Sets the software GPU driver of Debian's chromium where it is installed: the Vulkan loader reads the environment that a process was
// started with, so a test can't set it.
import { spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'

const DRIVER = '/usr/lib/chromium/vk_swiftshader_icd.json'
const SOFTWARE_GPU = /^gpu\/.*\.full$/
const WAITING = /^(nats|serve|stress)\/.*\.full\.|^engine\/restart\./
/** The longest files first: none of them is left for the end, when a core has nothing else to do. */
const LONGEST = [
  'gpu/golden.full',
  'gpu/engine.full',
  'eval/eval.full',
  'variants',
  'engine/batching',
  'bit-identity',
  'lora/logits',
  'engine/partition',
  'engine/draft',
  'gpu/families.full',
  'golden',
  'checkpoint/convert.full',
  'fuzz/fuzz.full',
]
const SHOWN = 12

const TIERS = {
  quick: { has: (file) => !/\.(full|soak)$/.test(file), workers: 2 },
  full: { has: (file) => !file.endsWith('.soak'), workers: 2 },
  soak: { has: (file) => file.endsWith('.soak'), workers: 1 },
}

const env = { XDG_RUNTIME_DIR: '/tmp', ...process.env }
if (env.VK_ICD_FILENAMES === undefined && existsSync(DRIVER)) env.VK_ICD_FILENAMES = DRIVER

const [name = '', ...more] = process.argv.slice(2)
if (!Object.hasOwn(TIERS, name)) process.exitCode = (await ava(process.argv.slice(2), env, 'inherit')).code
else if (more.length > 0) process.exitCode = (await ava(more, env, 'inherit')).code
else process.exitCode = await runTier(name)

async function runTier(tier) {
  const { has, workers } = TIERS[tier]
  // By their sources: dist keeps what was compiled from files that are gone.
  const sources = readdirSync('test', { recursive: true }).filter((path) => path.endsWith('.test.ts'))
  const files = sources.map((path) => path.slice(0, -'.test.ts'.length)).filter(has)
  files.sort((a, b) => order(a) - order(b) || a.localeCompare(b))
  const isWaiting = (file) => tier === 'full' && WAITING.test(`${file}.`)
  const onGpu = files.filter((file) => SOFTWARE_GPU.test(file))
  const waiting = files.filter(isWaiting)
  const others = files.filter((file) => !onGpu.includes(file) && !waiting.includes(file))
  const results = []
  const work = async (...queues) => {
    const next = () => queues.find((queue) => queue.length > 0)?.shift()
    for (let file = next(); file !== undefined; file = next()) {
      const start = performance.now()
      const { code, output } = await ava([`dist/test/${file}.test.js`], { ...env, TETRAD_TEST_TIER: tier }, 'pipe')
      const seconds = (performance.now() - start) / 1000
      results.push({ file, code, seconds, tests: Number(/(\d+) tests? passed/.exec(output)?.[1] ?? 0) })
      console.log(`${code === 0 ? 'ok' : 'FAILED'}  ${file} (${seconds.toFixed(1)} s)\n${output.trim()}\n`)
    }
  }
  const start = performance.now()
  const [first, ...more] = Array.from({ length: workers }, () => [others])
  await Promise.all([work(onGpu, ...(first ?? [])), ...more.map((queues) => work(...queues)), work(waiting)])
  const seconds = (performance.now() - start) / 1000
  const sum = (of) => results.reduce((total, result) => total + result[of], 0)
  results.sort((a, b) => b.seconds - a.seconds)
  console.log(
    `${tier}: ${sum('tests')} tests passed in ${seconds.toFixed(0)} s; the ${results.length} files took ${sum('seconds').toFixed(0)} s. The longest:`,
  )
  for (const { file, seconds: s } of results.slice(0, SHOWN)) console.log(`${s.toFixed(1).padStart(8)} s  ${file}`)
  const failed = results.filter(({ code }) => code !== 0)
  if (failed.length > 0) console.log(`FAILED: ${failed.map(({ file }) => file).join(', ')}`)
  return failed.length === 0 ? 0 : 1
}

function order(file) {
  const at = LONGEST.indexOf(file)
  return at === -1 ? LONGEST.length : at
}

/** Runs ava; with 'pipe' its output is returned, both streams together. */
function ava(args, avaEnv, output) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['node_modules/ava/entrypoints/cli.mjs', ...args], { stdio: ['ignore', output, output], env: avaEnv })
    let text = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (part) => {
        text += part
      })
    }
    child.on('close', (code) => resolve({ code: code ?? 1, output: text }))
  })
}
