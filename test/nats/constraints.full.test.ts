// Structured output and tools through a cluster: the schema travels, and a replica that dies in the middle changes nothing.
import { ok } from 'node:assert'
import test from 'ava'
import { Engine } from '../../src/index.js'
import { TINY } from '../support/fixtures.js'
import { natsServer, natsTest, replica } from '../support/nats.js'
import { front } from '../support/nats-front.js'

const engine = await Engine.load(TINY, { ranks: 1, maxRunning: 8, cacheTokens: 8192 })
test.after.always(() => engine.close())

const schema = {
  type: 'object',
  properties: { name: { type: 'string', maxLength: 8 }, ages: { type: 'array', items: { type: 'integer', minimum: 0, maximum: 120 }, minItems: 60 } },
  required: ['name', 'ages'],
}

natsTest('a text under a schema is the engine’s own, also when its replica is killed', async (t) => {
  t.timeout(400_000)
  const server = await natsServer(t)
  const replicas = await Promise.all([replica(t, server.url), replica(t, server.url)])
  const { client } = await front(t, server.url)
  const own = await engine.generate('Once upon a time', { jsonSchema: schema, maxTokens: 150, temperature: 0.8, seed: 3 })
  const request = { model: 'tiny', prompt: 'Once upon a time', max_tokens: 150, temperature: 0.8, seed: 3, json_schema: schema } as const
  const whole = await client.completions.create(request)
  t.is(whole.choices[0]?.text, own.text)
  let streamed = ''
  let killed = false
  for await (const { choices } of await client.completions.create({ ...request, stream: true })) {
    streamed += choices[0]?.text ?? ''
    if (killed || streamed.length < 20) continue
    killed = true
    ok(replicas[0])
    replicas[0].child.kill('SIGKILL')
  }
  t.true(killed)
  t.is(streamed, own.text)
  const call = await client.chat.completions.create({
    model: 'tiny',
    messages: [{ role: 'user', content: 'Hi' }],
    tools: [{ type: 'function', function: { name: 'now' } }],
    tool_choice: 'required',
    parallel_tool_calls: false,
    max_tokens: 60,
  })
  t.is(call.choices[0]?.finish_reason, 'tool_calls')
  await t.throwsAsync(client.completions.create({ ...request, json_schema: { not: {} } } as never), { message: /not: this keyword/ })
  await t.throwsAsync(client.completions.create({ ...request, json_schema: undefined, grammar: 'root ::= x' } as never), {
    message: /"x" is not defined/,
  })
})
