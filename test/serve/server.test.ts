// The server over the embedded model, asked by the official client, and by sockets that misbehave.
import { once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import OpenAI from 'openai'
import { Engine } from '../../src/index.js'
import { createServer, type ServerOptions } from '../../src/serve/server.js'
import { injectFault } from '../../src/testing.js'
import { loadChatTemplate, PLAIN } from '../../src/tokenizer/chat-template.js'
import { TINY } from '../support/fixtures.js'
import { temporary } from '../support/models.js'
import { until } from '../support/until.js'

const engine = await Engine.load(TINY, { ranks: 2, maxRunning: 8, cacheTokens: 4096, maxQueue: 2, maxRestarts: 100 })
test.after.always(() => engine.close())

async function served(t: ExecutionContext, options: ServerOptions = {}) {
  const models = new Map([['tiny', { id: 'tiny', engine, template: PLAIN, created: 1 }]])
  const server = createServer(models, options)
  t.teardown(() => server.app.close())
  const address = await server.app.listen({ port: 0, host: '127.0.0.1' })
  return { ...server, address, client: new OpenAI({ baseURL: `${address}/v1`, apiKey: 'none', maxRetries: 0 }), port: Number(new URL(address).port) }
}

const PROMPT = 'Once upon a time'

test('completions: text, usage and finish reason are the engine’s, streamed or not, and a seed repeats them', async (t) => {
  const { client } = await served(t)
  const expected = await engine.generate(PROMPT, { maxTokens: 20, temperature: 0.8, seed: 7 })
  const request = { model: 'tiny', prompt: PROMPT, max_tokens: 20, temperature: 0.8, seed: 7 } as const
  const whole = await client.completions.create(request)
  t.is(whole.choices[0]?.text, expected.text)
  t.is(whole.choices[0]?.finish_reason, 'length')
  t.is(whole.usage?.prompt_tokens, expected.usage.promptTokens)
  t.is(whole.usage?.completion_tokens, 20)
  t.is(whole.usage?.total_tokens, expected.usage.promptTokens + 20)
  const stream = await client.completions.create({ ...request, stream: true, stream_options: { include_usage: true } })
  let text = ''
  let usage: unknown
  let finish: unknown
  for await (const chunk of stream) {
    text += chunk.choices[0]?.text ?? ''
    finish = chunk.choices[0]?.finish_reason ?? finish
    usage = chunk.usage ?? usage
  }
  t.is(text, expected.text)
  t.is(finish, 'length')
  t.is((usage as { completion_tokens: number }).completion_tokens, 20)
})

test('completions: several prompts with n, logprobs, token ids, a stop string and a logit bias', async (t) => {
  const { client } = await served(t)
  const many = await client.completions.create({
    model: 'tiny',
    prompt: [PROMPT, 'The king'],
    n: 2,
    max_tokens: 6,
    temperature: 0.9,
    seed: 3,
    logprobs: 2,
  })
  t.deepEqual(
    many.choices.map((c) => c.index),
    [0, 1, 2, 3],
  )
  for (const { text, logprobs } of many.choices) {
    t.is(logprobs?.tokens?.join(''), text)
    t.is(logprobs?.token_logprobs?.length, 6)
    t.true(logprobs?.token_logprobs?.every((p) => p <= 0))
    // The two most likely ones, and the sampled one.
    for (const [i, top] of (logprobs?.top_logprobs ?? []).entries()) {
      t.true(Object.keys(top).length >= 2 && Object.keys(top).length <= 3)
      t.is(top[logprobs?.tokens?.[i] as string], logprobs?.token_logprobs?.[i])
    }
    t.is(logprobs?.text_offset?.[1], logprobs?.tokens?.[0]?.length)
  }
  t.is(many.usage?.prompt_tokens, (await engine.tokenize(PROMPT)).length + (await engine.tokenize('The king')).length)
  const ids = await client.completions.create({ model: 'tiny', prompt: await engine.tokenize(PROMPT), max_tokens: 6, temperature: 0 })
  const plain = await client.completions.create({ model: 'tiny', prompt: PROMPT, max_tokens: 6, temperature: 0 })
  t.is(ids.choices[0]?.text, plain.choices[0]?.text)
  const word = plain.choices[0]?.text.trim().split(' ')[2] as string
  const stopped = await client.completions.create({ model: 'tiny', prompt: PROMPT, max_tokens: 6, temperature: 0, stop: word })
  t.is(stopped.choices[0]?.finish_reason, 'stop')
  t.false(stopped.choices[0]?.text.includes(word))
  const biased = await client.completions.create({ model: 'tiny', prompt: PROMPT, max_tokens: 3, temperature: 0, logit_bias: { '77': 100 } })
  t.is(biased.choices[0]?.text, engine.detokenize([77, 77, 77]))
})

test('chat: a conversation is rendered, streamed with roles, and its prefix is cached for the next turn', async (t) => {
  const { client } = await served(t)
  const messages = [
    { role: 'system' as const, content: 'You tell stories.' },
    {
      role: 'user' as const,
      content: [
        { type: 'text' as const, text: 'Tell one of a king, his three daughters, the sea, and everything that happened on the way to the mountain.' },
      ],
    },
  ]
  const first = await client.chat.completions.create({
    model: 'tiny',
    messages,
    max_completion_tokens: 60,
    temperature: 0,
    logprobs: true,
    top_logprobs: 3,
  })
  const answer = first.choices[0]?.message.content as string
  t.true(answer.length > 0)
  t.is(first.choices[0]?.logprobs?.content?.map((c) => c.token).join(''), answer)
  t.is(first.choices[0]?.logprobs?.content?.[0]?.top_logprobs.length, 3)
  const stream = await client.chat.completions.create({ model: 'tiny', messages, max_tokens: 60, temperature: 0, stream: true })
  let text = ''
  const roles: string[] = []
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? ''
    if (chunk.choices[0]?.delta.role) roles.push(chunk.choices[0].delta.role)
  }
  t.is(text, answer)
  t.deepEqual(roles, ['assistant'])
  // The answer goes back as it came, with its null for a refusal.
  const message = first.choices[0]?.message as { role: 'assistant'; content: string; refusal: null }
  t.is(message.refusal, null)
  const next = await client.chat.completions.create({
    model: 'tiny',
    messages: [...messages, message, { role: 'user', content: 'Go on.' }],
    max_tokens: 4,
    temperature: 0,
  })
  t.true((next.usage?.prompt_tokens_details?.cached_tokens ?? 0) >= 32, JSON.stringify(next.usage))
})

