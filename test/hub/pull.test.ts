// Models of the Hub, from a local server of its API: what is fetched, continued, checked, kept and refused.
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { HubError, OptionError, TetradError } from '../../src/errors.js'
import { parseHubAddress } from '../../src/hub/hub-address.js'
import type { HubSettings } from '../../src/hub/hub-settings.js'
import { pullWith } from '../../src/hub/pull.js'
import type { DownloadProgress } from '../../src/options/public-types.js'
import { TINY } from '../support/fixtures.js'
import { gitHash, type LocalHub, localHub, refuse, sha256 } from '../support/local-hub.js'
import { temporary } from '../support/models.js'

const REPO = 'people/tiny'

/** models/tiny in a folder, beside files that a model does not need. */
function tinyRepository(): Map<string, Buffer> {
  const files = new Map(readdirSync(TINY).map((name) => [`main/tiny/${name}`, readFileSync(join(TINY, name))]))
  files.set('main/tiny/README.md', Buffer.from('# tiny'))
  files.set('main/tiny/training_args.bin', Buffer.from('not needed'))
  files.set('README.md', Buffer.from('# models'))
  return files
}

/** A model of one safetensors file; the bytes need not be one, since nothing loads it. */
function smallRepository(): Map<string, Buffer> {
  return new Map([
    ['config.json', Buffer.from('{"vocab_size": 1}')],
    ['model.safetensors', Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 251))],
    ['pytorch_model.bin', Buffer.from('the same in another format')],
    ['tokenizer.json', Buffer.from('{}')],
  ])
}

async function served(t: ExecutionContext, files: ReadonlyMap<string, Buffer>): Promise<{ hub: LocalHub; settings: HubSettings; cache: string }> {
  const hub = await localHub(REPO, files)
  t.teardown(() => hub.close())
  const cacheDir = temporary(t)
  return {
    hub,
    settings: { endpoint: hub.url, cacheDir, token: undefined, offline: false, stallMs: 2000, retryMs: 1 },
    cache: join(cacheDir, 'models--people--tiny'),
  }
}

const address = (rest = '') => parseHubAddress(`hf:${REPO}${rest}`)
const failure = (t: ExecutionContext, run: Promise<unknown>, code: string, message: RegExp) =>
  t.throwsAsync(run, { instanceOf: TetradError, code, message })

test('a model in a folder is fetched once, only the files that it needs, in the layout of the cache of huggingface_hub', async (t) => {
  const { hub, settings, cache } = await served(t, tinyRepository())
  const progress: DownloadProgress[] = []
  const first = await pullWith(address('/main/tiny'), settings, (p) => progress.push(p))
  t.is(first.path, join(cache, 'snapshots', hub.commit, 'main/tiny'))
  t.deepEqual(readdirSync(first.path).sort(), readdirSync(TINY).sort())
  for (const name of readdirSync(TINY)) {
    const bytes = readFileSync(join(TINY, name))
    t.true(readFileSync(join(first.path, name)).equals(bytes), name)
    t.is(readlinkSync(join(first.path, name)), `../../../../blobs/${name.endsWith('.bin') ? sha256(bytes) : gitHash(bytes)}`)
  }
  t.is(readFileSync(join(cache, 'refs/main'), 'utf8'), hub.commit)
  t.is(progress.at(-1)?.downloadedBytes, first.downloadedBytes)
  t.is(progress.at(-1)?.totalBytes, first.downloadedBytes)
  t.is(progress.at(-1)?.secondsLeft, 0)
  t.true(progress.every(({ downloadedBytes, totalBytes }) => downloadedBytes <= totalBytes))

  const before = hub.requests.length
  const second = await pullWith(address('/main/tiny'), settings)
  t.deepEqual(second, { ...first, downloadedBytes: 0 })
  t.is(hub.requests.length - before, 2, 'the revision and the listing')
})

test('safetensors are preferred to pytorch_model.bin; a tokenizer.model is fetched only where there is no tokenizer.json', async (t) => {
  const files = smallRepository().set('tokenizer.model', Buffer.from('sentencepiece'))
  const { hub, settings } = await served(t, files)
  const { path } = await pullWith(address(), settings)
  t.deepEqual(readdirSync(path).sort(), ['config.json', 'model.safetensors', 'tokenizer.json'])
  hub.files.delete('tokenizer.json')
  hub.commit = 'd'.repeat(40)
  const other = await pullWith(address(), settings)
  t.deepEqual(readdirSync(other.path).sort(), ['config.json', 'model.safetensors', 'tokenizer.model'])
})

