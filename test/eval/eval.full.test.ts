import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { Engine, OptionError, RequestError, TetradError } from '../../src/index.js'
import { injectFault, readCounters } from '../../src/testing.js'
import { FIXTURES, TINY } from '../support/fixtures.js'
import { temporary } from '../support/models.js'
import { until } from '../support/until.js'

const GENESIS = `${FIXTURES}eval/genesis.bin`
const ITEMS = `${FIXTURES}eval/multiple_choice.jsonl`

interface GoldenItem {
  readonly query: string
  readonly choices: string[]
  readonly gold: number
  readonly golden_loglikelihood: number[]
  readonly golden_acc: number
  readonly golden_acc_norm: number
}

const golden = JSON.parse(readFileSync(`${FIXTURES}eval/perplexity.json`, 'utf8')) as {
  window_losses: number[]
  mean_loss: number
  perplexity: number
}
const items = readFileSync(ITEMS, 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as GoldenItem)

/** Where the golden windows begin: the authors' script skips the 1024 bytes of the header, which genesis.bin does not have. */
const FIRST = 512

const binary = (tokens: readonly number[]) => Buffer.from(Uint16Array.from(tokens).buffer)

for (const ranks of [1, 2, 4] as const) {
  test(`perplexity of genesis.bin at ${ranks} ranks: the golden loss of every window`, async (t) => {
    const engine = await Engine.load(TINY, { ranks })
    const seen: number[] = []
    const result = await engine.perplexity(GENESIS, { firstToken: FIRST, onProgress: ({ done, total }) => seen.push(done / total) })
    t.is(result.windows, 8)
    for (const [i, loss] of result.windowLosses.entries()) t.true(Math.abs(loss - (golden.window_losses[i] as number)) < 1e-3, `window ${i}: ${loss}`)
    t.true(Math.abs(result.meanLoss - golden.mean_loss) < 1e-4, String(result.meanLoss))
    t.true(Math.abs(result.perplexity / golden.perplexity - 1) < 1e-3)
    t.deepEqual(
      seen,
      [0, 1, 2, 3, 4, 5, 6, 7, 8].map((n) => n / 8),
    )
    await engine.close()
  })
}

test('perplexity: the same bits for an array, other ranks and a rank that dies meanwhile; a bf16 cache is close', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2 })
  const options = { blockSize: 100, windows: 5, firstToken: 7 }
  const first = await engine.perplexity(GENESIS, options)
  const tokens = Array.from(new Uint16Array(Uint8Array.from(readFileSync(GENESIS)).buffer))
  t.deepEqual(await engine.perplexity(tokens, options), first)
  injectFault(engine, { rank: 1, kind: 'throw', stage: 'all-reduce of the MLP' })
  t.deepEqual(await engine.perplexity(GENESIS, options), first)
  t.is(engine.stats().restarts, 1)
  await engine.close()
  const other = await Engine.load(TINY, { ranks: 4, cacheTokens: 256, prefillChunk: 5 })
  t.deepEqual(await other.perplexity(GENESIS, options), first)
  await other.close()
  const rounded = await Engine.load(TINY, { ranks: 1, cache: 'bf16' })
  const { meanLoss } = await rounded.perplexity(GENESIS, options)
  t.true(Math.abs(meanLoss - first.meanLoss) < 5e-3 && meanLoss !== first.meanLoss, `${meanLoss} and ${first.meanLoss}`)
  await rounded.close()
})

test('int8 weights lose less than 0.5 % of perplexity, int4 weights less than 6 %', async (t) => {
  const losses: number[] = []
  for (const weights of ['bf16', 'int8', 'int4'] as const) {
    const engine = await Engine.load(TINY, { ranks: 2, weights })
    losses.push((await engine.perplexity(GENESIS, { firstToken: FIRST })).perplexity)
    await engine.close()
  }
  const [bf16, int8, int4] = losses as [number, number, number]
  t.log(
    `${bf16.toFixed(3)}, ${int8.toFixed(3)} and ${int4.toFixed(3)}: ${[int8, int4].map((p) => `${((p / bf16 - 1) * 100).toFixed(2)} %`).join(', ')}`,
  )
  t.true(int8 / bf16 < 1.005)
  t.true(int4 / bf16 < 1.06 && int4 !== int8)
})