test('unsupported, unknown and out-of-range fields are refused by name, and the server goes on', async (t) => {
  const { client, address } = await served(t)
  for (const [change, status, param, code] of [
    [{ suffix: 'x' }, 400, 'suffix', 'unsupported_parameter'],
    [{ best_of: 2 }, 400, 'best_of', 'unsupported_parameter'],
    [{ model: 'other' }, 404, 'model', 'model_not_found'],
    [{ max_tokens: -2 }, 400, 'max_tokens', 'invalid_value'],
    [{ max_tokens: '5' }, 400, 'max_tokens', 'invalid_value'],
    [{ temperature: -1 }, 400, 'temperature', 'invalid_value'],
    [{ top_p: 5 }, 400, 'top_p', 'invalid_value'],
    [{ n: 1e9 }, 400, 'n', 'invalid_value'],
    [{ seed: 1.5 }, 400, 'seed', 'invalid_value'],
    [{ prompt: [] }, 400, 'prompt', 'invalid_value'],
    [{ prompt: [99999999] }, 400, 'prompt', 'token_invalid'],
    [{ prompt: 'word '.repeat(5000) }, 400, 'prompt', 'context_length_exceeded'],
    [{ stop_token_ids: [99999999] }, 400, 'stop_token_ids', 'invalid_value'],
    [{ echo: 1 }, 400, 'echo', 'invalid_value'],
    [{ include_stop_str_in_output: true }, 400, 'include_stop_str_in_output', 'unsupported_parameter'],
    [{ logit_bias: { x: 1 } }, 400, 'logit_bias', 'invalid_value'],
  ] as const) {
    const error = await t.throwsAsync(
      client.completions.create({ model: 'tiny', prompt: PROMPT, ...(change as object) }),
      { instanceOf: OpenAI.APIError },
      JSON.stringify(change).slice(0, 80),
    )
    const { status: actual, param: named, code: given } = error as InstanceType<typeof OpenAI.APIError>
    t.deepEqual([actual, named, given], [status, param, code], `${JSON.stringify(change).slice(0, 80)}: ${error?.message}`)
  }
  const post = (body: string | Buffer, headers: Record<string, string> = { 'content-type': 'application/json' }) =>
    fetch(`${address}/v1/completions`, { method: 'POST', body, headers })
  for (const [more, named] of [
    [{ refusal: 'no' }, 'messages.0.refusal'],
    [{ name: 5 }, 'messages.0.name'],
    [{ content: null }, 'messages.0.content'],
  ] as const) {
    const messages = [{ role: 'user', content: 'Go on.', ...more }] as unknown as { role: 'user'; content: string }[]
    const error = await t.throwsAsync(client.chat.completions.create({ model: 'tiny', messages }), { instanceOf: OpenAI.APIError })
    t.is((error as InstanceType<typeof OpenAI.APIError>).param, named)
  }
  for (const [response, status] of [
    [post('{'), 400],
    [post('[]'), 400],
    [post('null'), 400],
    [post('"x"'), 400],
    [post(Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d])), 400],
    [post('x'.repeat(9 << 20)), 413],
    [post('{}', { 'content-type': 'text/plain' }), 415],
    [fetch(`${address}/nowhere`), 404],
    [fetch(`${address}/v1/completions`), 404],
  ] as const) {
    const answered = await response
    t.is(answered.status, status)
    t.is(typeof ((await answered.json()) as { error: { message: string } }).error.message, 'string')
  }
  t.is((await client.completions.create({ model: 'tiny', prompt: PROMPT, max_tokens: 2 })).usage?.completion_tokens, 2)
  // Clients send null for what they leave out.
  t.is((await post(JSON.stringify({ model: 'tiny', prompt: PROMPT, max_tokens: 2, stop: null, logprobs: null }))).status, 200)
})

