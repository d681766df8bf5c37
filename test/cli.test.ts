import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { FIXTURES, ROOT, TINY, tinyGolden } from './support/fixtures.js'
import { temporary } from './support/models.js'
import { full, inFull } from './support/tier.js'

interface Run {
  code: number | null
  stdout: string
  stderr: string
}

function tetrad(args: string[], onOutput?: (kill: (signal: NodeJS.Signals) => void) => void): Promise<Run> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [`${ROOT}dist/src/cli.js`, ...args], { cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] })
    const run: Run = { code: null, stdout: '', stderr: '' }
    let told = false
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      run.stdout += text
      if (!told) onOutput?.((signal) => child.kill(signal))
      told = true
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      run.stderr += text
    })
    child.on('error', reject)
    child.on('close', (code) => resolve({ ...run, code }))
  })
}

const golden = tinyGolden().greedy[0] as { text: string; ids: number[]; out: number[]; decoded: string }

/** Arguments that are refused, and what is said of them. */
const WRONG: [string[], RegExp][] = [
  [
    ['generate', 'x', '--ranks', '3'],
    /error OPTION_INVALID: --ranks is not supported\n {2}expected: one of auto, 1, 2, 4\n {2}actual: {3}3\n {2}remedy:/,
  ],
  [['generate', 'x', '--max-tokens', 'many'], /--max-tokens is out of range[\s\S]*"many"/],
  [['generate', 'x', '--max-tokens', '-1'], /--max-tokens is out of range/],
  [['generate', 'x', '--cache-tokens', '0'], /--cache-tokens is out of range/],
  [['generate', 'x', '--max-running', '999'], /--max-running is out of range/],
  [['generate', 'x', '--max-queue', '-1'], /--max-queue is out of range/],
  [['generate', 'x', '--prefill-chunk', '0'], /--prefill-chunk is out of range/],
  [['generate', 'x', '--step-deadline-ms', '1'], /--step-deadline-ms is out of range/],
  [['generate', 'x', '--max-restarts', '-1'], /--max-restarts is out of range/],
  [['generate', 'x', '--model', '/nowhere'], /error MODEL_NOT_FOUND/],
  [['generate', 'x', '--prompt-ids', '1'], /not both/],
  [['generate', '--prompt-ids', '1,x'], /--prompt-ids has something that is not a token id/],
  [['generate', 'x', '--best-of', '4'], /unknown option '--best-of'/],
  [['frobnicate'], /unknown command 'frobnicate'/],
  [['inspect', '/nowhere'], /error MODEL_NOT_FOUND/],
]

test('generate streams the text of the embedded model on stdout and nothing else there', async (t) => {
  const { code, stdout, stderr } = await tetrad(['generate', golden.text, '--max-tokens', '100', '--ignore-eos'])
  t.is(code, 0)
  t.is(stdout, `${golden.text}${golden.decoded}\n`)
  t.regex(stderr, /^loaded in \d+ ms: \d+ MiB, with a cache for \d+ tokens\n100 tokens, \d+ tokens\/s, \d ranks?, wasm, finished: length\n$/)
})

test("generate --json prints one line with the contract's fields", async (t) => {
  const { code, stdout, stderr } = await tetrad([
    'generate',
    '--model',
    TINY,
    '--prompt-ids',
    golden.ids.join(','),
    '--max-tokens',
    '5',
    '--ranks',
    '4',
    '--json',
  ])
  t.is(code, 0)
  t.is(stderr, '')
  t.is(stdout.trimEnd().split('\n').length, 1)
  const result = JSON.parse(stdout)
  t.deepEqual(Object.keys(result), ['text', 'tokens', 'finishReason', 'usage', 'ranks', 'backend', 'timings'])
  t.deepEqual(Object.keys(result.timings), ['loadMs', 'ttftMs', 'decodeMs', 'tokensPerSecond'])
  t.deepEqual(result.tokens, golden.out.slice(0, 5))
  t.deepEqual(result.usage, { promptTokens: golden.ids.length, completionTokens: 5 })
  t.is(result.ranks, 4)
  t.is(result.backend, 'wasm')
  t.is(result.finishReason, 'length')
})

