// Packs the package, installs the tarball in an empty folder as a user does, and uses it from JavaScript, TypeScript, a bundle
// and the command line. Prints sizes and times. Usage: node scripts/check-package.mjs
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative, resolve } from 'node:path'

/** Bytes of the tarball. 25.6 MB of it are the embedded model. */
const MAX_PACKED = 30e6
const EXPECTED_FILES =
  /^(dist\/(src|workers|kernels|bench)\/.*\.(js|d\.ts|wasm)|models\/tiny\/|page\/|docs\/|examples\/|test\/fixtures\/eval\/genesis\.bin$|node_modules\/|package\.json|README\.md|LICENSE)/
/** Packages that may run a script at install: Dawn's only removes macOS's quarantine mark. */
const MAY_RUN_SCRIPTS = ['webgpu']

const dir = mkdtempSync(join(tmpdir(), 'tetrad-package-'))
const root = resolve('.')
const run = (command, args, cwd = dir) => execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
const tool = (name) => join(root, 'node_modules', '.bin', name)
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`

try {
  checkInstalled(pack())
  checkPrograms()
  checkTypes()
  checkBundles()
  checkCommands()
} finally {
  rmSync(dir, { recursive: true, force: true })
}

/** Packs into `dir`, and checks the tarball's size and files. Returns its path. */
function pack() {
  const [packed] = JSON.parse(run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', dir], root))
  console.log(`${packed.filename}: ${megabytes(packed.size)} packed, ${megabytes(packed.unpackedSize)} unpacked, ${packed.files.length} files`)
  if (packed.size > MAX_PACKED) throw new Error(`the tarball has ${megabytes(packed.size)}; at most ${megabytes(MAX_PACKED)} are allowed`)
  const surplus = packed.files.filter(({ path }) => !EXPECTED_FILES.test(path) || path.startsWith('dist/bench/diagnostics/'))
  if (surplus.length > 0) throw new Error(`not needed in the package: ${surplus.map((f) => f.path).join(', ')}`)
  // tsc does not remove the output of a source that is gone.
  const sourceOf = (path) => path.replace(/^dist\//, '').replace(/(\.d\.ts|\.js)$/, '.ts')
  const stale = packed.files.filter(({ path }) => /^dist\/.*\.(js|d\.ts)$/.test(path) && !existsSync(join(root, sourceOf(path))))
  if (stale.length > 0) throw new Error(`remove dist and build again: no sources of ${stale.map((f) => f.path).join(', ')}`)
  const tarball = join(dir, packed.filename)
  run(tool('publint'), [tarball, '--strict'], root)
  run(tool('attw'), [tarball, '--profile', 'esm-only'], root)
  return tarball
}

/** Installs with npm's defaults. No package may compile, or run a script that is not known here. */
function checkInstalled(tarball) {
  writeFileSync(join(dir, 'package.json'), JSON.stringify({ name: 'user', private: true, type: 'module' }))
  const start = performance.now()
  const { status, stderr } = spawnSync('npm', ['install', '--no-audit', '--no-fund', tarball], { cwd: dir, encoding: 'utf8' })
  if (status !== 0) throw new Error(`npm install failed: ${stderr}`)
  if (/EBADENGINE/.test(stderr)) throw new Error(`npm install warned of an unsupported Node version: ${stderr}`)
  const seconds = (performance.now() - start) / 1000
  const files = readdirSync(join(dir, 'node_modules'), { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const paths = files.map((entry) => join(entry.parentPath, entry.name))
  const bytes = paths.reduce((sum, path) => sum + statSync(path).size, 0)
  console.log(`installed in ${seconds.toFixed(1)} s: ${megabytes(bytes)}`)
  const compiled = paths.filter((path) => path.endsWith('binding.gyp'))
  if (compiled.length > 0) throw new Error(`needs a compiler: ${compiled.map((path) => relative(dir, path)).join(', ')}`)
  for (const path of paths.filter((path) => /node_modules\/(@[^/]+\/)?[^/]+\/package\.json$/.test(path.replaceAll('\\', '/')))) {
    const { name, scripts = {} } = JSON.parse(readFileSync(path, 'utf8'))
    const script = ['preinstall', 'install', 'postinstall'].find((event) => scripts[event] !== undefined)
    if (script && !MAY_RUN_SCRIPTS.includes(name)) throw new Error(`${name} runs a script at install: ${scripts[script]}`)
  }
  const copies = paths.filter((path) => path.endsWith('dawn.node')).map((path) => dirname(dirname(dirname(path))))
  if (new Set(copies).size !== 1) throw new Error(`Dawn is installed more than once: ${[...new Set(copies)].join(', ')}`)
  if (existsSync(join(dir, 'node_modules', 'vega'))) throw new Error('vega is a development dependency, and was installed')
}

function program(directory, annotation = '') {
  return `
import { Engine${annotation ? ', type Completion' : ''} } from 'tetrad'
const engine = await Engine.load(${directory})
const completion${annotation} = await engine.generate('Once upon a time', { maxTokens: 8 })
console.log(completion.text)
await engine.close()
`
}

function checkOutput(what, out) {
  if (out !== ' there was a man who had a wife\n') throw new Error(`${what} printed ${JSON.stringify(out)}`)
  console.log(`${what}: ok`)
}

function checkPrograms() {
  writeFileSync(join(dir, 'user.js'), program("'node_modules/tetrad/models/tiny', { ranks: 2 }"))
  checkOutput('JavaScript', run('node', ['user.js']))
  writeFileSync(join(dir, 'embedded.js'), program(''))
  checkOutput('JavaScript, the embedded model', run('node', ['embedded.js']))
}

function checkTypes() {
  writeFileSync(join(dir, 'typed.ts'), program("'node_modules/tetrad/models/tiny'", ': Completion'))
  const types = ['--types', 'node', '--typeRoots', join(root, 'node_modules/@types')]
  const target = ['--module', 'nodenext', '--target', 'es2023', '--lib', 'es2024,esnext.disposable', '--strict']
  run(tool('tsc'), ['typed.ts', ...target, ...types, '--outDir', 'out'])
  checkOutput('TypeScript', run('node', ['out/typed.js']))
}

function checkBundles() {
  const esbuild = join(root, 'node_modules/esbuild-wasm/bin/esbuild')
  const bundle = (...flags) =>
    run('node', [esbuild, 'user.js', '--bundle', '--platform=node', '--format=esm', '--outfile=out.mjs', '--log-level=error', ...flags])
  bundle('--external:tetrad')
  checkOutput('esbuild bundle', run('node', ['out.mjs']))
  bundle("--banner:js=import { createRequire as r } from 'node:module'; const require = r(import.meta.url);")
  const { stderr } = spawnSync('node', ['out.mjs'], { cwd: dir, encoding: 'utf8' })
  if (!stderr.includes('keep it out of the bundle')) throw new Error(`a bundle with tetrad inside said: ${stderr}`)
}

function checkCommands() {
  checkOutput('command', run('npx', ['tetrad', 'generate', 'Once upon a time', '--max-tokens', '8']).replace('Once upon a time', ''))
  const names = run('npx', ['tetrad', 'bench'])
  if (!/^scaling +What/m.test(names)) throw new Error(`npx tetrad bench printed ${JSON.stringify(names)}`)
  const { rows } = JSON.parse(run('npx', ['tetrad', 'bench', 'load', '--quick', '--rounds', '1', '--json']))
  if (rows.length !== 3) throw new Error(`npx tetrad bench load has ${rows.length} rows`)
  console.log('bench: ok')
}
