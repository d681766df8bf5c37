// Commands as a user types them: where a prompt comes from, what is checked before anything is loaded, and the terminal's small manners.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { text as readAll } from 'node:stream/consumers'
import test from 'ava'
import { SoftWrap } from '../src/commands/soft-wrap.js'
import { FIXTURES, ROOT, TINY } from './support/fixtures.js'
import { temporary } from './support/models.js'
import { full } from './support/tier.js'

/** stdin: undefined is /dev/null. */
async function tetrad(args: readonly string[], stdin?: string): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [`${ROOT}dist/src/cli.js`, ...args], {
    cwd: '/',
    stdio: [stdin === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  })
  child.stdin?.end(stdin)
  const [stdout, stderr, [code]] = await Promise.all([
    readAll(child.stdout as NonNullable<typeof child.stdout>),
    readAll(child.stderr as NonNullable<typeof child.stderr>),
    once(child, 'exit') as Promise<[number | null]>,
  ])
  return { code, stdout, stderr }
}

const FEW = ['--max-tokens', '5', '--ranks', '1']

full('a prompt comes from an argument, a pipe, - or a file; without any of them it is the default', async (t) => {
  const expected = (await tetrad(['generate', 'The wolf', ...FEW])).stdout
  t.true(expected.startsWith('The wolf'))
  t.is((await tetrad(['generate', ...FEW], 'The wolf\n')).stdout, expected)
  t.is((await tetrad(['generate', '-', ...FEW], 'The wolf')).stdout, expected)
  const file = join(temporary(t), 'prompt.txt')
  writeFileSync(file, 'The wolf\r\n')
  t.is((await tetrad(['generate', '--prompt-file', file, ...FEW])).stdout, expected)
  t.true((await tetrad(['generate', ...FEW])).stdout.startsWith('Once upon a time'))
})

test('--n and --prompt-logprobs have their place in the JSON', async (t) => {
  const { stdout } = await tetrad([
    'generate',
    'The wolf',
    ...FEW,
    '--n',
    '2',
    '--temperature',
    '1',
    '--seed',
    '3',
    '--prompt-logprobs',
    '0',
    '--json',
  ])
  const { completions } = JSON.parse(stdout) as { completions: { tokens: number[]; promptLogprobs: unknown[]; usage: { promptTokens: number } }[] }
  t.is(completions.length, 2)
  t.notDeepEqual(completions[0]?.tokens, completions[1]?.tokens)
  t.is(completions[0]?.promptLogprobs.length, completions[0]?.usage.promptTokens)
})

full('what cannot work is refused before the model is loaded, in the words of the command line', async (t) => {
  const listener = createServer().listen(0, '127.0.0.1')
  await once(listener, 'listening')
  t.teardown(() => listener.close())
  const { port } = listener.address() as { port: number }
  const noTokenizer = `${FIXTURES}golden/mlra_4`
  for (const [args, expected] of [
    [['generate', ''], /error PROMPT_EMPTY/],
    [['generate', 'x', '--top-p', '2'], /--top-p is out of range/],
    [['generate', 'x', '--speculate', '3'], /--speculate needs 2 integers[\s\S]*--speculate 3,8/],
    [['generate', '--prompt-ids', '99999999'], /error TOKEN_INVALID: --prompt-ids has an id/],
    [['generate', 'x', '--logprobs', '2'], /--logprobs needs --json/],
    [['generate', 'x', '--prompt-file', '/nowhere'], /the prompt is given twice/],
    [['generate', '--prompt-file', '/nowhere'], /--prompt-file \/nowhere cannot be read/],
    [['generate', 'x', '--model', noTokenizer], /error TOKENIZER_MISSING[\s\S]*--prompt-ids 1,2,3/],
    [['generate', 'x', '--model', join(TINY, 'config.json')], /is a file[\s\S]*Give the directory/],
    [['generate', 'x', '--model', 'owner/name'], /give hf:owner\/name/],
    [['generate', 'x', '--backend', 'wasm', '--cache', 'f16'], /--cache f16 is not supported by the wasm backend/],
    [['chat', '--temperature', '-1'], /--temperature is out of range/],
    [['eval', 'perplexity', '/nowhere.bin'], /error EVAL_DATA_INVALID/],
    [['eval', 'perplexity', '/nowhere.bin', '--windows', '0'], /--windows is out of range/],
    [['serve', '--port', String(port)], /error LISTEN_FAILED[\s\S]*EADDRINUSE[\s\S]*another --port/],
    [['serve', '--request-timeout-ms', '0'], /--request-timeout-ms is out of range/],
    [['synth', '/nowhere/out', '--preset', 'mid'], /--variant is needed/],
    [['synth', '/nowhere/out', '--variant', 'mla'], /preset or config is needed/],
    [['bench', 'ttft', '--seed', 'x'], /--seed is out of range/],
  ] as const) {
    const { code, stdout, stderr } = await tetrad(args)
    t.is(code, 1, args.join(' '))
    t.is(stdout, '', args.join(' '))
    t.regex(stderr, expected)
    t.notRegex(stderr, /loaded in|\n\s+at /, args.join(' '))
  }
})