test('a download that is cut continues with a range, in the same run and in the next', async (t) => {
  const { hub, settings, cache } = await served(t, smallRepository())
  const weights = hub.files.get('model.safetensors') as Buffer
  hub.cuts.push(100_000, 50_000)
  const { path } = await pullWith(address(), settings)
  t.true(readFileSync(join(path, 'model.safetensors')).equals(weights))
  const ranges = hub.cdnRequests.map(({ range }) => range)
  t.is(ranges.length, 3)
  t.is(ranges[0], undefined)
  t.true(
    ranges.slice(1).every((range) => /^bytes=[1-9]\d*-$/.test(range ?? '')),
    ranges.join(),
  )

  // The process ended: what it left is continued, and its hash is that of the whole.
  rmSync(cache, { recursive: true })
  mkdirSync(join(cache, 'blobs'), { recursive: true })
  writeFileSync(join(cache, 'blobs', `${sha256(weights)}.incomplete`), weights.subarray(0, 123_456))
  const again = await pullWith(address(), settings)
  t.is(hub.cdnRequests.at(-1)?.range, 'bytes=123456-')
  t.true(readFileSync(join(again.path, 'model.safetensors')).equals(weights))
  t.is(again.downloadedBytes, [...hub.files].filter(([name]) => !name.endsWith('.bin')).reduce((sum, [, bytes]) => sum + bytes.length, 0) - 123_456)
})

test('what an earlier run left of another file is fetched again from the start; a wrong hash is refused and not kept', async (t) => {
  const { hub, settings, cache } = await served(t, smallRepository())
  const weights = hub.files.get('model.safetensors') as Buffer
  mkdirSync(join(cache, 'blobs'), { recursive: true })
  writeFileSync(join(cache, 'blobs', `${sha256(weights)}.incomplete`), Buffer.alloc(1000, 1))
  const { path } = await pullWith(address(), settings)
  t.true(readFileSync(join(path, 'model.safetensors')).equals(weights))

  rmSync(cache, { recursive: true })
  const wrong = Buffer.from(weights)
  wrong[5] = (wrong[5] as number) ^ 1
  hub.intercept = ({ path: asked }, response) =>
    asked.startsWith('/cdn/') && response.writeHead(200, { 'content-length': wrong.length }).end(wrong) !== undefined
  await failure(t, pullWith(address(), settings), 'HUB_INVALID', /model\.safetensors has another hash/)
  t.deepEqual(
    readdirSync(join(cache, 'blobs')).filter((name) => name.length !== 40),
    [],
  )
  t.false(existsSync(join(cache, 'refs/main')), 'a revision that is not complete is not recorded')
})

test('a server that does not answer, or stops within a file, is given up after its deadline', async (t) => {
  const { hub, settings } = await served(t, smallRepository())
  const impatient = { ...settings, stallMs: 50 }
  hub.intercept = ({ path }, response) => path.startsWith('/cdn/') && response.writeHead(200, { 'content-length': 300_000 }).write('x') !== undefined
  await failure(t, pullWith(address(), impatient), 'HUB_UNREACHABLE', /no byte in 0\.05 s[\s\S]*what was downloaded is kept/)
  hub.intercept = () => true
  await failure(t, pullWith(address(), impatient), 'HUB_UNREACHABLE', /no byte in 0\.05 s/)
})

test('a status that may pass is tried again; a link that is cut for good is told', async (t) => {
  const { hub, settings } = await served(t, smallRepository())
  let refusals = 3
  hub.intercept = (_, response) => refusals-- > 0 && refuse(response, 503)
  await t.notThrowsAsync(pullWith(address(), settings))
  await hub.close()
  const other = { ...settings, cacheDir: temporary(t) }
  await failure(t, pullWith(address(), other), 'HUB_UNREACHABLE', /ECONNREFUSED[\s\S]*Check the network/)
})

test('401, 403 and 404 say what is refused or missing, and what to do', async (t) => {
  const { hub, settings } = await served(t, smallRepository())
  await failure(t, pullWith(parseHubAddress('hf:nobody/nothing'), settings), 'HUB_DENIED', /no nobody\/nothing[\s\S]*Check the name.*HF_TOKEN/)
  await failure(t, pullWith(address('@v9'), settings), 'HUB_NOT_FOUND', /has no revision v9/)
  await failure(t, pullWith(address('/nowhere'), settings), 'HUB_NOT_FOUND', /has no folder nowhere/)
  await failure(t, pullWith(address('/x.gguf'), settings), 'HUB_NOT_FOUND', /no x\.gguf/)
  hub.files.delete('config.json')
  await failure(t, pullWith(address(), settings), 'HUB_NOT_FOUND', /no config\.json/)
  const withToken = { ...settings, token: 'hf_secret' }
  for (const [status, code, expected, error] of [
    [403, 'GatedRepo', /is not open to everybody[\s\S]*Ask for access/, 'HUB_DENIED'],
    [401, 'GatedRepo', /is not open to everybody/, 'HUB_DENIED'],
    [401, undefined, /does not accept the token[\s\S]*Set HF_TOKEN/, 'HUB_DENIED'],
    [404, 'RepoNotFound', /no repository people\/tiny/, 'HUB_NOT_FOUND'],
    [418, undefined, /refused a request[\s\S]*HF_ENDPOINT/, 'HUB_INVALID'],
  ] as const) {
    hub.intercept = (_, response) => refuse(response, status, code)
    const thrown = await failure(t, pullWith(address(), withToken), error, expected)
    t.false(thrown?.message.includes('hf_secret'))
  }
})