test('an API key is asked for, another name or another page is refused, health is open', async (t) => {
  const { address, port } = await served(t, { apiKey: 'secret' })
  const get = (path: string, headers: Record<string, string> = {}) => fetch(`${address}${path}`, { headers })
  t.is((await get('/v1/models')).status, 401)
  t.is((await get('/v1/models', { authorization: 'Bearer wrong' })).status, 401)
  t.is((await get('/metrics')).status, 401)
  const models = await get('/v1/models', { authorization: 'Bearer secret' })
  t.is(models.status, 200)
  t.is(((await models.json()) as { data: { id: string }[] }).data[0]?.id, 'tiny')
  for (const path of ['/health', '/ready']) t.is((await get(path)).status, 200)
  t.is((await get('/health', { origin: 'https://evil.example' })).status, 403)
  t.is((await get('/health', { origin: address })).status, 200)
  const raw = await exchange(port, `GET /health HTTP/1.1\r\nHost: evil.example:${port}\r\nConnection: close\r\n\r\n`)
  t.regex(raw, /^HTTP\/1\.1 403/)
  for (const host of ['192.168.7.7', `192.168.7.7:${port}`, `[fe80::1]:${port}`]) {
    const answered = await exchange(port, `GET /health HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
    t.regex(answered, /^HTTP\/1\.1 200/, host)
  }
  // A header can't be smuggled into an answer.
  const injected = await exchange(
    port,
    `GET /x%0d%0aset-cookie:%20a=b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\nConnection: close\r\n\r\n`,
  )
  t.notRegex(injected, /^set-cookie/im)
})

test('metrics have vLLM’s names and count what was done', async (t) => {
  const { client, address } = await served(t)
  await client.completions.create({ model: 'tiny', prompt: PROMPT, max_tokens: 5, temperature: 0 })
  const text = await (await fetch(`${address}/metrics`)).text()
  t.regex(text, /^vllm:generation_tokens_total\{model_name="tiny"\} 5$/m)
  t.regex(text, /^vllm:request_success_total\{model_name="tiny",finished_reason="length"\} 1$/m)
  t.regex(text, /^vllm:time_to_first_token_seconds_count\{model_name="tiny"\} 1$/m)
  for (const name of [
    'vllm:num_requests_running',
    'vllm:num_requests_waiting',
    'vllm:kv_cache_usage_perc',
    'vllm:e2e_request_latency_seconds_sum',
    'tetrad:rank_cache_bytes_read_total',
  ])
    t.true(text.includes(`\n${name}{`), name)
})

test('a client that goes away ends its request, and one that never reads is cut without holding up others', async (t) => {
  const { client, address } = await served(t)
  /** Tokens of everything since the last call. */
  let before = engine.stats().generatedTokens
  const generated = () => {
    const { generatedTokens } = engine.stats()
    const since = generatedTokens - before
    before = generatedTokens
    return since
  }
  const isIdle = () => engine.stats().running === 0
  const gone = new AbortController()
  const stream = await client.completions.create(
    { model: 'tiny', prompt: PROMPT, max_tokens: 900, temperature: 0, stream: true, ...{ ignore_eos: true } },
    { signal: gone.signal },
  )
  for await (const _ of stream) break
  gone.abort()
  await until(isIdle)
  t.true(generated() < 900)
  const whole = new AbortController()
  const waiting = fetch(`${address}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'tiny', prompt: PROMPT, max_tokens: 900, ignore_eos: true }),
    signal: whole.signal,
  }).catch(() => 'aborted')
  await until(() => engine.stats().running === 1)
  whole.abort()
  t.is(await waiting, 'aborted')
  await until(isIdle)
  t.true(generated() < 900)
  const body = JSON.stringify({ model: 'tiny', prompt: PROMPT, max_tokens: 900, ignore_eos: true, stream: true, n: 4, logprobs: 20 })
  // Over TCP the system's buffers would hold the whole answer; those of a Unix socket do not.
  const path = join(temporary(t), 'socket')
  const local = createServer(new Map([['tiny', { id: 'tiny', engine, template: PLAIN, created: 1 }]]), { stalledMs: 1500 })
  t.teardown(() => local.app.close())
  await local.app.listen({ path })
  const socket = connect(path)
  socket.pause()
  socket.write(`POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
  socket.on('error', () => {})
  await until(() => engine.stats().running === 4)
  const other = await client.completions.create({ model: 'tiny', prompt: PROMPT, max_tokens: 4 })
  t.is(other.usage?.completion_tokens, 4)
  await until(isIdle)
  t.true(generated() < 4 * 900)
  socket.destroy()
})

test('half-closed and slow sockets, and a request in pieces', async (t) => {
  const { port, address } = await served(t, { arrivalTimeoutMs: 1000 })
  const slow = connect(port, '127.0.0.1')
  slow.write('POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n')
  slow.on('error', () => {})
  const half = connect(port, '127.0.0.1')
  half.on('error', () => {})
  half.end('GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n')
  const [data] = (await once(half, 'data')) as [Buffer]
  t.regex(data.toString(), /^HTTP\/1\.1 200/)
  const body = JSON.stringify({ model: 'tiny', prompt: PROMPT, max_tokens: 2 })
  const pieces = connect(port, '127.0.0.1')
  for (const piece of [
    `POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n`,
    `Content-Length: ${body.length}\r\n\r\n`,
    body.slice(0, 10),
    body.slice(10),
  ]) {
    pieces.write(piece)
    await setTimeout(30)
  }
  const [answer] = (await once(pieces, 'data')) as [Buffer]
  t.regex(answer.toString(), /^HTTP\/1\.1 200/)
  t.is((await fetch(`${address}/health`)).status, 200)
  for (const socket of [slow, half, pieces]) socket.destroy()
})

test('beyond the queue requests are refused with 429 and Retry-After, and every admitted one completes', async (t) => {
  const { address } = await served(t)
  const one = async () => {
    const response = await fetch(`${address}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'tiny', prompt: PROMPT, max_tokens: 24, temperature: 0, ignore_eos: true }),
    })
    const body = (await response.json()) as { choices?: { text: string }[] }
    return { status: response.status, retry: response.headers.get('retry-after'), text: body.choices?.[0]?.text }
  }
  const all = await Promise.all(Array.from({ length: 30 }, one))
  const done = all.filter((r) => r.status === 200)
  const refused = all.filter((r) => r.status === 429)
  t.is(done.length + refused.length, 30)
  t.true(done.length >= 10 && refused.length > 0, `${done.length} done`)
  t.is(new Set(done.map((r) => r.text)).size, 1)
  t.true(refused.every((r) => Number(r.retry) >= 1))
})