test('help marks what is required, and bench lists its benchmarks from any folder', async (t) => {
  t.regex((await tetrad(['convert', '--help'])).stdout, /--weights[\s\S]*\(required\)/)
  const { code, stdout } = await tetrad(['bench'])
  t.is(code, 0)
  t.regex(stdout, /^throughput /m)
})

test('serve names its page', async (t) => {
  const child = spawn(process.execPath, [`${ROOT}dist/src/cli.js`, 'serve', '--port', '0', '--ranks', '1'], { stdio: ['ignore', 'ignore', 'pipe'] })
  t.teardown(() => child.kill('SIGKILL'))
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  while (!/^page:.*\n/m.test(said)) await once(child.stderr, 'data')
  const [, page] = /^page: +(http:\S+\/)$/m.exec(said) ?? []
  t.truthy(page)
  t.regex(await (await fetch(page as string)).text(), /<html/)
  child.kill('SIGTERM')
  t.is(((await once(child, 'exit')) as [number])[0], 0)
})

test('chat: Ctrl-C without an answer asks once more; a full context offers /reset; /exit ends', async (t) => {
  const child = spawn(process.execPath, [`${ROOT}dist/src/cli.js`, 'chat', '--ranks', '1', '--max-context', '64', '--max-tokens', '40'], {
    stdio: ['pipe', 'ignore', 'pipe'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const until = async (pattern: RegExp) => {
    while (!pattern.test(said)) await once(child.stderr, 'data')
  }
  await until(/\/save FILE/)
  child.kill('SIGINT')
  await until(/Ctrl-C again ends/)
  child.stdin.write(`Tell me of the sea, and of ${'the wolf and '.repeat(30)}the king.\n`)
  await until(/no longer fits the context of 64 tokens: \/reset/)
  child.stdin.write('/reset\nThe sea.\n')
  await until(/tokens\/s/)
  child.kill('SIGINT')
  await until(/again ends\)[\s\S]*again ends\)/)
  child.kill('SIGINT')
  t.is(((await once(child, 'exit')) as [number])[0], 0)
})

test('answers break between words at the width of the terminal', (t) => {
  const wrap = new SoftWrap(10)
  const out = ['  The pal', 'ace of the ki', 'ng.\nA lon', 'gerthanthewidth word'].map((piece) => wrap.push(piece)).join('') + wrap.flush()
  t.is(out, 'The palace\nof the \nking.\nA \nlongerthanthewidth\nword')
  for (const line of out.split('\n')) t.true(line.length <= 10 || !line.includes(' '), line)
  const file = new SoftWrap(Number.POSITIVE_INFINITY)
  t.is(file.push(' The pal'), 'The pal')
  t.is(file.push('ace of'), 'ace of')
  t.is(file.flush(), '')
})
