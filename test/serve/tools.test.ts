// Functions that a model may call: held to their schemas, streamed and whole, through the model's template and without one, by the official clients.
import Anthropic from '@anthropic-ai/sdk'
import { Ajv } from 'ajv'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import OpenAI from 'openai'
import { Engine } from '../../src/index.js'
import { createServer } from '../../src/serve/server.js'
import { callFormOf } from '../../src/serve/tool-calls/call-form.js'
import { CallParser, type CallPart } from '../../src/serve/tool-calls/call-parser.js'
import { templateInput } from '../../src/serve/tool-calls/tool-messages.js'
import { PLAIN, templateOf } from '../../src/tokenizer/chat-template.js'
import { TINY } from '../support/fixtures.js'

const engine = await Engine.load(TINY, { ranks: 1, maxRunning: 4 })
test.after.always(() => engine.close())

/** As Qwen2.5's, in short. */
const QWEN = templateOf({
  source: `{%- if tools %}{{- 'Tools:' }}{%- for tool in tools %}{{- ' ' + (tool | tojson) }}{%- endfor %}
{{- ' as <tool_call>\\n{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call>\\n' }}{%- endif %}
{%- for message in messages %}{{- message.role + ': ' + message.content }}
{%- for call in message.tool_calls or [] %}{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}\\n</tool_call>' }}
{%- endfor %}{{- '\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- 'assistant: ' }}{%- endif %}`,
  bosToken: '',
  eosToken: '',
  controlTokens: ['<|im_end|>'],
})
const LLAMA = templateOf({
  source: `{% if tools %}{{ 'Respond in the format {"name": function name, "parameters": dictionary}.' }}{% endif %}{{ messages[0].content }}`,
  bosToken: '',
  eosToken: '',
})

async function served(t: ExecutionContext, template = PLAIN) {
  const { app } = createServer(new Map([['tiny', { id: 'tiny', engine, template, created: 1 }]]), {})
  t.teardown(() => app.close())
  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  return { address, client: new OpenAI({ baseURL: `${address}/v1`, apiKey: 'none', maxRetries: 0 }) }
}

const parameters = {
  type: 'object',
  properties: {
    city: { type: 'string', maxLength: 8 },
    unit: { enum: ['C', 'F'] },
    days: { type: 'array', items: { type: 'integer' }, maxItems: 2 },
  },
  required: ['city', 'unit', 'days'],
  additionalProperties: false,
}
const weather = { type: 'function', function: { name: 'weather', description: 'Of a city', parameters, strict: true } } as const
const now = { type: 'function', function: { name: 'now' } } as const
const messages = [{ role: 'user', content: 'How is the weather?' }] as const
const base = { model: 'tiny', messages: [...messages], max_tokens: 120, seed: 3 }
const named = { type: 'function', function: { name: 'weather' } } as const
const validate = new Ajv({ strict: false }).compile(parameters)
const TAG = (name: string, given: string) => `<tool_call>\n{"name": "${name}", "arguments": ${given}}\n</tool_call>`

type Delta = { content?: string | null; tool_calls?: { index: number; id?: string; function?: { name?: string; arguments?: string } }[] }

test('a named function is called with arguments of its schema; the stream joins to the whole; each choice has its own', async (t) => {
  for (const template of [PLAIN, QWEN, LLAMA]) {
    const { client } = await served(t, template)
    const request = { ...base, tools: [weather, now], tool_choice: named, n: template === PLAIN ? 2 : 1 }
    const whole = await client.chat.completions.create(request)
    const chunks: { index: number; delta: Delta; finish_reason: string | null }[] = []
    for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) chunks.push(...chunk.choices)
    for (const { index, message, finish_reason: reason } of whole.choices) {
      t.is(reason, 'tool_calls')
      t.is(message.content, null)
      const [call, ...more] = message.tool_calls ?? []
      if (call?.type !== 'function') return t.fail()
      t.deepEqual([call.function.name, more], ['weather', []])
      t.true(validate(JSON.parse(call.function.arguments)), call.function.arguments)
      const own = chunks.filter((chunk) => chunk.index === index)
      const deltas = own.flatMap(({ delta }) => delta.tool_calls ?? [])
      t.is(deltas.map((delta) => delta.function?.arguments ?? '').join(''), call.function.arguments)
      t.true(deltas.length > 2)
      t.deepEqual([deltas[0]?.function?.name, deltas.filter(({ id }) => id !== undefined).length], ['weather', 1])
      t.is(own.at(-1)?.finish_reason, 'tool_calls')
      t.is(own.map(({ delta }) => delta.content ?? '').join(''), '')
    }
  }
})

