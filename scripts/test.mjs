// Runs tests. Usage: node scripts/test.mjs quick|full|soak, or compiled test files and flags of ava (also after a tier).
// Tiers are described in test/support/tier.ts. The full tier runs in two ava processes at once, so that two cores stay busy: files that
// mostly wait (for processes, deadlines and silences) one after another in the first, all others in pairs in the second.
// Sets the software GPU driver of Debian's chromium where it is installed: the Vulkan loader reads the environment that a process was
// started with, so a test can't set it.
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'

const DRIVER = '/usr/lib/chromium/vk_swiftshader_icd.json'
const WAITING = /^dist\/test\/(nats|serve|stress)\/.*\.full\.|^dist\/test\/engine\/restart\./
/** Slowest files of the others first: none of them is left for the end, when a core has nothing else to do. */
const SLOWEST = ['gpu/golden', 'variants', 'golden', 'engine/batching', 'gpu/engine', 'bit-identity', 'fuzz/fuzz', 'engine/snapshot']
const SHOWN = 12

const tiers = {
  quick: { files: (path) => !/\.(full|soak)\.test\.js$/.test(path), concurrency: 2 },
  full: { files: (path) => !path.endsWith('.soak.test.js'), concurrency: 2 },
  soak: { files: (path) => path.endsWith('.soak.test.js'), concurrency: 1 },
}

const env = { XDG_RUNTIME_DIR: '/tmp', ...process.env }
if (env.VK_ICD_FILENAMES === undefined && existsSync(DRIVER)) env.VK_ICD_FILENAMES = DRIVER

const [name] = process.argv.slice(2)
const more = process.argv.slice(3)
if (!Object.hasOwn(tiers, name ?? '')) process.exitCode = await ava(process.argv.slice(2), env)
else process.exitCode = more.length > 0 ? await ava(more, env) : await runTier(name)

async function runTier(name) {
  const { files, concurrency } = tiers[name]
  // By their sources: dist keeps what was compiled from files that are gone.
  const sources = readdirSync('test', { recursive: true }).filter((path) => path.endsWith('.test.ts'))
  const all = sources.map((path) => `dist/test/${path.replace(/ts$/, 'js')}`)
  const chosen = all.filter(files).sort((a, b) => rank(a) - rank(b) || a.localeCompare(b))
  const isWaiting = (path) => name === 'full' && WAITING.test(path)
  const lanes = [
    { files: chosen.filter(isWaiting), concurrency: 1 },
    { files: chosen.filter((path) => !isWaiting(path)), concurrency },
  ]
  const folder = mkdtempSync(join(tmpdir(), 'tetrad-times-'))
  const times = join(folder, 'times')
  const laneEnv = { ...env, TETRAD_TEST_TIER: name, TETRAD_TEST_TIMES: times }
  const start = performance.now()
  const codes = await Promise.all(
    lanes.filter((lane) => lane.files.length > 0).map((lane) => ava(['--concurrency', String(lane.concurrency), ...lane.files], laneEnv)),
  )
  const seconds = (performance.now() - start) / 1000
  const timed = existsSync(times)
    ? readFileSync(times, 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line))
    : []
  rmSync(folder, { recursive: true })
  timed.sort(([, a], [, b]) => b - a)
  const sum = timed.reduce((total, [, s]) => total + s, 0)
  console.log(`${name}: ${seconds.toFixed(0)} s, the sum of ${timed.length} files is ${sum.toFixed(0)} s. The slowest:`)
  for (const [file, s] of timed.slice(0, SHOWN)) console.log(`${s.toFixed(1).padStart(8)} s  ${relative('dist/test', file)}`)
  return Math.max(...codes)
}

function rank(path) {
  const at = SLOWEST.findIndex((slow) => path.startsWith(`dist/test/${slow}.`))
  return at === -1 ? SLOWEST.length : at
}

function ava(args, avaEnv) {
  return new Promise((resolve) => {
    spawn(process.execPath, ['node_modules/ava/entrypoints/cli.mjs', ...args], { stdio: 'inherit', env: avaEnv }).on('exit', (code) =>
      resolve(code ?? 1),
    )
  })
}
