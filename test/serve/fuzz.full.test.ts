// Any body at all: the server answers with an error in OpenAI's shape or a completion, and goes on.
import test from 'ava'
import fc from 'fast-check'
import { Engine } from '../../src/index.js'
import { CHAT_SCHEMA, COMPLETION_SCHEMA } from '../../src/serve/request-schema.js'
import { createServer } from '../../src/serve/server.js'
import { PLAIN } from '../../src/tokenizer/chat-template.js'
import { TINY } from '../support/fixtures.js'

/** Of a fixed seed, unless SERVE_FUZZ_RUNS asks for more. */
const RUNS = process.env.SERVE_FUZZ_RUNS ? { numRuns: Number(process.env.SERVE_FUZZ_RUNS) } : { numRuns: 150, seed: 20261126 }

test('bodies of known fields with any values, and of any fields: 200, or 4xx with a message; never 5xx', async (t) => {
  t.timeout(300_000)
  const engine = await Engine.load(TINY, { ranks: 1, maxRunning: 8, cacheTokens: 2048 })
  const { app } = createServer(new Map([['tiny', { id: 'tiny', engine, template: PLAIN, created: 1 }]]))
  t.teardown(async () => {
    await app.close()
    await engine.close()
  })
  const number = fc.oneof(fc.integer({ min: -2, max: 8 }), fc.double({ noNaN: true }), fc.constantFrom(1e308, -1e308, 2 ** 53, 0.5, -0))
  const any = fc.oneof(
    number,
    fc.string(),
    fc.boolean(),
    fc.constant(null),
    fc.array(fc.oneof(number, fc.string()), { maxLength: 4 }),
    fc.dictionary(fc.string(), number, { maxKeys: 3 }),
  )
  const bodyOf = (schema: { properties: object }, always: Record<string, unknown>) =>
    fc
      .dictionary(
        fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...Object.keys(schema.properties)) }, { weight: 1, arbitrary: fc.string() }),
        any,
        { maxKeys: 4 },
      )
      .map((fields): Record<string, unknown> => ({ ...always, ...fields }))
      // A long answer proves nothing more.
      .map((body) => ({
        ...body,
        ...(typeof body.max_tokens !== 'string' && { max_tokens: 2 }),
        // Streams need a socket, which there is none of here.
        ...(body.stream === true && { stream: false }),
        ...(typeof body.n === 'number' && body.n > 4 && { n: 3 }),
      }))
  const seen = new Set<number>()
  const property = (url: string, body: fc.Arbitrary<object>) =>
    fc.asyncProperty(body, async (payload) => {
      const response = await app.inject({ method: 'POST', url, payload, headers: { host: 'localhost' } })
      seen.add(response.statusCode)
      if (response.statusCode === 200) return
      const { error } = response.json() as { error: { message: unknown; type: unknown } }
      if (response.statusCode >= 500 || typeof error.message !== 'string' || typeof error.type !== 'string')
        throw new Error(`${response.statusCode}: ${response.body}`)
    })
  await t.notThrowsAsync(fc.assert(property('/v1/completions', bodyOf(COMPLETION_SCHEMA, { model: 'tiny', prompt: 'a' })), RUNS) as Promise<void>)
  await t.notThrowsAsync(
    fc.assert(
      property('/v1/chat/completions', bodyOf(CHAT_SCHEMA, { model: 'tiny', messages: [{ role: 'user', content: 'a' }] })),
      RUNS,
    ) as Promise<void>,
  )
  // Fields of the other endpoints, with parts and items of any kind below them.
  const kinds = ['text', 'input_text', 'output_text', 'message', 'function_call', 'function_call_output', 'tool_use', 'tool_result', 'function']
  const { part } = fc.letrec((tie) => ({
    part: fc.oneof(
      { maxDepth: 3 },
      any,
      fc.dictionary(fc.constantFrom('role', 'content', 'text', 'output', 'name', 'arguments', 'input', 'call_id', 'id'), tie('part'), { maxKeys: 3 }),
      fc.record({ type: fc.constantFrom(...kinds), role: fc.constantFrom('user', 'assistant'), content: tie('part'), output: tie('part') }),
      fc.array(tie('part'), { maxLength: 3 }),
    ),
  }))
  const fields = (names: readonly string[], always: object) =>
    fc.dictionary(fc.constantFrom(...names), part, { maxKeys: 3 }).map((given) => ({ ...always, ...given }))
  for (const [url, names, always] of [
    [
      '/v1/responses',
      ['input', 'instructions', 'text', 'tools', 'tool_choice', 'include', 'metadata', 'reasoning', 'store'],
      { max_output_tokens: 2 },
    ],
    ['/v1/messages', ['messages', 'system', 'tools', 'tool_choice', 'stop_sequences', 'metadata', 'thinking', 'temperature'], { max_tokens: 2 }],
    ['/v1/messages/count_tokens', ['messages', 'system', 'tools'], {}],
    ['/tokenize', ['prompt', 'messages', 'add_special_tokens', 'chat_template_kwargs'], {}],
    ['/detokenize', ['tokens'], {}],
  ] as const) {
    const plain = url === '/v1/responses' ? { input: 'a' } : url.startsWith('/v1/messages') ? { messages: [{ role: 'user', content: 'a' }] } : {}
    const model = { model: 'tiny', ...plain, ...always }
    await t.notThrowsAsync(fc.assert(property(url, fields(names, model)), RUNS) as Promise<void>, url)
  }
  await t.notThrowsAsync(
    fc.assert(
      property(
        '/v1/completions',
        fc.anything().map((v) => ({ v })),
      ),
      RUNS,
    ) as Promise<void>,
  )
  t.true(seen.has(200) && seen.has(400), [...seen].join())
  t.is(engine.stats().running, 0)
})