test('an int8 cache loses less than 0.5 % of perplexity, and has the same bits at 1, 2 and 4 ranks', async (t) => {
  const losses: number[] = []
  for (const [cache, ranks] of [
    ['f32', 2],
    ['int8', 1],
    ['int8', 2],
    ['int8', 4],
  ] as const) {
    const engine = await Engine.load(TINY, { ranks, cache, prefillChunk: 64 / ranks })
    losses.push((await engine.perplexity(GENESIS, { firstToken: FIRST })).perplexity)
    await engine.close()
  }
  const [f32, int8, ...others] = losses as [number, number, number, number]
  t.log(`${f32.toFixed(3)} and ${int8.toFixed(3)}: ${((int8 / f32 - 1) * 100).toFixed(2)} %`)
  t.true(int8 / f32 < 1.005 && int8 !== f32)
  t.deepEqual(others, [int8, int8])
})

test('multiple choice: golden log-likelihoods, acc and acc_norm', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2 })
  const result = await engine.multipleChoice(ITEMS)
  for (const [i, { loglikelihoods, acc, acc_norm }] of result.items.entries()) {
    const item = items[i] as GoldenItem
    for (const [c, sum] of loglikelihoods.entries())
      t.true(Math.abs(sum - (item.golden_loglikelihood[c] as number)) < 1e-2, `item ${i} choice ${c}: ${sum}`)
    t.is(acc, item.golden_acc as 0 | 1)
    t.is(acc_norm, item.golden_acc_norm as 0 | 1)
  }
  t.is(result.items.length, 48)
  t.is(result.acc, items.reduce((sum, item) => sum + item.golden_acc, 0) / 48)
  t.is(result.acc_norm, items.reduce((sum, item) => sum + item.golden_acc_norm, 0) / 48)
  await engine.close()
})

test('the query of an item is computed once for all of its choices', async (t) => {
  // Row by row: rows of a chunk share passes over the cache.
  const engine = await Engine.load(TINY, { ranks: 1, prefillChunk: 1 })
  const { query, choices } = items[0] as GoldenItem
  const before = (await engine.tokenize(query)).length
  const rows = () => readCounters(engine)[0]?.cacheBytes ?? 0
  const start = rows()
  await engine.multipleChoice([{ query, choices, gold: 0 }])
  const read = rows() - start
  // Bytes of the cache that rows from..end-1 read: row p reads p + 1 cached rows.
  const cost = (from: number, end: number) => (((end * (end + 1)) / 2 - (from * (from + 1)) / 2) * 8 * 4 * (4 * 64 + 32)) as number
  const ends = await Promise.all(choices.map(async (choice) => (await engine.tokenize(query + choice)).length - 1))
  const once = ends.reduce((sum, end, i) => sum + cost(i === 0 ? 0 : before - 1, end), 0)
  // The rope key is read for all units at once; choices may share more than the query.
  t.true(read <= once && read > once / 2, `${read} bytes, ${once} when the query is computed once`)
  await engine.close()
})

test('log-likelihood: what the logits say, token by token; ids and texts; greedy or not', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2 })
  const context = await engine.tokenize('Once upon a time')
  const { tokens } = await engine.generate('Once upon a time', { maxTokens: 6 })
  const greedy = await engine.loglikelihood(context, tokens)
  t.true(greedy.isGreedy)
  t.is(greedy.perToken.length, 6)
  t.is(
    greedy.sum,
    greedy.perToken.reduce((a, b) => a + b, 0),
  )
  const logits = await engine.logits([...context, ...tokens])
  const vocab = engine.info.vocab
  for (const [i, token] of tokens.entries()) {
    const row = logits.subarray((context.length - 1 + i) * vocab, (context.length + i) * vocab)
    const max = Math.max(...row)
    const expected = (row[token] as number) - max - Math.log(row.reduce((sum, v) => sum + Math.exp(v - max), 0))
    t.true(Math.abs((greedy.perToken[i] as number) - expected) < 1e-5)
  }
  t.false((await engine.loglikelihood('Once upon a time', ' zebra zebra')).isGreedy)
  const bos = await engine.loglikelihood('', 'Once', { bos: true })
  t.is(bos.sum, (await engine.loglikelihood([0], 'Once')).sum)
  await engine.close()
})

test('many at once wait for each other instead of overloading the engine', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1, maxRunning: 2, maxQueue: 0, cacheTokens: 256 })
  const some = items.slice(0, 6)
  const result = await engine.multipleChoice(some)
  t.deepEqual(
    result.items.map((item) => item.acc_norm),
    some.map((item) => item.golden_acc_norm as 0 | 1),
  )
  await engine.close()
})

