// Replicas in processes of their own: the same bits as one engine, and a death that no client sees.
import test from 'ava'
import OpenAI from 'openai'
import { CheckpointError, Engine, OptionError, OverloadedError, TetradError } from '../../src/index.js'
import { prefixOwner } from '../../src/serve/replicas/prefix-owner.js'
import { encodeFrame, FrameDecoder, type FromReplica } from '../../src/serve/replicas/protocol.js'
import { ReplayFilter } from '../../src/serve/replicas/replay-filter.js'
import { ReplicaPool } from '../../src/serve/replicas/replica-pool.js'
import { createServer } from '../../src/serve/server.js'
import { PLAIN } from '../../src/tokenizer/chat-template.js'
import { TINY } from '../support/fixtures.js'
import { full } from '../support/tier.js'
import { until } from '../support/until.js'

const OPTIONS = { ranks: 1, maxRunning: 4, cacheTokens: 2048 } as const

full('two replicas: the tokens of one engine, streams that go on when a replica is killed, and a new replica', async (t) => {
  t.timeout(180_000)
  const engine = await Engine.load(TINY, OPTIONS)
  const deaths: string[] = []
  const pool = await ReplicaPool.load(TINY, OPTIONS, 2, (text) => deaths.push(text))
  const server = createServer(new Map([['tiny', { id: 'tiny', engine: pool, template: PLAIN, created: 1 }]]))
  const address = await server.app.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(async () => {
    await server.app.close()
    await pool.close()
    await engine.close()
  })
  const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: 'none', maxRetries: 0 })
  const ids = await engine.tokenize('Once upon a time')
  t.deepEqual(await pool.tokenize('Once upon a time'), ids)
  const scored = await client.completions.create({ model: 'tiny', prompt: ids, max_tokens: 0, echo: true, logprobs: 1 })
  t.deepEqual(scored.choices[0]?.logprobs?.token_logprobs?.slice(1), (await engine.loglikelihood(ids.slice(0, 1), ids.slice(1))).perToken)
  const weather = {
    type: 'function' as const,
    function: { name: 'weather', parameters: { type: 'object', properties: { city: { enum: ['Rome'] } } } },
  }
  const called = await client.chat.completions.create({
    ...{ model: 'tiny', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 60, temperature: 0 },
    tools: [weather],
    tool_choice: { type: 'function', function: { name: 'weather' } },
  })
  t.is(called.choices[0]?.finish_reason, 'tool_calls')
  const prompts = ['Once upon a time', 'The king', 'In the forest', 'A fox and a hen', 'My mother said', 'Long ago']
  let killed = false
  const texts = await Promise.all(
    prompts.map(async (prompt, i) => {
      const stream = await client.completions.create({
        model: 'tiny',
        prompt,
        max_tokens: 150,
        temperature: i % 2,
        seed: 5 + i,
        stream: true,
        logprobs: 1,
        ...{ ignore_eos: true },
      })
      let text = ''
      let tokens = 0
      for await (const { choices } of stream) {
        text += choices[0]?.text ?? ''
        tokens += choices[0]?.logprobs?.tokens?.length ?? 0
        if (!killed && tokens > 20) {
          killed = true
          for (const pid of pool.pids.slice(0, 1)) process.kill(pid as number, 'SIGKILL')
        }
      }
      t.is(tokens, 150, prompt)
      return text
    }),
  )
  for (const [i, prompt] of prompts.entries()) {
    const alone = await engine.generate(prompt, { maxTokens: 150, temperature: i % 2, seed: 5 + i, ignoreEos: true })
    t.is(texts[i], alone.text, prompt)
  }
  t.is(deaths.length, 1)
  t.regex(deaths[0] as string, /replica 0 is lost: its process ended with SIGKILL|its connection closed/)
  await until(() => !pool.pids.includes(undefined))
  t.is(pool.pids.filter((pid) => pid !== undefined).length, 2)
  t.is((await client.completions.create({ model: 'tiny', prompt: 'Once', max_tokens: 3 })).usage?.completion_tokens, 3)
})

