// Clients of today against the server, each as its users call it: whole answers and streams have the engine's own text.
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import Anthropic from '@anthropic-ai/sdk'
import { ChatOpenAI, OpenAI as CompletionOpenAI } from '@langchain/openai'
import { OpenAI as LlamaOpenAI } from '@llamaindex/openai'
import { Mistral } from '@mistralai/mistralai'
import { generateObject, generateText, type LanguageModel, streamText, tool } from 'ai'
// @ts-expect-error: it has no types.
import autocannon from 'autocannon'
import test, { type ExecutionContext } from 'ava'
import OpenAI from 'openai'
import { z } from 'zod'
import { Engine } from '../../src/index.js'
import { createServer, type ServerOptions } from '../../src/serve/server.js'
import { PLAIN } from '../../src/tokenizer/chat-template.js'
import { TINY } from '../support/fixtures.js'

const engine = await Engine.load(TINY, { ranks: 2, maxRunning: 8, maxQueue: 64, cacheTokens: 8192 })
test.after.always(() => engine.close())

async function served(t: ExecutionContext, options: ServerOptions = {}): Promise<string> {
  const { app } = createServer(new Map([['tiny', { id: 'tiny', engine, template: PLAIN, created: 1 }]]), options)
  t.teardown(() => app.close())
  return app.listen({ port: 0, host: '127.0.0.1' })
}

const PROMPT = 'The king'
const MESSAGES = [{ role: 'user' as const, content: PROMPT }]
const chatText = (maxTokens = 12) => engine.chat(MESSAGES, { maxTokens }).then(({ text }) => text)

async function joined(pieces: AsyncIterable<string | null | undefined>): Promise<string> {
  let text = ''
  for await (const piece of pieces) text += piece ?? ''
  return text
}

async function* mapped<T>(items: AsyncIterable<T>, of: (item: T) => string | null | undefined): AsyncGenerator<string> {
  for await (const item of items) yield of(item) ?? ''
}

test('openai: chats, responses, and the helper that gathers a stream', async (t) => {
  const client = new OpenAI({ baseURL: `${await served(t)}/v1`, apiKey: 'none', maxRetries: 0 })
  const expected = await chatText()
  const chat = { model: 'tiny', messages: MESSAGES, max_completion_tokens: 12, temperature: 0 }
  t.is((await client.chat.completions.create(chat)).choices[0]?.message.content, expected)
  t.is(await client.chat.completions.stream(chat).finalContent(), expected)
  const response = { model: 'tiny', input: PROMPT, max_output_tokens: 12, temperature: 0 }
  t.is((await client.responses.create(response)).output_text, expected)
  t.is((await client.responses.stream(response).finalResponse()).output_text, expected)
})

test('the AI SDK by its providers: responses, chats, completions, and a compatible server', async (t) => {
  const baseURL = `${await served(t)}/v1`
  const openai = createOpenAI({ baseURL, apiKey: 'none' })
  const compatible = createOpenAICompatible({ name: 'tetrad', baseURL, includeUsage: true })
  const expected = await chatText()
  const models: Record<string, LanguageModel> = {
    responses: openai('tiny'),
    chat: openai.chat('tiny'),
    compatible: compatible('tiny'),
  }
  for (const [name, model] of Object.entries(models)) {
    const asked = { model, prompt: PROMPT, maxOutputTokens: 12, temperature: 0, maxRetries: 0 }
    const whole = await generateText(asked)
    t.deepEqual([whole.text, whole.finishReason], [expected, 'length'], name)
    t.is(whole.usage.outputTokens, 12, name)
    const stream = streamText(asked)
    t.is(await joined(stream.textStream), expected, name)
    t.deepEqual([await stream.finishReason, (await stream.usage).outputTokens], ['length', 12], name)
  }
  const completion = await generateText({ model: openai.completion('tiny'), prompt: PROMPT, maxOutputTokens: 4, temperature: 0, maxRetries: 0 })
  t.is(completion.usage.outputTokens, 4)
})