test('a rank dies in the middle of a stream, and the client sees the same text without a gap', async (t) => {
  const { client } = await served(t)
  const expected = (await engine.generate(PROMPT, { maxTokens: 60, temperature: 0 })).text
  let text = ''
  let chunks = 0
  for await (const chunk of await client.completions.create({ model: 'tiny', prompt: PROMPT, max_tokens: 60, temperature: 0, stream: true })) {
    text += chunk.choices[0]?.text ?? ''
    if (++chunks === 5) injectFault(engine, { rank: 1, kind: 'exit' })
  }
  t.is(text, expected)
})

test('draining: ready says so, new requests are refused, a running stream ends whole', async (t) => {
  const { client, drain, address } = await served(t)
  const stream = await client.completions.create({
    model: 'tiny',
    prompt: PROMPT,
    max_tokens: 80,
    temperature: 0,
    stream: true,
    ...{ ignore_eos: true },
  })
  const iterator = stream[Symbol.asyncIterator]()
  await iterator.next()
  drain()
  t.is((await fetch(`${address}/ready`)).status, 503)
  const error = await t.throwsAsync(client.completions.create({ model: 'tiny', prompt: PROMPT }))
  t.is((error as InstanceType<typeof OpenAI.APIError>).status, 503)
  let finish: unknown
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) finish = next.value.choices[0]?.finish_reason ?? finish
  t.is(finish, 'length')
})