full('errors of a replica come with their class, code and remedy; an abort and a full queue too', async (t) => {
  const pool = await ReplicaPool.load(TINY, { ...OPTIONS, maxRunning: 1, maxQueue: 0 }, 1)
  t.teardown(() => pool.close())
  const error = await t.throwsAsync(async () => pool.generateMany(['x'], { n: 1, temperature: -1 }), { instanceOf: OptionError })
  t.is((error as TetradError).code, 'OPTION_INVALID')
  t.regex((error as TetradError).remedy, /\S/)
  const abort = new AbortController()
  const long = pool.generateMany(['Once'], { n: 1, maxTokens: 900, ignoreEos: true, signal: abort.signal })
  for await (const _ of long) break
  // Leaving an iteration aborts the request: as soon as the replica has heard of it, there is a place for the next one.
  const begin = () => pool.generateMany(['Once'], { n: 1, maxTokens: 1000, ignoreEos: true, temperature: 1, signal: abort.signal })
  let first = begin()
  await until(async () => {
    try {
      // Iterated, so that it surely runs, and not read on, so that it stays so.
      await first[Symbol.asyncIterator]().next()
      return true
    } catch (error) {
      if (!(error instanceof OverloadedError)) throw error
      first = begin()
      return false
    }
  })
  await t.throwsAsync(async () => pool.generateMany(['Twice'], { n: 1 }), { instanceOf: OverloadedError })
  abort.abort()
  t.is((await first)[0]?.finishReason, 'abort')
  await t.throwsAsync(ReplicaPool.load('/nowhere', OPTIONS, 2), { instanceOf: CheckpointError })
  await pool.close()
  await t.throwsAsync(async () => pool.generateMany(['Once'], { n: 1 }), { instanceOf: TetradError })
})

test('frames are decoded from pieces and from several at once; bytes that are no frame are refused', (t) => {
  const messages: FromReplica[] = [
    { type: 'hello', key: 'a' },
    { type: 'chunk', id: 7, chunk: { index: 0, text: 'é', tokens: [1, 2] } },
  ]
  const bytes = Buffer.concat(messages.map(encodeFrame))
  for (const size of [1, 3, 7, bytes.length]) {
    const decoder = new FrameDecoder<FromReplica>()
    const got: FromReplica[] = []
    for (let at = 0; at < bytes.length; at += size) got.push(...decoder.take(bytes.subarray(at, at + size)))
    t.deepEqual(got, messages)
  }
  for (const wrong of [
    Buffer.from([0, 0, 0, 0]),
    Buffer.from([255, 255, 255, 255]),
    Buffer.from([1, 0, 0, 0, 0xc0]),
    Buffer.from([2, 0, 0, 0, 0x81, 0xc1]),
  ])
    t.throws(() => [...new FrameDecoder<FromReplica>().take(wrong)])
})

test('a replay delivers only new tokens, wherever its chunks are cut', (t) => {
  const out: { text: string; tokens: readonly number[] }[] = []
  const filter = new ReplayFilter(({ text, tokens }) => out.push({ text, tokens }))
  const chunk = (tokens: readonly number[], text: string) => filter.take({ index: 0, tokens, text })
  filter.begin()
  chunk([1], 'a')
  chunk([2, 3], 'bc')
  filter.begin()
  chunk([1, 2], 'ab')
  chunk([3, 4], 'cd')
  chunk([5], 'e')
  filter.begin()
  chunk([1, 2, 3, 4, 5, 6], 'abcdef')
  t.deepEqual(
    out.flatMap((o) => o.tokens),
    [1, 2, 3, 4, 5, 6],
  )
  t.is(out.map((o) => o.text).join(''), 'abcdef')
})

test('prompts that begin alike have one owner, and only those of a replica that went move', (t) => {
  const prompts = Array.from({ length: 200 }, (_, i) => `prompt ${i} ${'x'.repeat(300)}`)
  const owners = prompts.map((p) => prefixOwner(p, [0, 1, 2]))
  for (const replica of [0, 1, 2]) t.true(owners.filter((o) => o === replica).length > 30)
  t.deepEqual(
    prompts.map((p) => prefixOwner(`${p} and more`, [0, 1, 2])),
    owners,
  )
  for (const [i, p] of prompts.entries()) if (owners[i] !== 1) t.is(prefixOwner(p, [0, 2]), owners[i] as number)
})