test('the token goes to the Hub, and to no other server', async (t) => {
  const { hub, settings } = await served(t, smallRepository())
  await pullWith(address(), { ...settings, token: 'hf_secret' })
  t.true(hub.requests.every(({ authorization }) => authorization === 'Bearer hf_secret'))
  t.true(hub.cdnRequests.length > 0)
  t.true(hub.cdnRequests.every(({ authorization }) => authorization === undefined))
  // A listing whose next page is elsewhere.
  hub.commit = 'a'.repeat(40)
  hub.intercept = ({ path }, response) =>
    path.includes('/tree/') &&
    response.writeHead(200, { 'content-type': 'application/json', link: '<http://127.0.0.2:1/x>; rel="next"' }).end('[]') !== undefined
  await failure(t, pullWith(address(), { ...settings, token: 'hf_secret' }), 'HUB_INVALID', /names another server/)
})

test('names in a listing or an index never lead out of the cache', async (t) => {
  const { hub, settings, cache } = await served(t, smallRepository())
  const lfs = { oid: 'e'.repeat(64), size: 4, pointerSize: 1 }
  const evil = ['../../../../evil/config.json', '/etc/config.json', '..\\config.json', 'C:\\config.json', './../model.safetensors']
  hub.extraEntries = evil.map((path) => ({ type: 'file', path, size: 4, oid: 'f'.repeat(40), lfs }))
  const { path } = await pullWith(address(), settings)
  t.deepEqual(readdirSync(path).sort(), ['config.json', 'model.safetensors', 'tokenizer.json'])
  t.deepEqual(readdirSync(settings.cacheDir), ['models--people--tiny'])

  hub.extraEntries = [{ type: 'file', path: 'generation_config.json', size: 4, oid: '../../../../x' }]
  hub.commit = 'b'.repeat(40)
  await failure(t, pullWith(address(), settings), 'HUB_INVALID', /without a size and a hash/)

  hub.extraEntries = []
  hub.commit = '../../x'
  await failure(t, pullWith(address(), settings), 'HUB_INVALID', /names no commit/)

  hub.commit = '9'.repeat(40)
  hub.files.delete('model.safetensors')
  hub.files.set('model.safetensors.index.json', Buffer.from('{"weight_map": {"a": "../../../x.safetensors"}}'))
  await failure(t, pullWith(address(), settings), 'CHECKPOINT_INVALID', /names "\.\.\/\.\.\/\.\.\/x\.safetensors"/)
  t.deepEqual(readdirSync(cache).sort(), ['blobs', 'refs', 'snapshots'])
})

test('offline, the cache is used if it has all of the model, and an error says what is missing', async (t) => {
  const { hub, settings, cache } = await served(t, tinyRepository())
  const offline = { ...settings, offline: true }
  await failure(t, pullWith(address('/main/tiny'), offline), 'HUB_UNREACHABLE', /is not in the cache[\s\S]*Unset HF_HUB_OFFLINE/)
  const { path, commit } = await pullWith(address('/main/tiny'), settings)
  const requests = hub.requests.length
  t.deepEqual(await pullWith(address('/main/tiny'), offline), { path, commit, downloadedBytes: 0 })
  t.deepEqual(await pullWith(address(`@${commit}/main/tiny`), settings), { path, commit, downloadedBytes: 0 })
  t.is(hub.requests.length, requests, 'a commit never changes')
  rmSync(join(path, 'pytorch_model-00002-of-00003.bin'))
  await failure(t, pullWith(address('/main/tiny'), offline), 'HUB_UNREACHABLE', /is not in the cache/)
  // The blob is still there: it is linked again, and not fetched.
  const linked = await pullWith(address('/main/tiny'), settings)
  t.is(linked.downloadedBytes, 0)
  t.true(lstatSync(join(path, 'pytorch_model-00002-of-00003.bin')).isSymbolicLink())
  await hub.close()
  const warned = new Promise<Error>((resolve) => process.once('warning', resolve))
  t.is((await pullWith(address('/main/tiny'), settings)).path, path)
  t.regex((await warned).message, /cannot be reached .* is what the cache has/)
  t.true(existsSync(join(cache, 'refs/main')))
})