test("structured output in each client's own way", async (t) => {
  const baseURL = `${await served(t)}/v1`
  const schema = z.object({ name: z.enum(['Ann', 'Bob']), happy: z.boolean() })
  const openai = createOpenAI({ baseURL, apiKey: 'none' })
  for (const [name, model] of Object.entries({ responses: openai('tiny'), chat: openai.chat('tiny') })) {
    const { object } = await generateObject({ model, schema, prompt: PROMPT, maxOutputTokens: 64, temperature: 0, maxRetries: 0 })
    t.notThrows(() => schema.parse(object), name)
  }
  const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 })
  const format = { type: 'json_schema', name: 'answer', strict: true, schema: z.toJSONSchema(schema) } as const
  const body = { model: 'tiny', input: PROMPT, max_output_tokens: 64, temperature: 0 }
  const response = await client.responses.create({ ...body, text: { format } })
  t.notThrows(() => schema.parse(JSON.parse(response.output_text)))
  t.is(response.status, 'completed')
  const bad = { ...format, schema: { type: 'object', properties: { a: { $ref: 'http://x/y' } } } }
  const refused = await t.throwsAsync(client.responses.create({ ...body, text: { format: bad } }), { instanceOf: OpenAI.APIError })
  t.regex((refused as InstanceType<typeof OpenAI.APIError>).param ?? '', /^text\.format/)
  const chain = new ChatOpenAI({ model: 'tiny', apiKey: 'none', temperature: 0, maxTokens: 64, maxRetries: 0, configuration: { baseURL } })
  await t.notThrowsAsync(async () => schema.parse(await chain.withStructuredOutput(schema, { method: 'jsonSchema' }).invoke(PROMPT)))
})

test("tools in each client's own way", async (t) => {
  const baseURL = `${await served(t)}/v1`
  const inputSchema = z.object({ city: z.enum(['Rome', 'Oslo']), days: z.number().int().min(1).max(3) })
  const openai = createOpenAI({ baseURL, apiKey: 'none' })
  const compatible = createOpenAICompatible({ name: 'tetrad', baseURL })
  const asked = { prompt: PROMPT, maxOutputTokens: 80, temperature: 0, maxRetries: 0 }
  const ran: unknown[] = []
  const weather = tool({ inputSchema, execute: async (input) => ran.push(input) })
  for (const [name, model] of Object.entries({ responses: openai('tiny'), chat: openai.chat('tiny'), compatible: compatible('tiny') })) {
    const settings = { ...asked, model, tools: { weather }, toolChoice: { type: 'tool', toolName: 'weather' } } as const
    const { toolCalls, finishReason } = await generateText(settings)
    t.deepEqual([toolCalls.length, finishReason], [1, 'tool-calls'], name)
    t.notThrows(() => inputSchema.parse(toolCalls[0]?.input), name)
    t.deepEqual((await streamText(settings).toolCalls)[0]?.input, toolCalls[0]?.input, name)
  }
  // One call, its result, and an answer.
  ran.length = 0
  const steps = await generateText({
    ...asked,
    model: openai.chat('tiny'),
    tools: { weather },
    stopWhen: ({ steps: { length } }) => length === 2,
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? 'required' : 'none' }),
    providerOptions: { openai: { parallelToolCalls: false } },
  })
  t.deepEqual([ran.length, steps.steps.length], [1, 2])
  const chain = new ChatOpenAI({ model: 'tiny', apiKey: 'none', temperature: 0, maxTokens: 80, maxRetries: 0, configuration: { baseURL } })
  await t.notThrowsAsync(async () => inputSchema.parse(await chain.withStructuredOutput(inputSchema, { method: 'functionCalling' }).invoke(PROMPT)))
})

test('LangChain: invoke and stream of a chat, by chats and by responses, and a completion', async (t) => {
  const configuration = { baseURL: `${await served(t)}/v1` }
  const expected = await chatText()
  for (const useResponsesApi of [false, true]) {
    const chat = new ChatOpenAI({ model: 'tiny', apiKey: 'none', temperature: 0, maxTokens: 12, maxRetries: 0, configuration, useResponsesApi })
    t.is((await chat.invoke(PROMPT)).text, expected)
    t.is(await joined(mapped(await chat.stream(PROMPT), (chunk) => chunk.text)), expected)
  }
  const completion = new CompletionOpenAI({ model: 'tiny', apiKey: 'none', temperature: 0, maxTokens: 8, maxRetries: 0, configuration })
  t.is(await completion.invoke(PROMPT), (await engine.generate(PROMPT, { maxTokens: 8 })).text)
})

