// Packs the package, installs the tarball in an empty folder as a user would, and uses it from JavaScript, TypeScript and a
// bundle. Prints sizes and times. Usage: node scripts/check-package.mjs
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const dir = mkdtempSync(join(tmpdir(), 'tetrad-package-'))
const root = resolve('.')
const run = (command, args, cwd = dir) => execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
const tool = (name) => join(root, 'node_modules', '.bin', name)
try {
  const [packed] = JSON.parse(run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', dir], root))
  console.log(
    `${packed.filename}: ${(packed.size / 2 ** 20).toFixed(1)} MiB packed, ${(packed.unpackedSize / 2 ** 20).toFixed(1)} MiB unpacked, ${packed.files.length} files`,
  )
  const surplus = packed.files.filter(
    ({ path }) =>
      !/^(dist\/(src|workers|kernels|bench)\/.*\.(js|d\.ts|wasm)|models\/tiny\/|page\/|docs\/|examples\/|test\/fixtures\/eval\/genesis\.bin$|node_modules\/|package\.json|README\.md|LICENSE)/.test(
        path,
      ),
  )
  if (surplus.length > 0) throw new Error(`not needed in the package: ${surplus.map((f) => f.path).join(', ')}`)
  const tarball = join(dir, packed.filename)
  run(tool('publint'), [tarball, '--strict'], root)
  run(tool('attw'), [tarball, '--profile', 'esm-only'], root)

  writeFileSync(join(dir, 'package.json'), JSON.stringify({ name: 'user', private: true, type: 'module' }))
  const start = performance.now()
  run('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', tarball])
  const seconds = (performance.now() - start) / 1000
  console.log(`installed without scripts in ${seconds.toFixed(1)} s: ${readdirSync(join(dir, 'node_modules')).length} packages at the top`)
  if (seconds > 60) throw new Error('the install took over a minute')

  const program = (annotation) => `
import { Engine${annotation ? ', type Completion' : ''} } from 'tetrad'
const engine = await Engine.load('node_modules/tetrad/models/tiny', { ranks: 2 })
const completion${annotation} = await engine.generate('Once upon a time', { maxTokens: 8 })
console.log(completion.text)
await engine.close()
`
  const expected = ' there was a man who had a wife\n'
  const check = (what, out) => {
    if (out !== expected) throw new Error(`${what} printed ${JSON.stringify(out)}`)
    console.log(`${what}: ok`)
  }
  writeFileSync(join(dir, 'user.js'), program(''))
  check('JavaScript', run('node', ['user.js']))

  writeFileSync(join(dir, 'typed.ts'), program(': Completion'))
  run(tool('tsc'), [
    'typed.ts',
    '--module',
    'nodenext',
    '--target',
    'es2023',
    '--lib',
    'es2024,esnext.disposable',
    '--strict',
    '--types',
    'node',
    '--typeRoots',
    join(root, 'node_modules/@types'),
    '--outDir',
    'out',
  ])
  check('TypeScript', run('node', ['out/typed.js']))

  const bundle = (...flags) =>
    run('node', [
      join(root, 'node_modules/esbuild-wasm/bin/esbuild'),
      'user.js',
      '--bundle',
      '--platform=node',
      '--format=esm',
      '--outfile=out.mjs',
      '--log-level=error',
      ...flags,
    ])
  bundle('--external:tetrad')
  check('esbuild bundle', run('node', ['out.mjs']))
  bundle("--banner:js=import { createRequire as r } from 'node:module'; const require = r(import.meta.url);")
  const { stderr } = spawnSync('node', ['out.mjs'], { cwd: dir, encoding: 'utf8' })
  if (!stderr.includes('keep it out of the bundle')) throw new Error(`a bundle with tetrad inside said: ${stderr}`)
  check('command', run('npx', ['tetrad', 'generate', 'Once upon a time', '--max-tokens', '8']).replace('Once upon a time', ''))
} finally {
  rmSync(dir, { recursive: true, force: true })
}
