// tetrad serve and tetrad chat as processes.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { get, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { ROOT } from '../support/fixtures.js'
import { temporary } from '../support/models.js'
import { until as untilTrue } from '../support/until.js'

function tetrad(t: ExecutionContext, ...args: string[]) {
  const child = spawn(process.execPath, [`${ROOT}dist/src/cli.js`, ...args], { stdio: ['pipe', 'pipe', 'pipe'] })
  t.teardown(() => child.kill('SIGKILL'))
  const output = { out: '', err: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output.out += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output.err += text
  })
  const until = async (stream: 'out' | 'err', pattern: RegExp) => {
    for (let i = 0; i < 600; i++) {
      const found = pattern.exec(output[stream])
      if (found) return found
      await setTimeout(50)
    }
    throw new Error(`no ${pattern} in ${JSON.stringify(output)}`)
  }
  return { child, output, until, ended: once(child, 'exit') as Promise<[number | null]> }
}

test('serve says where it is, answers, and at SIGTERM lets a running answer end', async (t) => {
  const { child, until, ended, output } = tetrad(t, 'serve', '--port', '0', '--ranks', '2', '--api-key', 'k')
  const [, origin] = await until('err', /ready: (\S+)\/v1 serves tiny with an API key/)
  const headers = { authorization: 'Bearer k', 'content-type': 'application/json' }
  const body = JSON.stringify({ model: 'tiny', prompt: 'Once', max_tokens: 300, temperature: 0, ignore_eos: true })
  const running = fetch(`${origin}/v1/completions`, { method: 'POST', headers, body })
  const isRunning = async () => /^vllm:num_requests_running\{[^}]*\} 1$/m.test(await (await fetch(`${origin}/metrics`, { headers })).text())
  await untilTrue(isRunning)
  child.kill('SIGTERM')
  const answer = (await (await running).json()) as { usage: { completion_tokens: number } }
  t.is(answer.usage.completion_tokens, 300)
  t.is((await ended)[0], 0)
  t.true(output.out.includes('"msg":"request completed"'))
  t.false(output.out.includes('Once'), 'a prompt is in the log')
})

test('serve at all addresses: with a key under any name, without one under none but its own', async (t) => {
  for (const [args, status] of [
    [['--api-key', 'k'], 200],
    [[], 403],
    [['--allow-host', 'hub'], 200],
  ] as const) {
    const { child, until, ended } = tetrad(t, 'serve', '--host', '0.0.0.0', '--port', '0', '--ranks', '1', ...args)
    const [, port] = await until('err', /ready: http:\/\/[^ ]*:(\d+)\/v1/)
    const request = get({ host: '127.0.0.1', port, path: '/ready', headers: { host: `hub:${port}` } })
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    response.resume()
    t.is(response.statusCode, status, args.join(' '))
    child.kill('SIGTERM')
    t.is((await ended)[0], 0)
  }
})

test('serve with replicas: they end with it, also when it is killed', async (t) => {
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    const { child, until, ended } = tetrad(t, 'serve', '--port', '0', '--ranks', '1', '--replicas', '2')
    const [, origin] = await until('err', /ready: (\S+)\/v1 serves tiny/)
    const body = JSON.stringify({ model: 'tiny', prompt: 'Once', max_tokens: 4 })
    const response = await fetch(`${origin}/v1/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
    t.is(response.status, 200)
    const children = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ')
    t.is(children.length, 2)
    child.kill(signal)
    const [code] = await ended
    if (signal === 'SIGTERM') t.is(code, 0)
    const alive = () => children.filter((pid) => existsSync(`/proc/${pid}`))
    await untilTrue(() => alive().length === 0)
  }
})

test('chat answers, saves and loads a conversation, and Ctrl-C stops only the answer', async (t) => {
  const file = join(temporary(t), 'talk.json')
  const { child, until, ended } = tetrad(
    t,
    'chat',
    '--ranks',
    '2',
    '--max-tokens',
    '700',
    '--temperature',
    '1.5',
    '--seed',
    '5',
    '--system',
    'You tell stories.',
  )
  await until('err', /\/save FILE/)
  child.stdin.write('Tell me of the sea.\n')
  await until('out', /\S/)
  child.kill('SIGINT')
  await until('err', /cached, stopped\]|prompt tokens were cached\]/)
  child.stdin.write(`/save ${file}\n`)
  await until('err', /saved 3 messages/)
  const saved = JSON.parse(readFileSync(file, 'utf8')) as { role: string; content: string }[]
  t.deepEqual(
    saved.map((m) => m.role),
    ['system', 'user', 'assistant'],
  )
  child.stdin.write(`/reset\n/load ${file}\n/load ${file}.not\n/nonsense\n`)
  await until('err', /3 messages from/)
  await until('err', /could not be read/)
  child.stdin.write('/exit\n')
  t.is((await ended)[0], 0)
})

test('invalid options of serve are refused before anything is loaded', async (t) => {
  for (const [args, expected] of [
    [['--port', '99999'], /port is out of range/],
    [['--replicas', '0'], /replicas is out of range/],
    [['--json'], /serve has no --json/],
    [['--model', 'a=/nowhere', '--model', 'a=/elsewhere'], /two models are called a/],
    [['--model', 'a=/nowhere'], /MODEL_NOT_FOUND/],
  ] as const) {
    const { ended, output } = tetrad(t, 'serve', ...args)
    t.is((await ended)[0], 1)
    t.regex(output.err, expected)
  }
})
