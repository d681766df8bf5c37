// Addresses of the Hub as commands and Engine.load take them, against a local server of its API.
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import { ROOT, TINY } from '../support/fixtures.js'
import { localHub } from '../support/local-hub.js'
import { temporary } from '../support/models.js'
import { INDEX } from '../support/program.js'

test('generate, pull and Engine.load take hf:owner/name/folder, and give what the directory gives', async (t) => {
  const hub = await localHub('people/tiny', new Map(readdirSync(TINY).map((name) => [`main/${name}`, readFileSync(join(TINY, name))])))
  t.teardown(() => hub.close())
  const env = { ...process.env, HF_ENDPOINT: hub.url, HF_HUB_CACHE: temporary(t), HF_TOKEN: 'hf_test' }
  const node = (args: readonly string[], more: Record<string, string> = {}) =>
    promisify(execFile)(process.execPath, args, { env: { ...env, ...more }, cwd: '/' })
  const cli = `${ROOT}dist/src/cli.js`
  const few = ['--max-tokens', '4', '--ranks', '1']
  const [expected, first] = await Promise.all([
    node([cli, 'generate', 'The wolf', ...few]),
    node([cli, 'generate', 'The wolf', ...few, '--model', 'hf:people/tiny/main']),
  ])
  t.is(first.stdout, expected.stdout)
  t.regex(first.stderr, /downloaded hf:people\/tiny\/main: 31 MiB/)
  t.true(hub.requests.every(({ authorization }) => authorization === 'Bearer hf_test'))

  const pulled = await node([cli, 'pull', 'hf:people/tiny/main', '--json'])
  const { path, commit, downloadedBytes } = JSON.parse(pulled.stdout) as Record<string, unknown>
  t.is(path, join(env.HF_HUB_CACHE, 'models--people--tiny/snapshots', hub.commit, 'main'))
  t.deepEqual([commit, downloadedBytes], [hub.commit, 0])

  const source = `import { Engine } from ${INDEX}
const engine = await Engine.load('hf:people/tiny/main', { ranks: 1 })
console.log('The wolf' + (await engine.generate('The wolf', { maxTokens: 4 })).text)
await engine.close()`
  const offline = await node(['--input-type=module', '-e', source], { HF_HUB_OFFLINE: '1' })
  t.is(offline.stdout.trim(), expected.stdout.trim())

  const missing = (await t.throwsAsync(node([cli, 'inspect', 'hf:people/tiny/other']))) as Error & { stderr: string }
  t.regex(missing.stderr, /error HUB_NOT_FOUND: people\/tiny at main has no folder other/)
  const wrong = (await t.throwsAsync(node([cli, 'eval', 'perplexity', '/dev/null', '--model', 'hf:x']))) as Error & { stderr: string }
  t.regex(wrong.stderr, /error OPTION_INVALID[\s\S]*remedy: +Write it as in hf:/)
})
