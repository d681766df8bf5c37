// /v1/responses with OpenAI's own client: the same text as a chat, its events in order, and what needs state refused by name.
import test, { type ExecutionContext } from 'ava'
import OpenAI from 'openai'
import type { ResponseStreamEvent } from 'openai/resources/responses/responses'
import { Engine } from '../../src/index.js'
import { createServer } from '../../src/serve/server.js'
import { PLAIN } from '../../src/tokenizer/chat-template.js'
import { TINY } from '../support/fixtures.js'

const engine = await Engine.load(TINY, { ranks: 1, maxRunning: 4, maxQueue: 4, cacheTokens: 4096 })
test.after.always(() => engine.close())

async function served(t: ExecutionContext) {
  const { app } = createServer(new Map([['tiny', { id: 'tiny', engine, template: PLAIN, created: 1 }]]))
  t.teardown(() => app.close())
  const baseURL = `${await app.listen({ port: 0, host: '127.0.0.1' })}/v1`
  return new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 })
}

const ASKED = { model: 'tiny', max_output_tokens: 12, temperature: 0 } as const
const CONVERSATION = [
  { role: 'system', content: 'Tell stories.' },
  { role: 'user', content: 'The king' },
  { role: 'assistant', content: 'was old.' },
  { role: 'user', content: 'Go on.' },
] as const

test('a response has the text of the same chat, whatever form the input has', async (t) => {
  const client = await served(t)
  const chat = await client.chat.completions.create({ model: 'tiny', messages: [...CONVERSATION], max_completion_tokens: 12, temperature: 0 })
  const text = chat.choices[0]?.message.content ?? ''
  const [system, first, answer, last] = CONVERSATION
  const parts = (type: 'input_text' | 'output_text', content: string) => [{ type, text: content, annotations: [] }] as never
  for (const input of [
    { input: [...CONVERSATION] },
    { instructions: system.content, input: [first, answer, last] },
    {
      instructions: system.content,
      input: [
        { type: 'message', role: 'user', content: parts('input_text', first.content) },
        { type: 'message', id: 'msg_1', status: 'completed', role: 'assistant', content: parts('output_text', answer.content) },
        last,
      ],
    },
  ] as const) {
    const response = await client.responses.create({ ...ASKED, ...(input as { input: never }), metadata: { a: 'b' }, store: true })
    t.is(response.output_text, text)
    const { status, incomplete_details: details, usage, metadata } = response
    t.deepEqual(
      [status, details, metadata, (response as { store?: boolean }).store],
      ['incomplete', { reason: 'max_output_tokens' }, { a: 'b' }, false],
    )
    t.deepEqual([usage?.input_tokens, usage?.output_tokens], [chat.usage?.prompt_tokens, chat.usage?.completion_tokens])
  }
  const alone = await client.responses.create({ ...ASKED, input: 'The king', stop: ['\n'] } as never)
  t.is(alone.output_text, (await engine.chat([{ role: 'user', content: 'The king' }], { maxTokens: 12, stop: ['\n'] })).text)
})

test('a stream has the events in order, and their deltas are the text', async (t) => {
  const client = await served(t)
  const body = { ...ASKED, input: 'The king', top_logprobs: 2 }
  const whole = await client.responses.create(body)
  const events: ResponseStreamEvent[] = []
  for await (const event of await client.responses.create({ ...body, stream: true })) events.push(event)
  t.deepEqual(
    events.map((event) => event.sequence_number),
    events.map((_, i) => i),
  )
  const types = events.map(({ type }) => type).filter((type, i, all) => type !== all[i - 1])
  t.deepEqual(types, [
    'response.created',
    'response.in_progress',
    'response.output_item.added',
    'response.content_part.added',
    'response.output_text.delta',
    'response.output_text.done',
    'response.content_part.done',
    'response.output_item.done',
    'response.incomplete',
  ])
  const deltas = events.flatMap((event) => (event.type === 'response.output_text.delta' ? [event] : []))
  t.is(deltas.map(({ delta }) => delta).join(''), whole.output_text)
  const [part] = (whole.output[0] as { content: { logprobs: unknown[] }[] }).content
  t.deepEqual(
    deltas.flatMap(({ logprobs }) => logprobs as unknown[]),
    part?.logprobs,
  )
  t.is(part?.logprobs.length, whole.usage?.output_tokens)
  const final = await client.responses.stream(body).finalResponse()
  t.is(final.output_text, whole.output_text)
  t.is(final.usage?.output_tokens, whole.usage?.output_tokens)
})

test('what needs state or is not text is refused by its name', async (t) => {
  const client = await served(t)
  const input = (item: object) => [{ role: 'user', content: 'x' }, item]
  for (const [change, param] of [
    [{ previous_response_id: 'resp_1' }, 'previous_response_id'],
    [{ background: true }, 'background'],
    [{ conversation: 'conv_1' }, 'conversation'],
    [{ prompt: { id: 'p' } }, 'prompt'],
    [{ truncation: 'auto' }, 'truncation'],
    [{ reasoning: { effort: 'high' } }, 'reasoning'],
    [{ include: ['file_search_call.results'] }, 'include'],
    [{ input: input({ type: 'item_reference', id: 'x' }) }, 'input.1.type'],
    [{ input: input({ role: 'user', content: [{ type: 'input_image', image_url: 'data:,' }] }) }, 'input.1.content.0'],
    [{ input: input({ role: 'robot', content: 'x' }) }, 'input.1.role'],
    [{ tools: [{ type: 'web_search' }] }, 'tools.0.type'],
    [{ max_output_tokens: -1 }, 'max_output_tokens'],
    [{ top_logprobs: 21 }, 'top_logprobs'],
    [{ input: 'word '.repeat(3000) }, 'input'],
    [{ n: 2 }, 'n'],
  ] as const) {
    const error = await t.throwsAsync(client.responses.create({ ...ASKED, input: 'x', ...(change as object) } as never), {
      instanceOf: OpenAI.APIError,
    })
    const { status, param: named } = error as InstanceType<typeof OpenAI.APIError>
    t.deepEqual([status, named], [400, param], error?.message)
  }
  for (const change of [
    { background: false, previous_response_id: null, include: ['reasoning.encrypted_content'] },
    { reasoning: { effort: null }, truncation: 'disabled', service_tier: 'auto', text: {} },
    { tools: [], tool_choice: 'auto', parallel_tool_calls: true, text: { format: { type: 'text' }, verbosity: 'medium' } },
  ])
    t.is((await client.responses.create({ ...ASKED, input: 'x', max_output_tokens: 1, ...change } as never)).usage?.output_tokens, 1)
})