test('required: a call from the first token, one with parallel_tool_calls false; cut short it is length', async (t) => {
  const { client } = await served(t)
  const final = await client.chat.completions
    .stream({ ...base, tools: [weather, now], tool_choice: 'required', parallel_tool_calls: false })
    .finalChatCompletion()
  const [call] = final.choices[0]?.message.tool_calls ?? []
  t.true(call?.type === 'function' && ['weather', 'now'].includes(call.function.name))
  t.is(final.choices[0]?.finish_reason, 'tool_calls')
  const many = await client.chat.completions.create({ ...base, tools: [now], tool_choice: 'required' })
  for (const { message } of many.choices) {
    t.true((message.tool_calls ?? []).length > 0)
    t.true(message.content === null || '\n<tool_call>\n{"name": "now", "arguments": '.startsWith(message.content), message.content ?? '')
    for (const made of message.tool_calls ?? []) t.deepEqual(made.type === 'function' && made.function, { name: 'now', arguments: '{}' })
  }
  const cut = await client.chat.completions.create({ ...base, tools: [weather], tool_choice: named, max_tokens: 24 })
  t.is(cut.choices[0]?.finish_reason, 'length')
  const early = await client.chat.completions.create({ ...base, tools: [weather], tool_choice: named, max_tokens: 2 })
  t.deepEqual([early.choices[0]?.finish_reason, early.choices[0]?.message.tool_calls], ['length', undefined])
  t.true('<tool_call>\n{"name"'.startsWith(early.choices[0]?.message.content ?? 'none'))
})

test('auto: free text is content, whole and streamed; none shows no functions and calls none', async (t) => {
  const { client } = await served(t, QWEN)
  const request = { ...base, max_tokens: 24, tools: [weather] }
  const whole = await client.chat.completions.create({ ...request, tool_choice: 'auto' })
  let text = ''
  for await (const { choices } of await client.chat.completions.create({ ...request, stream: true })) text += choices[0]?.delta.content ?? ''
  t.is(text, whole.choices[0]?.message.content ?? '')
  t.not(text, '')
  const without = await client.chat.completions.create({ ...base, max_tokens: 24 })
  const none = await client.chat.completions.create({ ...request, tool_choice: 'none', response_format: { type: 'text' } })
  t.deepEqual(none.choices[0]?.message, without.choices[0]?.message)
  t.is(none.usage?.prompt_tokens, without.usage?.prompt_tokens)
  t.true((whole.usage?.prompt_tokens ?? 0) > (none.usage?.prompt_tokens ?? 0))
})

test('calls and their results come to the template as it takes them, and as texts where it knows none', async (t) => {
  const call = { id: 'c1', type: 'function' as const, function: { name: 'weather', arguments: '{"city": "Rome"}' } }
  const chat = {
    model: 'tiny',
    tools: [{ ...weather, function: { name: 'weather', description: 'x<|im_end|>' } }],
    messages: [
      { role: 'user', content: 'Hi' },
      { role: 'assistant', tool_calls: [call, { ...call, id: 'c2', function: { name: 'now', arguments: '' } }] },
      { role: 'tool', tool_call_id: 'c1', content: 'sunny' },
      { role: 'tool', tool_call_id: 'c2', content: [{ type: 'text' as const, text: '12' }] },
    ],
  }
  const render = async (template: typeof PLAIN) => {
    const { messages: given, tools } = templateInput(chat, callFormOf(template))
    const { text, mark } = await template.prompt(given, {}, tools)
    return text.replaceAll(mark ?? '', '')
  }
  const calls = `${TAG('weather', '{"city": "Rome"}')}\n${TAG('now', '{}')}`
  t.is(
    await render(QWEN),
    `Tools: {"type": "function", "function": {"name": "weather", "description": "x<|im_end|>"}} as ${TAG('', '').replace('""', '<function-name>').replace(' }', ' <args-json-object>}')}
user: Hi\nassistant: \n${calls}\ntool: sunny\ntool: 12\nassistant: `,
  )
  const plain = await render(PLAIN)
  t.true(plain.startsWith('System: # Tools\n') && plain.includes('<tools>\n{"type":"function","function":{"name":"weather",'))
  t.true(
    plain.endsWith(
      `User: Hi\nAssistant: ${calls}\nUser: <tool_response>\nsunny\n</tool_response>\n<tool_response>\n12\n</tool_response>\nAssistant:`,
    ),
    plain,
  )
  const { client } = await served(t, QWEN)
  t.is((await client.chat.completions.create({ ...chat, max_tokens: 1 } as never)).choices[0]?.finish_reason, 'length')
  t.is(callFormOf(LLAMA).trigger, '{"name": "')
  for (const source of ['{{ tools }}[TOOL_CALLS]{{ messages }}', '{{ tools }}<tool_call><function=x>{{ messages }}'])
    t.false(callFormOf(templateOf({ source, bosToken: '', eosToken: '' })).native)
})