test('bad token files and options are named, and the engine serves the next request', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1 })
  const dir = temporary(t)
  const file = (name: string, bytes: Uint8Array) => {
    writeFileSync(join(dir, name), bytes)
    return join(dir, name)
  }
  const ordinary = Array.from({ length: 700 }, (_, i) => i)
  for (const [path, options, message] of [
    [file('odd.bin', new Uint8Array(2001)), {}, /odd\.bin .* even number of bytes.* 2001 bytes/],
    [file('short.bin', binary(ordinary)), {}, /at least 1025 tokens.* 700 tokens, 0 windows/],
    [file('short.bin', binary(ordinary)), { blockSize: 64, windows: 11 }, /at least 705 tokens.* Ask for at most 10 windows/],
    [file('empty.bin', new Uint8Array(0)), { blockSize: 64 }, /0 tokens, 0 windows/],
    [file('ids.bin', binary(ordinary.map((v) => (v === 600 ? 4096 : v)))), { blockSize: 64 }, /vocabulary size 4096.* 4096 at token 600/],
    [join(dir, 'none.bin'), {}, /ENOENT/],
  ] as const) {
    const error = await t.throwsAsync(engine.perplexity(path, options), { instanceOf: TetradError, message })
    t.is(error.code, 'EVAL_DATA_INVALID')
  }
  for (const options of [{ blockSize: 0 }, { blockSize: 1025 }, { windows: 0 }, { firstToken: -1 }, { window: 1 }]) {
    await t.throwsAsync(engine.perplexity(GENESIS, options as object), { instanceOf: OptionError })
  }
  t.is((await engine.perplexity(GENESIS, { blockSize: 16, windows: 1 })).windows, 1)
  await engine.close()
})

test('bad items are refused with their line', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1 })
  const dir = temporary(t)
  const good = JSON.stringify({ query: 'a', choices: [' b'], gold: 0 })
  for (const [line, message] of [
    ['{"query": ', /line 2: not JSON/],
    ['[]', /line 2: not an object/],
    ['{"query": 1, "choices": ["a"], "gold": 0}', /line 2: query must be a string/],
    ['{"query": "a", "choices": [], "gold": 0}', /line 2: choices must be strings/],
    ['{"query": "a", "choices": ["b", ""], "gold": 0}', /line 2: choices must be strings/],
    ['{"query": "a", "choices": ["b", "c"], "gold": 2}', /line 2: gold is out of range.* 0 to 1/],
    ['{"query": "a", "choices": ["b", "c"], "gold": "0"}', /line 2: gold is out of range/],
  ] as const) {
    const path = join(dir, 'items.jsonl')
    writeFileSync(path, `${good}\n${line}\n${good}\n`)
    const error = await t.throwsAsync(engine.multipleChoice(path), { instanceOf: TetradError, message })
    t.is(error.code, 'EVAL_DATA_INVALID')
  }
  writeFileSync(join(dir, 'empty.jsonl'), '\n\n')
  await t.throwsAsync(engine.multipleChoice(join(dir, 'empty.jsonl')), { message: /at least one item/ })
  await t.throwsAsync(engine.multipleChoice(join(dir, 'none.jsonl')), { message: /ENOENT/ })
  await t.throwsAsync(engine.loglikelihood('', 'a'), { instanceOf: RequestError, message: /bos: true/ })
  await t.throwsAsync(engine.loglikelihood('a', ''), { instanceOf: RequestError, message: /continuation/ })
  await t.throwsAsync(engine.loglikelihood([1], [4096]), { instanceOf: RequestError, message: /vocabulary/ })
  await t.throwsAsync(engine.loglikelihood('a', 'b', { bos: 1 } as object), { instanceOf: OptionError })
  t.is((await engine.multipleChoice([{ query: 'a', choices: [' b'], gold: 0 }])).acc, 1)
  await engine.close()
})

test('an aborted signal ends an evaluation, and frees all pages', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2 })
  const controller = new AbortController()
  const running = engine.perplexity(GENESIS, { signal: controller.signal })
  const aborted = t.throwsAsync(running, { instanceOf: RequestError })
  await until(() => engine.stats().running > 0)
  controller.abort()
  const error = await aborted
  t.is(error.code, 'REQUEST_ABORTED')
  await engine.generate('Once', { maxTokens: 3 })
  t.is(engine.stats().pages.inUse, 0)
  await engine.close()
})