test('LlamaIndex: chat and its stream', async (t) => {
  const llm = new LlamaOpenAI({
    model: 'tiny' as never,
    apiKey: 'none',
    baseURL: `${await served(t)}/v1`,
    temperature: 0,
    maxTokens: 12,
    maxRetries: 0,
  })
  const expected = await chatText()
  t.is((await llm.chat({ messages: MESSAGES })).message.content, expected)
  const stream = await llm.chat({ messages: MESSAGES, stream: true })
  t.is(await joined(mapped(stream, ({ delta }) => delta)), expected)
})

test('Mistral: complete and stream, with its name of the seed', async (t) => {
  const client = new Mistral({ serverURL: await served(t), apiKey: 'none' })
  const { text } = await engine.chat(MESSAGES, { maxTokens: 12, temperature: 0.9, seed: 5 })
  const asked = { model: 'tiny', messages: MESSAGES, maxTokens: 12, temperature: 0.9, randomSeed: 5 }
  t.is((await client.chat.complete(asked)).choices[0]?.message?.content, text)
  t.is(await joined(mapped(await client.chat.stream(asked), ({ data }) => data.choices[0]?.delta.content as string)), text)
})

test("Anthropic: messages, a stream, a beginning of the answer, token counts, and errors in Anthropic's form", async (t) => {
  const client = new Anthropic({ baseURL: await served(t, { apiKey: 'secret' }), apiKey: 'secret', maxRetries: 0 })
  const asked = { model: 'tiny', max_tokens: 12, messages: MESSAGES, temperature: 0 }
  const whole = await client.messages.create(asked)
  t.deepEqual(whole.content, [{ type: 'text', text: await chatText() }] as never)
  t.deepEqual([whole.stop_reason, whole.usage.output_tokens], ['max_tokens', 12])
  const stream = client.messages.stream(asked)
  t.is(await stream.finalText(), await chatText())
  const { input_tokens: counted } = await client.messages.countTokens({ model: 'tiny', messages: MESSAGES })
  t.is((await stream.finalMessage()).usage.output_tokens, 12)
  t.is(counted, whole.usage.input_tokens + (whole.usage.cache_read_input_tokens ?? 0))
  const begun = [...MESSAGES, { role: 'assistant' as const, content: 'was' }]
  const [block] = (await client.messages.create({ ...asked, messages: begun, system: [{ type: 'text', text: 'Be brief.' }] })).content
  const { text } = await engine.generate('System: Be brief.\nUser: The king\nAssistant: was', { maxTokens: 12, stop: PLAIN.stop })
  t.deepEqual(block, { type: 'text', text } as never)
  const stopped = await client.messages.create({ ...asked, max_tokens: 64, stop_sequences: ['.'] })
  t.deepEqual([stopped.stop_reason, stopped.stop_sequence], ['stop_sequence', '.'])
  const image = [{ type: 'image' as const, source: { type: 'url' as const, url: 'http://x' } }]
  const refused = await t.throwsAsync(client.messages.create({ ...asked, messages: [{ role: 'user', content: image }] }), {
    instanceOf: Anthropic.BadRequestError,
  })
  t.regex(refused?.message ?? '', /messages\.0\.content\.0: parts of type \\?"image/)
  await t.throwsAsync(client.messages.create({ ...asked, thinking: { type: 'enabled', budget_tokens: 1024 } }), {
    message: /thinking is not supported/,
  })
  await t.throwsAsync(client.messages.create({ ...asked, model: 'other' }), { instanceOf: Anthropic.NotFoundError })
  const stranger = new Anthropic({ baseURL: client.baseURL, apiKey: 'wrong', maxRetries: 0 })
  await t.throwsAsync(stranger.messages.create(asked), { instanceOf: Anthropic.AuthenticationError })
})

test('autocannon: every request of a load is answered', async (t) => {
  const address = await served(t)
  const result = await autocannon({
    url: `${address}/v1/chat/completions`,
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'tiny', messages: MESSAGES, max_tokens: 4, temperature: 0 }),
    connections: 16,
    amount: 64,
  })
  t.deepEqual([result['2xx'], result.non2xx, result.errors], [64, 0, 0])
})