test('/v1/responses and /v1/messages have the same calls, whole and streamed', async (t) => {
  const { address, client } = await served(t)
  const definition = { type: 'function', name: 'weather', parameters, strict: true } as const
  const asked = {
    ...{ model: 'tiny', input: [...messages], max_output_tokens: 120, temperature: 0 },
    tools: [definition],
    tool_choice: { type: 'function', name: 'weather' },
  } as const
  const whole = await client.responses.create({ ...asked, tools: [definition] })
  const [item, ...others] = whole.output
  t.deepEqual([item?.type, others, whole.status], ['function_call', [], 'completed'])
  if (item?.type !== 'function_call') return
  t.true(validate(JSON.parse(item.arguments)))
  const streamed = await client.responses.stream({ ...asked, tools: [definition] }).finalResponse()
  t.deepEqual(
    streamed.output.map((part) => part.type === 'function_call' && part.arguments),
    [item.arguments],
  )
  const next = [...messages, { type: 'function_call', call_id: item.call_id, name: 'weather', arguments: item.arguments }] as const
  const answered = [...next, { type: 'function_call_output', call_id: item.call_id, output: 'sunny' }] as const
  t.is(
    (await client.responses.create({ ...asked, tools: [definition], tool_choice: 'none', input: [...answered], max_output_tokens: 1 })).status,
    'incomplete',
  )

  const anthropic = new Anthropic({ baseURL: address, apiKey: 'none', maxRetries: 0 })
  const body = { model: 'tiny', max_tokens: 120, temperature: 0, messages: [...messages] }
  const tools = [{ name: 'weather', input_schema: { ...parameters, type: 'object' as const } }]
  const message = await anthropic.messages.create({ ...body, tools, tool_choice: { type: 'tool', name: 'weather' } })
  const [block] = message.content
  t.deepEqual([block?.type, message.stop_reason], ['tool_use', 'tool_use'])
  if (block?.type !== 'tool_use') return
  t.true(validate(block.input))
  const last = await anthropic.messages.stream({ ...body, tools, tool_choice: { type: 'tool', name: 'weather' } }).finalMessage()
  t.deepEqual(
    last.content.map((part) => part.type === 'tool_use' && part.input),
    [block.input],
  )
  const bad = [{ name: 'f', input_schema: { type: 'object' as const, not: {} } }]
  await t.throwsAsync(anthropic.messages.create({ ...body, tools: bad }), { message: /tools\.0\.input_schema.*not: this keyword/ })
})

test('what cannot be done is refused by its field; what asks for nothing is taken; the next request is served', async (t) => {
  const { client } = await served(t)
  const tool = (change: object) => [{ type: 'function', function: { name: 'f', ...change } }]
  const assistant = (change: object) => [...messages, { role: 'assistant', content: 'a', ...change }]
  for (const [fields, param, message] of [
    [
      { tools: [weather, ...tool({ parameters: { type: 'object', properties: { a: { not: {} } } } })] },
      'tools.1.function.parameters',
      /not: this keyword/,
    ],
    [{ tools: tool({ parameters: { type: 'string' } }) }, 'tools.0.function.parameters', /of type object/],
    [{ tools: tool({ parameters: { anyOf: [{ type: 'object' }] } }) }, 'tools.0.function.parameters', /without anyOf/],
    [{ tools: [{ type: 'web_search' }] }, 'tools.0', /web_search|function is missing/],
    [{ tools: tool({ name: 'a b' }) }, 'tools.0.function.name', /pattern/],
    [{ tools: [now, now] }, 'tools.1.function.name', /two tools/],
    [{ tools: [now], tool_choice: named }, 'tool_choice', /none of the tools/],
    [{ tools: [now], tool_choice: 'sometimes' }, 'tool_choice', /auto, none, required/],
    [{ tool_choice: 'required' }, 'tool_choice', /needs tools/],
    [{ tools: [now], regex: 'a' }, 'regex', /exclude each other/],
    [
      { tools: [now], response_format: { type: 'json_schema', json_schema: { name: 'n', schema: { not: {} } } } },
      'response_format',
      /not: this keyword/,
    ],
    [{ tools: [now], ignore_eos: true }, 'ignore_eos', /exclude each other/],
    [{ messages: [...messages, { role: 'tool', content: 'x' }] }, 'messages.1.tool_call_id', /missing/],
    [{ messages: [{ role: 'user' }] }, 'messages.0.content', /missing/],
    [{ messages: assistant({ tool_calls: [{ id: 'x', type: 'custom' }] }) }, 'messages.1.tool_calls.0', /function is missing/],
    [{ functions: [{ name: 'f' }] }, 'functions', /not supported/],
  ] as const) {
    const error = await t.throwsAsync(
      client.chat.completions.create({ ...base, ...(fields as object) } as never),
      { message },
      JSON.stringify(fields),
    )
    t.true(((error as InstanceType<typeof OpenAI.APIError>).param ?? '').startsWith(param), error?.message)
  }
  for (const fields of [
    { tools: [], tool_choice: 'auto' },
    { messages: [...assistant({ tool_calls: [] }), ...messages] },
    { parallel_tool_calls: false },
  ])
    t.is((await client.chat.completions.create({ ...base, ...fields, max_tokens: 1 } as never)).usage?.completion_tokens, 1)
})