test('what Python has downloaded is found', async (t) => {
  const { hub, settings, cache } = await served(t, smallRepository())
  const snapshot = join(cache, 'snapshots', hub.commit)
  mkdirSync(snapshot, { recursive: true })
  mkdirSync(join(cache, 'blobs'))
  for (const name of ['config.json', 'model.safetensors', 'tokenizer.json']) {
    const bytes = hub.files.get(name) as Buffer
    const hash = name.endsWith('.json') ? gitHash(bytes) : sha256(bytes)
    writeFileSync(join(cache, 'blobs', hash), bytes)
    symlinkSync(`../../blobs/${hash}`, join(snapshot, name))
  }
  t.deepEqual(await pullWith(address(), settings), { path: snapshot, commit: hub.commit, downloadedBytes: 0 })
})

test('one .gguf file is the model; of several one must be named', async (t) => {
  const { hub, settings } = await served(t, new Map([['a-Q8_0.gguf', Buffer.from('GGUF')]]))
  t.true((await pullWith(address(), settings)).path.endsWith('/a-Q8_0.gguf'))
  hub.files.set('a-F16.gguf', Buffer.from('GGUF, too'))
  hub.commit = 'a'.repeat(40)
  await failure(t, pullWith(address(), settings), 'HUB_NOT_FOUND', /holds 2 \.gguf files[\s\S]*Name one: hf:people\/tiny\/a-Q8_0\.gguf/)
  const { path } = await pullWith(address('/a-F16.gguf'), settings)
  t.is(readFileSync(path, 'utf8'), 'GGUF, too')
})

test('a signal stops a download, which continues later', async (t) => {
  const { hub, settings } = await served(t, smallRepository())
  const stop = new AbortController()
  hub.intercept = ({ path }, response) => {
    if (!path.startsWith('/cdn/')) return false
    response.writeHead(200, { 'content-length': 300_000 }).write((hub.files.get('model.safetensors') as Buffer).subarray(0, 5000))
    setTimeout(() => stop.abort(), 50)
    return true
  }
  await failure(t, pullWith(address(), settings, undefined, stop.signal), 'LOAD_ABORTED', /what was downloaded is kept/)
  hub.intercept = () => false
  await pullWith(address(), settings)
  t.is(hub.cdnRequests.at(-1)?.range, 'bytes=5000-')
})

test('a cache that cannot be written to is told, with what to do', async (t) => {
  const { settings } = await served(t, smallRepository())
  const file = join(temporary(t), 'file')
  writeFileSync(file, '')
  await failure(t, pullWith(address(), { ...settings, cacheDir: file }), 'OUTPUT_FAILED', /cannot write to the cache[\s\S]*HF_HUB_CACHE/)
})

test('a disk that is full, or will be, is told', async (t) => {
  const { hub, settings, cache } = await served(t, smallRepository())
  const huge = 2 ** 50
  hub.extraEntries = [{ type: 'file', path: 'tokenizer_config.json', size: huge, oid: 'f'.repeat(40) }]
  await failure(t, pullWith(address(), settings), 'OUTPUT_FAILED', /room for 1073741\d+ MiB; actual \d+ MiB free/)
  if (!existsSync('/dev/full')) return
  hub.extraEntries = []
  symlinkSync('/dev/full', join(cache, 'blobs', `${sha256(hub.files.get('model.safetensors') as Buffer)}.incomplete`))
  await failure(t, pullWith(address(), settings), 'OUTPUT_FAILED', /its disk is full[\s\S]*Free space, or set HF_HUB_CACHE/)
})

test('an address that is none is refused before anything is asked', (t) => {
  for (const wrong of [
    'hf:',
    'hf:gpt2',
    'hf:a/b@',
    'hf:a/..',
    'hf:../b',
    'hf:a/b/../c',
    'hf:a/b//c',
    'hf:a/b/c?x',
    'hf:a/b@../../x',
    'hf:a--b/c',
    'hf:a/b/c\\d',
    'hf:a/b/\0',
  ]) {
    t.throws(() => parseHubAddress(wrong), { instanceOf: OptionError, code: 'OPTION_INVALID', message: /Write it as in hf:/ }, wrong)
  }
  t.like(parseHubAddress('hf:a/b@refs%2Fpr%2F1/main/x/'), { repo: 'a/b', revision: 'refs/pr/1', folder: 'main/x', file: undefined })
  t.like(parseHubAddress('hf:a/b/q/x.gguf'), { repo: 'a/b', revision: 'main', folder: 'q', file: 'x.gguf' })
  t.true(new HubError('HUB_INVALID', { what: 'x', remedy: 'y' }) instanceof TetradError)
})