test('a body that is too large is refused with 413, which the client gets while it still writes', async (t) => {
  const { address } = await served(t)
  for (let i = 0; i < 20; i++) {
    const response = await fetch(`${address}/v1/completions`, {
      method: 'POST',
      body: ' '.repeat(9 << 20),
      headers: { 'content-type': 'application/json' },
    })
    t.is(response.status, 413)
    t.is(((await response.json()) as { error: { code: string } }).error.code, 'request_too_large')
  }
})

test('a connection that has sent nothing does not hold up the end', async (t) => {
  const { app, address, port } = await served(t)
  const opened = once(app.server, 'connection')
  const socket = connect(port, '127.0.0.1')
  await opened
  t.is((await fetch(`${address}/health`)).status, 200)
  const ended = once(socket, 'close')
  t.is(await Promise.race([app.close().then(() => 'closed'), setTimeout(10_000, 'still open')]), 'closed')
  await ended
})

test('an open live page does not hold up the end', async (t) => {
  const { app, address } = await served(t)
  const live = await fetch(`${address}/live`)
  const reader = (live.body as ReadableStream<Uint8Array>).getReader()
  t.regex(Buffer.from((await reader.read()).value as Uint8Array).toString(), /^data: \{"models":\[\{"id":"tiny"/)
  const closed = app.close().then(() => 'closed')
  const drained = (async () => {
    while (!(await reader.read()).done);
  })()
  t.is(await Promise.race([closed, setTimeout(10_000, 'still open')]), 'closed')
  await drained
})

test('the plain chat template, and a checkpoint without one', async (t) => {
  const template = await loadChatTemplate(TINY)
  t.is(template.origin, 'plain')
  t.is(
    template.render([
      { role: 'system', content: 'Be short.' },
      { role: 'user', content: 'Hi' },
    ]),
    'System: Be short.\nUser: Hi\nAssistant:',
  )
})

/** All that a socket says until it ends. */
async function exchange(port: number, request: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  let text = ''
  socket.on('data', (data) => {
    text += data
  })
  socket.write(request)
  await once(socket, 'close')
  return text
}
