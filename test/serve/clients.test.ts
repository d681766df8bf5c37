// What real clients send and need: fields that ask for nothing, CORS, probabilities of partial characters, quiet streams, limits.
import { setTimeout } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { Engine, type EngineOptions } from '../../src/index.js'
import { createServer, type ServerOptions } from '../../src/serve/server.js'
import { ServiceTimes } from '../../src/serve/service-times.js'
import { keepWarm } from '../../src/serve/sse.js'
import { injectFault } from '../../src/testing.js'
import { PLAIN } from '../../src/tokenizer/chat-template.js'
import { loadTokenizer } from '../../src/tokenizer/tokenizer.js'
import { TINY } from '../support/fixtures.js'

const engine = await Engine.load(TINY, { ranks: 1, maxRunning: 4, maxQueue: 4, cacheTokens: 4096 })
test.after.always(() => engine.close())

async function served(t: ExecutionContext, options: ServerOptions = {}, other?: Engine, id = 'tiny') {
  const server = createServer(new Map([[id, { id, engine: other ?? engine, template: PLAIN, created: 1 }]]), options)
  t.teardown(() => server.app.close())
  const address = await server.app.listen({ port: 0, host: '127.0.0.1' })
  const post = async (path: string, body: object, headers: Record<string, string> = {}) => {
    const response = await fetch(`${address}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    })
    const text = await response.text()
    return { status: response.status, headers: response.headers, text, json: text.startsWith('{') ? JSON.parse(text) : undefined }
  }
  return { ...server, address, post }
}

async function loaded(t: ExecutionContext, options: EngineOptions): Promise<Engine> {
  const made = await Engine.load(TINY, options)
  t.teardown(() => made.close())
  return made
}

const COMPLETION = { model: 'tiny', prompt: 'Once upon a time', max_tokens: 3, temperature: 0 }
const CHAT = { model: 'tiny', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 3, temperature: 0 }

test('fields and values that ask for nothing leave the answer as it is', async (t) => {
  const { post } = await served(t)
  const plain = (await post('/v1/completions', COMPLETION)).json.choices[0].text
  for (const extra of [
    { best_of: 1 },
    { top_k: -1 },
    { top_k: 0 },
    { seed: -1 },
    { seed: -7 },
    { seed: 2 ** 60 },
    { stop: '' },
    { stop: [] },
    { stop: ['', ''] },
    { echo: false, suffix: '', add_special_tokens: true },
    { store: true, prompt_cache_retention: '24h', safe_prompt: false },
    { store: false, metadata: { a: 'b' }, service_tier: 'auto', prompt_cache_key: 'k', safety_identifier: 's' },
    { skip_special_tokens: true, use_beam_search: false, cache_prompt: true, length_penalty: 1 },
    { stream_options: { include_usage: true } },
    { logit_bias: {} },
  ]) {
    const { status, json } = await post('/v1/completions', { ...COMPLETION, ...extra })
    t.is(status, 200, `${JSON.stringify(extra)}: ${JSON.stringify(json)}`)
    t.is(json.choices[0].text, plain, JSON.stringify(extra))
  }
  for (const extra of [
    { tools: [], tool_choice: 'auto', parallel_tool_calls: true },
    { tool_choice: 'none', functions: [], function_call: 'none' },
    { functions: [], function_call: 'auto', parallel_tool_calls: false, prediction: null },
    { messages: [{ role: 'user', content: 'Hi', name: 'Ann' }] },
    { modalities: ['text'], verbosity: 'medium', reasoning_effort: 'none' },
    { top_logprobs: 0 },
    { max_tokens: 3, messages: [...CHAT.messages, { role: 'assistant', content: 'a', annotations: [], tool_calls: [] }, ...CHAT.messages] },
  ])
    t.is((await post('/v1/chat/completions', { ...CHAT, ...extra })).status, 200, JSON.stringify(extra))
  for (const [path, extra, param] of [
    ['/v1/completions', { best_of: 3 }, 'best_of'],
    ['/v1/completions', { top_k: -2 }, 'top_k'],
    ['/v1/completions', { length_penalty: 2 }, 'length_penalty'],
    ['/v1/completions', { stream: true, stream_options: { continuous_usage_stats: true } }, 'stream_options.continuous_usage_stats'],
    ['/v1/chat/completions', { tools: [{ type: 'function' }] }, 'tools.0.function'],
    ['/v1/chat/completions', { service_tier: 'priority' }, 'service_tier'],
    ['/v1/chat/completions', { max_completion_tokens: 2, min_tokens: 5 }, 'min_tokens'],
    ['/v1/chat/completions', { messages: [{ role: 'user', content: 'word '.repeat(3000) }] }, 'messages'],
  ] as const) {
    const { status, json } = await post(path, { ...(path === '/v1/completions' ? COMPLETION : CHAT), ...extra })
    t.deepEqual([status, json.error.param], [400, param], JSON.stringify(json.error))
  }
})

test('seeds out of range are seeds: equal ones give equal texts', async (t) => {
  const { post } = await served(t)
  const text = async (seed: number) =>
    (await post('/v1/completions', { ...COMPLETION, temperature: 1.5, max_tokens: 24, seed, ignore_eos: true })).json.choices[0].text
  for (const seed of [-5, 7, 2 ** 53 + 2]) t.is(await text(seed), await text(seed))
  t.not(await text(-5), await text(-6))
  const mistral = await post('/v1/completions', { ...COMPLETION, temperature: 1.5, max_tokens: 24, random_seed: 7, ignore_eos: true })
  t.is(mistral.json.choices[0].text, await text(7))
  t.is((await post('/v1/completions', { ...COMPLETION, seed: 1, random_seed: 7 })).json.error.param, 'random_seed')
  t.is(await text(7), (await engine.generate(COMPLETION.prompt, { temperature: 1.5, maxTokens: 24, seed: 7, ignoreEos: true })).text)
})

test('errors say what was sent, what is supported, and how to send it', async (t) => {
  const { post, address } = await served(t)
  const image = [{ type: 'image_url', image_url: { url: 'data:,' } }]
  for (const [path, body, message] of [
    ['/v1/chat/completions', { ...CHAT, messages: [{ role: 'user', content: image }] }, /messages\.0\.content\.0: parts of type "image_url"/],
    ['/v1/chat/completions', { ...CHAT, response_format: { type: 'xml' } }, /response_format\.type must be one of text, json_object, json_schema/],
    ['/v1/chat/completions', { ...CHAT, messages: [{ role: 'robot', content: 'x' }] }, /messages\.0\.role must be one of system/],
    ['/v1/completions', { ...COMPLETION, prompt: 'word '.repeat(2000) }, /larger --max-context/],
  ] as const)
    t.regex((await post(path, body)).json.error.message, message)
  const raw = async (body: string, type: string) => {
    const response = await fetch(`${address}/v1/completions`, { method: 'POST', body, headers: { 'content-type': type } })
    return ((await response.json()) as { error: { code: string; message: string } }).error
  }
  t.is((await raw('{', 'application/json')).code, 'invalid_json')
  t.regex((await raw('{}', 'application/x-www-form-urlencoded')).message, /content-type: application\/json/)
})

test('CORS: allowed origins get headers on every answer, and a preflight needs no key', async (t) => {
  const origin = 'http://localhost:3000'
  const { address, post } = await served(t, { origins: [origin], apiKey: 'k' })
  const options = (from: string, path = '/v1/chat/completions') =>
    fetch(`${address}${path}`, {
      method: 'OPTIONS',
      headers: { origin: from, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization,x-stainless-os' },
    })
  const preflight = await options(origin)
  t.is(preflight.status, 204)
  t.is(preflight.headers.get('access-control-allow-origin'), origin)
  t.is(preflight.headers.get('access-control-allow-headers'), 'authorization,x-stainless-os')
  t.regex(preflight.headers.get('access-control-allow-methods') ?? '', /POST/)
  t.is((await options('http://evil.example')).status, 403)
  const denied = await post('/v1/completions', COMPLETION, { origin })
  t.deepEqual([denied.status, denied.headers.get('access-control-allow-origin')], [401, origin])
  for (const stream of [false, true]) {
    const answer = await post('/v1/completions', { ...COMPLETION, stream }, { origin, authorization: 'BEARER k' })
    t.deepEqual([answer.status, answer.headers.get('access-control-allow-origin')], [200, origin])
    t.is(answer.headers.get('vary'), 'Origin')
  }
  const anyone = await served(t, { origins: ['*'] })
  t.is(
    (await anyone.post('/v1/completions', COMPLETION, { origin: 'http://any.example' })).headers.get('access-control-allow-origin'),
    'http://any.example',
  )
  const nobody = await served(t)
  t.is((await nobody.post('/v1/completions', COMPLETION, { origin })).status, 403)
})

test('a model whose name has slashes is found by path, escaped or not', async (t) => {
  const { address, post } = await served(t, {}, undefined, 'org/name-1.5')
  for (const path of ['org/name-1.5', 'org%2Fname-1.5']) {
    const response = await fetch(`${address}/v1/models/${path}`)
    t.is(response.status, 200)
    t.is(((await response.json()) as { id: string }).id, 'org/name-1.5')
  }
  t.is((await fetch(`${address}/v1/models/org/other`)).status, 404)
  t.is((await post('/v1/completions', { ...COMPLETION, model: 'org/name-1.5' })).status, 200)
})

/** Ids of the four bytes of an emoji: the first is forced, and the repetition penalty moves on to the next. */
const EMOJI = { logit_bias: { 173: 1000, 254: 800, 247: 600, 233: 400 }, repetition_penalty: 10, temperature: 0 }

test('tokens that are parts of a character: their bytes join, their names differ, and offsets are those of the character', async (t) => {
  const { post } = await served(t)
  const chat = (await post('/v1/chat/completions', { ...CHAT, ...EMOJI, max_tokens: 4, logprobs: true, top_logprobs: 4 })).json.choices[0]
  const bytes = (entry: { bytes: number[] }) => entry.bytes
  t.deepEqual(chat.logprobs.content.map(bytes), [[0xf0], [0x9f], [0x98], [0x8a]])
  t.is(chat.message.content, '\u{1f60a}')
  t.is(chat.logprobs.content[0].token, 'bytes:\\xf0')
  const body = { ...COMPLETION, ...EMOJI, max_tokens: 5, logprobs: 4 }
  const whole = (await post('/v1/completions', body)).json.choices[0].logprobs
  t.deepEqual(whole.text_offset, [0, 0, 0, 0, 2])
  for (const [i, top] of whole.top_logprobs.entries()) {
    t.true(Object.keys(top).length >= 4, JSON.stringify(top))
    t.is(top[whole.tokens[i]], whole.token_logprobs[i])
  }
  const events = (await post('/v1/completions', { ...body, stream: true })).text.split('\n\n').filter((part) => part.startsWith('data: {'))
  const parts = events.flatMap((event) => JSON.parse(event.slice(6)).choices[0].logprobs ?? [])
  for (const name of ['tokens', 'token_logprobs', 'text_offset', 'top_logprobs'])
    t.deepEqual(
      parts.flatMap((part) => part[name]),
      whole[name],
    )
})

test('the sampled token is among the top ones, however unlikely', async (t) => {
  const { post } = await served(t)
  const sampled = { ...COMPLETION, max_tokens: 20, temperature: 2, seed: 3, ignore_eos: true }
  const { tokens, token_logprobs: own, top_logprobs: top } = (await post('/v1/completions', { ...sampled, logprobs: 1 })).json.choices[0].logprobs
  t.true(top.some((entries: object) => Object.keys(entries).length === 2))
  for (const [i, entries] of top.entries()) t.is(entries[tokens[i]], own[i])
  const chat = (
    await post('/v1/chat/completions', { ...CHAT, max_tokens: 20, temperature: 2, seed: 3, ignore_eos: true, logprobs: true, top_logprobs: 2 })
  ).json
  for (const { token, logprob, top_logprobs: list } of chat.choices[0].logprobs.content)
    t.true(list.some((other: { token: string; logprob: number }) => other.token === token && other.logprob === logprob))
})

test('an engine that failed for good makes health and readiness 503, and nothing is running any more', async (t) => {
  const broken = await loaded(t, { ranks: 2, maxRestarts: 0, cacheTokens: 512 })
  const { address, post } = await served(t, {}, broken)
  for (const path of ['/health', '/ready']) t.is((await fetch(`${address}${path}`)).status, 200)
  injectFault(broken, { rank: 1, kind: 'throw' })
  t.is((await post('/v1/completions', COMPLETION)).status, 503)
  t.is((await post('/v1/completions', COMPLETION)).status, 503)
  for (const path of ['/health', '/ready']) t.is((await fetch(`${address}${path}`)).status, 503)
  const metrics = await (await fetch(`${address}/metrics`)).text()
  t.regex(metrics, /^vllm:num_requests_running\{model_name="tiny"\} 0$/m)
  t.regex(metrics, /^tetrad:request_failures_total\{model_name="tiny",status="503",code="rank_failed"\} 2$/m)
})

test('a request longer than the time limit ends with 504, streamed with an error event, and its engine request ends', async (t) => {
  const { post } = await served(t, { requestTimeoutMs: 150 })
  const long = { ...COMPLETION, max_tokens: 1000, temperature: 1, ignore_eos: true }
  const whole = await post('/v1/completions', long)
  t.deepEqual([whole.status, whole.json.error.code], [504, 'timeout'])
  const streamed = await post('/v1/completions', { ...long, stream: true })
  t.regex(streamed.text, /"code":"timeout"/)
  t.false(streamed.text.includes('[DONE]'))
  for (let i = 0; i < 500 && engine.stats().running > 0; i++) await setTimeout(10)
  t.is(engine.stats().running, 0)
})

test('a quiet stream gets comments, is not cut, and ends whole', async (t) => {
  const { post } = await served(t, { commentMs: 40, stalledMs: 150 })
  // Everything is held back, because it may be the beginning of the stop text.
  const held = { ...COMPLETION, logit_bias: { 65: 1000 }, min_tokens: 1, stop: ['a'.repeat(1000)], max_tokens: 200, stream: true }
  const { text } = await post('/v1/completions', held)
  t.true(text.endsWith('data: [DONE]\n\n'))
  t.true(text.includes('\n\n: keep-alive\n\n'))
})

test('comments come only while nothing else does, and end with the events', async (t) => {
  async function* events(...waits: number[]) {
    for (const ms of waits) {
      await setTimeout(ms)
      yield `${ms}`
    }
  }
  const all = async (stream: AsyncIterable<string>) => {
    const list: string[] = []
    for await (const part of stream) list.push(part)
    return list
  }
  t.deepEqual(await all(keepWarm(events(0, 0), 10_000)), ['0', '0'])
  const quiet = await all(keepWarm(events(0, 200), 20))
  t.is(quiet[0], '0')
  t.is(quiet.at(-1), '200')
  t.true(quiet.length > 2 && quiet.slice(1, -1).every((part) => part === ': keep-alive\n\n'))
  t.deepEqual(await all(keepWarm(events(0, 30), 0)), ['0', '30'])
})

test('a full queue says when to retry, from the time that requests take', async (t) => {
  const small = await loaded(t, { ranks: 1, maxRunning: 1, maxQueue: 0, cacheTokens: 1024 })
  const { post } = await served(t, {}, small)
  const long = small.generate(COMPLETION.prompt, { maxTokens: 1000, ignoreEos: true })
  const chunks = long[Symbol.asyncIterator]()
  await chunks.next()
  const refused = await post('/v1/completions', COMPLETION)
  t.is(refused.status, 429)
  const ms = Number(refused.headers.get('retry-after-ms'))
  t.true(ms >= 100, String(ms))
  t.is(refused.headers.get('retry-after'), String(Math.max(1, Math.ceil(ms / 1000))))
  t.regex(refused.json.error.message, new RegExp(`in about ${ms} ms`))
  await chunks.return()
})

test('the wait for a place: from completed requests, else from the time of a token', (t) => {
  let now = 0
  const times = new ServiceTimes(() => now)
  t.is(times.retryAfterMs(0), 1000)
  const first = times.begin(500)
  now = 1000
  t.is(times.retryAfterMs(0), 100)
  t.is(times.retryAfterMs(10), 4000)
  now = 3000
  first(true)
  const second = times.begin(10)
  now = 4000
  t.is(times.retryAfterMs(10), 2000)
  second(false)
  t.is(times.retryAfterMs(10), 3000)
})

test('metrics: counters are counters, both halves of the hit rate, and a model that left is gone', async (t) => {
  const models = new Map([['tiny', { id: 'tiny', engine, template: PLAIN, created: 1 }]])
  const { app } = createServer(models)
  t.teardown(() => app.close())
  const get = async () => (await app.inject({ url: '/metrics', headers: { host: 'localhost' } })).body
  const ask = () => app.inject({ method: 'POST', url: '/v1/completions', payload: { ...COMPLETION, top_p: 1 }, headers: { host: 'localhost' } })
  await ask()
  const { length: prompt } = await engine.tokenize(COMPLETION.prompt)
  const text = await get()
  for (const name of ['vllm:num_preemptions_total', 'tetrad:restarts_total', 'tetrad:rank_cache_bytes_read_total', 'vllm:prefix_cache_hits_total'])
    t.true(text.includes(`# TYPE ${name} counter`), name)
  t.regex(text, new RegExp(`^vllm:prefix_cache_queries_total\\{model_name="tiny"\\} ${prompt}$`, 'm'))
  t.is(
    (await app.inject({ method: 'POST', url: '/v1/completions', payload: { ...COMPLETION, top_p: 0 }, headers: { host: 'localhost' } })).statusCode,
    400,
  )
  t.regex(await get(), /^tetrad:request_failures_total\{model_name="tiny",status="400",code="invalid_value"\} 1$/m)
  models.clear()
  t.false((await get()).includes('vllm:num_requests_running{'))
})

test('a stop text that is a special token ends the text', async (t) => {
  const tokenizer = await loadTokenizer(TINY, 4096)
  const [name = ''] = tokenizer?.controlTokens ?? []
  const id = tokenizer?.controlId(name) as number
  t.is(typeof id, 'number')
  const { post } = await served(t)
  const forced = { ...COMPLETION, max_tokens: 5, ignore_eos: true, logit_bias: { [id]: 1000 } }
  t.is((await post('/v1/completions', forced)).json.choices[0].finish_reason, 'length')
  const stopped = (await post('/v1/completions', { ...forced, stop: [name] })).json
  t.is(stopped.choices[0].finish_reason, 'stop')
})