test('token files: the tokens after a header, from the first one on without; damaged headers are named', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1 })
  const dir = temporary(t)
  const write = (name: string, ...parts: Uint8Array[]) => {
    writeFileSync(join(dir, name), Buffer.concat(parts))
    return join(dir, name)
  }
  const header = (magic: number, version: number, count: number) => {
    const words = new Int32Array(256)
    words.set([magic, version, count])
    return new Uint8Array(words.buffer)
  }
  const all = readFileSync(GENESIS)
  const some = all.subarray(0, 2 * 200)
  const options = { blockSize: 64 }
  const tokens = Array.from(new Uint16Array(Uint8Array.from(some).buffer))
  const expected = await engine.perplexity(tokens, options)
  t.is(expected.windows, 3)
  t.deepEqual(await engine.perplexity(write('plain.bin', some), options), expected)
  t.deepEqual(await engine.perplexity(write('header.bin', header(20240520, 1, 200), some), options), expected)
  // The authors' protocol on a file of theirs: the golden loss.
  const theirs = write('genesis.bin', header(20240520, 1, all.length / 2 - FIRST), all.subarray(2 * FIRST))
  t.true(Math.abs((await engine.perplexity(theirs)).meanLoss - golden.mean_loss) < 1e-4)
  for (const [path, message] of [
    [write('version.bin', header(20240520, 2, 200), some), /version 1.* version 2/],
    [write('short.bin', header(20240520, 1, 300), some), /300 tokens.* 200/],
    [write('cut.bin', header(20240520, 1, 300).subarray(0, 100)), /300 tokens/],
    [write('wide.bin', header(20240801, 1, 100), some), /tokens of four bytes/],
  ] as const) {
    const error = await t.throwsAsync(engine.perplexity(path, options), { instanceOf: TetradError, message })
    t.is(error.code, 'EVAL_DATA_INVALID')
  }
  await engine.close()
})

test('windows and items that were computed are told before a later one fails', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1, maxRunning: 1 })
  const controller = new AbortController()
  const losses: number[] = []
  const onWindow = (index: number, loss: number) => {
    losses[index] = loss
    if (index === 1) controller.abort()
  }
  await t.throwsAsync(engine.perplexity(GENESIS, { blockSize: 32, onWindow, signal: controller.signal }), { instanceOf: RequestError })
  const whole = await engine.perplexity(GENESIS, { blockSize: 32, windows: 2 })
  t.deepEqual(losses.slice(0, 2), [...whole.windowLosses])
  // A wrong token in the last window is found before anything is computed.
  const tokens = Array.from({ length: 129 }, (_, i) => (i === 128 ? 9999 : 5))
  const before = engine.stats().finished
  await t.throwsAsync(engine.perplexity(tokens, { blockSize: 32 }), { message: /9999 at token 128/ })
  t.is(engine.stats().finished, before)
  await engine.close()
})

test('white space at the end of a query counts as the choice’s, as in lm-evaluation-harness', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1 })
  const likelihoods = async (query: string, choices: string[]) =>
    (await engine.multipleChoice([{ query, choices, gold: 0 }])).items[0]?.loglikelihoods
  const expected = await likelihoods('Once upon a', [' time', ' king'])
  t.deepEqual(await likelihoods('Once upon a ', ['time', 'king']), expected)
  t.deepEqual(await likelihoods('Once upon a\n', ['time']), await likelihoods('Once upon a', ['\ntime']))
  const sum = async (context: string, continuation: string) => (await engine.loglikelihood(context, continuation)).sum
  t.is(await sum('Once upon a ', 'time'), await sum('Once upon a', ' time'))
  // Characters of the choice alone, without the space that was moved.
  const { acc_norm } = await engine.multipleChoice([{ query: 'Once upon a ', choices: ['time', 'king'], gold: 0 }])
  t.is(acc_norm, 1)
  await engine.close()
})

test('an item longer than the context is cut from the left and counted; one that cannot be scored is reported alone', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1, maxContext: 64, cacheTokens: 256 })
  const short = { query: 'Once upon a', choices: [' time', ' king'], gold: 0 }
  const words = Array.from({ length: 170 }, (_, i) => (i % 3 === 0 ? 'king' : 'wolf')).join(' ')
  const seen: number[] = []
  const result = await engine.multipleChoice(
    [short, { ...short, query: words }, { ...short, choices: [' time', ` ${words}`] }, { ...short, query: '' }],
    { onItem: (index) => seen.push(index) },
  )
  t.deepEqual([result.items.length, result.truncated, result.unscored, seen.length], [4, 1, 1, 4])
  t.is(result.items[0]?.error, undefined)
  // The last tokens of the query are what counts.
  const ids = await engine.tokenize(`${words} time`)
  const { sum } = await engine.loglikelihood(ids.slice(-65, -1), ids.slice(-1))
  t.is(result.items[1]?.loglikelihoods[0], sum)
  t.is(result.items[1]?.truncatedTokens, ids.length - 65)
  t.regex(result.items[2]?.error ?? '', /a choice alone is longer than the context/)
  t.deepEqual(result.items[2]?.loglikelihoods, [])
  // An empty query is the beginning of a text.
  t.is(result.items[3]?.loglikelihoods[0], (await engine.loglikelihood('', ' time', { bos: true })).sum)
  t.is(result.acc, [0, 1, 3].reduce((total, i) => total + (result.items[i]?.acc ?? 0), 0) / 3)
  await engine.close()
})
