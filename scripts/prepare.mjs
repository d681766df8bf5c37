// npm runs this after `npm install` in a clone, and npx runs it before every `npx tetrad` in a clone. It builds only what is
// missing or older than its sources: a whole build takes about 15 s, and npx hides its output.
import { spawnSync } from 'node:child_process'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'

const WASM = ['dist/kernels/wasm/tetrad.wasm', 'dist/kernels/wasm/tetrad-relaxed.wasm', 'dist/bench/probe.wasm', 'dist/bench/probe-relaxed.wasm']
/** Each script, with the files and folders it reads, and files that it writes. */
const STEPS = [
  { script: 'build:wasm', sources: ['kernels/wasm/assembly', 'bench/assembly', 'scripts/build-wasm.mjs'], outputs: WASM },
  {
    script: 'build:ts',
    sources: ['src', 'workers', 'kernels', 'bench', 'test', 'tsconfig.json'],
    outputs: ['dist/src/cli.js', 'dist/src/index.js'],
  },
]

/** Modification time of the newest source file at or below a path, in ms. */
function newest(path) {
  if (!statSync(path).isDirectory()) return statSync(path).mtimeMs
  const files = readdirSync(path, { recursive: true }).filter((name) => name.endsWith('.ts'))
  return files.reduce((latest, name) => Math.max(latest, statSync(join(path, name)).mtimeMs), 0)
}

/** Modification time of the oldest of these files, in ms; 0 if one is missing. */
function oldest(files) {
  return Math.min(...files.map((file) => statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0))
}

const stale = STEPS.filter(({ sources, outputs }) => oldest(outputs) < Math.max(...sources.map(newest)))
if (stale.length > 0) console.error(`tetrad: dist/ is missing or older than its sources; running ${stale.map((s) => s.script).join(' and ')}`)
for (const { script } of stale) {
  const { status } = spawnSync('npm', ['run', script], { stdio: 'inherit', shell: process.platform === 'win32' })
  if (status !== 0) process.exit(status ?? 1)
}