test('generate --json says how many tokens a draft model guessed, and how many of them were right', async (t) => {
  const model = `${FIXTURES}golden/mlra_4`
  const { code, stdout } = await tetrad(['generate', '--model', model, '--draft', model, '--prompt-ids', '23', '--max-tokens', '12', '--json'])
  t.is(code, 0)
  const { tokens, usage } = JSON.parse(stdout)
  t.deepEqual(tokens.slice(0, 3), [9, 13, 13])
  t.true(usage.draftedTokens > 0)
  // It guesses for itself.
  t.deepEqual(usage, { promptTokens: 1, completionTokens: 12, draftedTokens: usage.draftedTokens, acceptedTokens: usage.draftedTokens })
})

test('a model without a tokenizer takes ids and gives ids, its text empty; a text prompt is refused', async (t) => {
  const model = `${FIXTURES}golden/mlra_4`
  const { stdout } = await tetrad(['generate', '--model', model, '--prompt-ids', '23', '--max-tokens', '3', '--json'])
  t.is(JSON.parse(stdout).text, '')
  t.deepEqual(JSON.parse(stdout).tokens, [9, 13, 13])
  const plain = await tetrad(['generate', '--model', model, '--prompt-ids', '23', '--max-tokens', '3'])
  t.is(plain.stdout, '9 13 13 \n')
  const refused = await tetrad(['generate', 'Once', '--model', model])
  t.is(refused.code, 1)
  t.regex(refused.stderr, /^error TOKENIZER_MISSING: /m)
})

full('Ctrl-C stops with the text so far, the JSON still printed, exit status 130', async (t) => {
  const { code, stdout } = await tetrad(['generate', 'Once upon a time', '--max-tokens', '1000', '--ignore-eos', '--ranks', '1'], (kill) =>
    kill('SIGINT'),
  )
  t.is(code, 130)
  t.true(stdout.startsWith('Once upon a time') && stdout.endsWith('\n'))
})

full('SIGTERM lets the request end, within its time', async (t) => {
  const { code, stdout } = await tetrad(['generate', golden.text, '--max-tokens', '100', '--ignore-eos'], (kill) => kill('SIGTERM'))
  t.is(code, 0)
  t.is(stdout, `${golden.text}${golden.decoded}\n`)
})

test('wrong arguments exit with 1, say what and why on stderr, and print no stack', async (t) => {
  for (const [args, expected] of WRONG.slice(0, inFull ? WRONG.length : 1)) {
    const { code, stdout, stderr } = await tetrad(args)
    t.is(code, 1, args.join(' '))
    t.is(stdout, '')
    t.regex(stderr, expected)
    t.notRegex(stderr, /\n\s+at /)
  }
})

test('inspect shows the plan, as text and as JSON', async (t) => {
  const { code, stdout } = await tetrad(['inspect', TINY, '--ranks', '4', '--json'])
  t.is(code, 0)
  const result = JSON.parse(stdout)
  t.is(result.variant, 'mlra_4')
  t.is(result.parameters, 16131968)
  t.deepEqual(
    result.ranks.map((r: { streams: number[] }) => r.streams),
    [[0], [1], [2], [3]],
  )
  t.deepEqual(
    result.ranks.map((r: { projectionHeads: number[] }) => r.projectionHeads),
    [
      [0, 1],
      [1, 3],
      [3, 4],
      [4, 6],
    ],
  )
  t.deepEqual(
    result.kvCache.map((k: { valuesPerTokenPerLayer: number }) => k.valuesPerTokenPerLayer),
    [288, 160, 96],
  )
  t.regex(result.determinismKey, /^tetrad-[\d.]+\/wasm\/(simd128|relaxed)\/weights-bf16\/cache-f32\/partition-heads\/kernels-\w{12}$/)
  const text = await tetrad(['inspect'])
  t.regex(text.stdout, /variant {6}mlra_4, 16,131,968 parameters/)
})

