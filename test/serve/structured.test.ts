// Answers under a schema or a grammar, asked by the official client.
import test, { type ExecutionContext } from 'ava'
import OpenAI from 'openai'
import { Engine } from '../../src/index.js'
import { createServer } from '../../src/serve/server.js'
import { PLAIN } from '../../src/tokenizer/chat-template.js'
import { TINY } from '../support/fixtures.js'

const engine = await Engine.load(TINY, { ranks: 1, maxRunning: 4 })
test.after.always(() => engine.close())

async function served(t: ExecutionContext) {
  const { app } = createServer(new Map([['tiny', { id: 'tiny', engine, template: PLAIN, created: 1 }]]), {})
  t.teardown(() => app.close())
  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  return new OpenAI({ baseURL: `${address}/v1`, apiKey: 'none', maxRetries: 0 })
}

const messages = [{ role: 'user', content: 'Who are you?' }] as const
const schema = {
  type: 'object',
  properties: { name: { type: 'string', maxLength: 12 }, sure: { type: 'boolean' }, nothing: { const: null } },
  required: ['name', 'sure', 'nothing'],
  additionalProperties: false,
}

test('response_format: json_schema and json_object, streamed or not, in chats and completions', async (t) => {
  const client = await served(t)
  const request = {
    ...{ model: 'tiny', messages: [...messages], max_tokens: 60, seed: 1 },
    response_format: { type: 'json_schema', json_schema: { name: 'answer', strict: true, schema } },
  } as const
  const whole = await client.chat.completions.create(request)
  t.is(whole.choices[0]?.finish_reason, 'stop')
  const answer = JSON.parse(whole.choices[0]?.message.content ?? '')
  t.deepEqual([Object.keys(answer), answer.nothing, typeof answer.sure], [['name', 'sure', 'nothing'], null, 'boolean'])
  let text = ''
  for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) text += chunk.choices[0]?.delta.content ?? ''
  t.is(text, whole.choices[0]?.message.content ?? '')
  const cut = await client.chat.completions.create({ ...request, response_format: { type: 'json_object' }, max_tokens: 2 })
  t.is(cut.choices[0]?.finish_reason, 'length')
  t.true(cut.choices[0]?.message.content?.startsWith('{'))
  const more = { guided_choice: ['yes', 'no'] }
  const completion = await client.completions.create({ model: 'tiny', prompt: 'Is it?', max_tokens: 9, ...more })
  t.true(more.guided_choice.includes(completion.choices[0]?.text ?? ''))
})

test('what cannot be kept is a 400 that names the field and the keyword; the next request is served', async (t) => {
  const client = await served(t)
  const refused = async (fields: object, param: string | null, message: RegExp) => {
    const error = await t.throwsAsync(
      async () => client.chat.completions.create({ model: 'tiny', messages: [...messages], max_tokens: 9, ...fields }),
      {
        instanceOf: OpenAI.BadRequestError,
        message,
      },
    )
    t.is((error as InstanceType<typeof OpenAI.BadRequestError>).param, param)
  }
  const format = (json: object) => ({ response_format: { type: 'json_schema', json_schema: { name: 'a', schema: json } } })
  await refused(
    format({ type: 'object', properties: { a: { not: {} } } }),
    'response_format',
    /not: this keyword is not supported \(at #\/properties\/a\)/,
  )
  await refused({ ...format(schema), regex: 'a' }, 'regex', /exclude each other/)
  await refused({ response_format: { type: 'json_schema' } }, 'response_format', /needs json_schema/)
  await refused({ grammar: 'root ::= nothing' }, null, /"nothing" is not defined/)
  await refused({ guided_regex: '(?=a)' }, 'guided_regex', /lookahead/)
  t.is(
    (await client.chat.completions.create({ model: 'tiny', messages: [...messages], choice: ['yes'] } as never)).choices[0]?.message.content,
    'yes',
  )
})
