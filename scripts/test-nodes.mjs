// Runs the golden and bit-identity tests under other Node versions, brought by npm. Usage: node scripts/test-nodes.mjs [22 24 ...]
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const versions = process.argv.length > 2 ? process.argv.slice(2) : ['22', '24']
const name = `node-${process.platform}-${process.arch}`
for (const version of versions) {
  const dir = mkdtempSync(join(tmpdir(), 'tetrad-node-'))
  try {
    execFileSync('npm', ['install', '--prefix', dir, '--no-audit', '--no-fund', '--ignore-scripts', `${name}@${version}`], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    const node = join(dir, 'node_modules', name, 'bin', 'node')
    console.log(
      `Node ${execFileSync(node, ['--version'], { encoding: 'utf8' }).trim()}, ${execFileSync(node, ['dist/src/cli.js', 'inspect'], { encoding: 'utf8' }).match(/^key .*$/m)?.[0]}`,
    )
    execFileSync(
      node,
      ['node_modules/ava/entrypoints/cli.mjs', 'dist/test/golden.test.js', 'dist/test/bit-identity.test.js', 'dist/test/kernels/*.test.js'],
      { stdio: 'inherit' },
    )
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}