full('inspect --config needs no weights: one variant, or all that the file fits', async (t) => {
  const config = `${FIXTURES}golden/mla/config.json`
  const one = await tetrad(['inspect', '--config', config, '--variant', 'mla', '--json'])
  t.is(one.code, 0)
  t.deepEqual(
    JSON.parse(one.stdout).kvCache.map((k: { valuesPerTokenPerLayer: number }) => k.valuesPerTokenPerLayer),
    [56, 56, 56],
  )
  const all = await tetrad(['inspect', '--config', config])
  t.regex(all.stdout, /^mlra_4 +[\d,]+ +56 +32 +20$/m)
  t.regex(all.stdout, /^mla +[\d,]+ +56 +56 +56$/m)
  const both = await tetrad(['inspect', TINY, '--config', config])
  t.is(both.code, 1)
})

full("eval perplexity and multiple-choice print numbers, and JSON with the contract's fields", async (t) => {
  const text = await tetrad(['eval', 'perplexity', `${FIXTURES}eval/genesis.bin`, '--first-token', '512', '--windows', '2', '--ranks', '2'])
  t.is(text.code, 0)
  t.regex(text.stdout, /^window 0 +loss 3\.827\d\nwindow 1 +loss 3\.617\d\nmean loss 3\.722\d+, perplexity 41\.\d+, 2 windows\n$/)
  const json = await tetrad(['eval', 'perplexity', `${FIXTURES}eval/genesis.bin`, '--block-size', '64', '--windows', '3', '--json'])
  t.is(json.stderr, '')
  const result = JSON.parse(json.stdout)
  t.deepEqual(Object.keys(result).sort(), ['complete', 'meanLoss', 'perplexity', 'windowLosses', 'windows'])
  t.is(result.windowLosses.length, 3)
  const choice = await tetrad(['eval', 'multiple-choice', `${FIXTURES}eval/multiple_choice.jsonl`, '--json'])
  t.true(Math.abs(JSON.parse(choice.stdout).acc - 11 / 48) < 1e-9)
  t.true(Math.abs(JSON.parse(choice.stdout).acc_norm - 26 / 48) < 1e-9)
  const wrong = await tetrad(['eval', 'perplexity', `${FIXTURES}eval/perplexity.json`])
  t.is(wrong.code, 1)
  t.regex(wrong.stderr, /error EVAL_DATA_INVALID/)
})

full('synth writes a model that generate runs', async (t) => {
  const dir = join(temporary(t), 'model')
  const { code, stdout } = await tetrad([
    'synth',
    dir,
    '--variant',
    'tpa',
    '--config',
    `${FIXTURES}golden/tpa/config.json`,
    '--dtype',
    'f32',
    '--seed',
    '5',
  ])
  t.is(code, 0)
  t.regex(stdout, /tpa, [\d,]+ random parameters, \d+ MiB\n$/)
  const run = await tetrad(['generate', '--model', dir, '--prompt-ids', '1,2', '--max-tokens', '4', '--ignore-eos', '--json'])
  t.is(JSON.parse(run.stdout).tokens.length, 4)
  const again = await tetrad(['synth', dir, '--variant', 'tpa', '--preset', 'mid'])
  t.is(again.code, 1)
  t.regex(again.stderr, /error OUTPUT_EXISTS/)
})

full('convert writes a model that generate runs; --profile prints a table and writes a trace', async (t) => {
  const dir = temporary(t)
  const { code, stdout } = await tetrad(['convert', TINY, join(dir, 'int8'), '--weights', 'int8'])
  t.is(code, 0)
  t.regex(stdout, /mlra_4, packed int8, \d+ MiB\n$/)
  const trace = join(dir, 'trace.json')
  const run = await tetrad(['generate', 'Once', '--model', join(dir, 'int8'), '--max-tokens', '5', '--ranks', '2', '--profile', trace])
  t.is(run.code, 0)
  t.regex(run.stderr, /microseconds a step/)
  t.true(Array.isArray(JSON.parse(readFileSync(trace, 'utf8')).traceEvents))
  t.is((await tetrad(['convert', TINY, join(dir, 'none')])).code, 1)
})

test('help and version exit with 0', async (t) => {
  t.is((await tetrad(['--help'])).code, 0)
  t.is((await tetrad(['generate', '--help'])).code, 0)
  const { code, stdout } = await tetrad(['--version'])
  t.is(code, 0)
  t.regex(stdout, /^\d+\.\d+\.\d+\n$/)
})