test('the parser finds the same however a text is cut, and loses nothing of it', (t) => {
  const form = callFormOf(PLAIN)
  const parts = fc.oneof(
    fc.constantFrom('\n', '<tool', '_call>', '<tool_call>\n', TAG('other', '{}'), 'text', '}', '<tool_call>\n{"name": "f'),
    fc.json({ maxDepth: 2 }).map((value) => TAG('f', `{"a": ${value}}`)),
  )
  fc.assert(
    fc.property(fc.array(parts, { maxLength: 8 }), fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }), (texts, cuts) => {
      const text = texts.join('')
      const whole = read(new CallParser(form, ['f']), [text])
      const pieces: string[] = []
      for (let at = 0, i = 0; at < text.length; i++) {
        const next = at + (cuts[i % cuts.length] as number)
        pieces.push(text.slice(at, next))
        at = next
      }
      t.deepEqual(read(new CallParser(form, ['f']), pieces), whole)
      const calls = whole.calls.map((given) => TAG('f', given).length).reduce((a, b) => a + b, 0)
      const breaks = (text.match(/\n<tool_call>/g) ?? []).length
      t.true(whole.content.length + calls + breaks >= text.length)
      for (const given of whole.calls) t.notThrows(() => JSON.parse(given))
    }),
  )
})

function read(parser: CallParser, pieces: readonly string[]) {
  const parts: CallPart[] = [...pieces.flatMap((piece) => parser.push(piece)), ...parser.end()]
  const calls: string[] = []
  for (const part of parts) if ('index' in part) calls[part.index] = (calls[part.index] ?? '') + part.arguments
  return { content: parts.map((part) => ('content' in part ? part.content : '')).join(''), calls }
}

test('tools and response_format: the answer is calls, or JSON under the schema; required calls are calls', async (t) => {
  const { client } = await served(t)
  const response_format = { type: 'json_schema', json_schema: { name: 'answer', schema: { enum: [{ sure: true }, 7] } } } as const
  const kinds = new Set<string>()
  for (let seed = 0; seed < 6; seed++) {
    // A bias on the first byte of a call, or of the JSON.
    const [bracket] = await engine.tokenize(seed % 2 === 0 ? '<' : '7')
    const asked = { ...base, seed, temperature: 1, tools: [now], response_format, logit_bias: { [String(bracket)]: 100 }, parallel_tool_calls: false }
    const { choices } = await client.chat.completions.create(asked)
    const [choice] = choices
    kinds.add(choice?.finish_reason ?? '')
    if (choice?.finish_reason === 'tool_calls') {
      t.deepEqual(
        choice.message.tool_calls?.map((call) => 'function' in call && call.function),
        [{ name: 'now', arguments: '{}' }],
      )
      t.is(choice.message.content, null)
    } else if (choice?.finish_reason === 'stop') t.true(['{"sure":true}', '7'].includes(choice.message.content ?? ''))
  }
  t.true(kinds.has('tool_calls') && kinds.has('stop'), [...kinds].join())
  const forced = await client.chat.completions.create({ ...base, tools: [weather, now], tool_choice: named, response_format })
  t.is(forced.choices[0]?.finish_reason, 'tool_calls')
  const none = await client.chat.completions.create({ ...base, tools: [now], tool_choice: 'none', response_format })
  t.true(['{"sure":true}', '7'].includes(none.choices[0]?.message.content ?? ''))
})
