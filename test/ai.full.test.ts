// tetrad/ai with the AI SDK itself: generateText and streamText over an engine of this process.
import { generateObject, generateText, Output, stepCountIs, streamObject, streamText, tool } from 'ai'
import test from 'ava'
import { z } from 'zod'
import { languageModel } from '../src/ai.js'
import { Engine } from '../src/index.js'
import { TINY } from './support/fixtures.js'

const engine = await Engine.load(TINY, { ranks: 1, maxRunning: 4, cacheTokens: 4096 })
test.after.always(() => engine.close())
const model = languageModel(engine, { modelId: 'tiny' })
const MESSAGES = [
  { role: 'system', content: 'Tell stories.' },
  { role: 'user', content: 'The king' },
] as const

test('generateText gives the text of engine.chat, its usage and why it ended', async (t) => {
  const expected = await engine.chat([...MESSAGES], { maxTokens: 12, seed: 7, temperature: 0.8, topP: 0.9, minP: 0.01 })
  const result = await generateText({
    model,
    messages: [...MESSAGES],
    allowSystemInMessages: true,
    maxOutputTokens: 12,
    seed: 7,
    temperature: 0.8,
    topP: 0.9,
    providerOptions: { tetrad: { minP: 0.01 } },
    maxRetries: 0,
  } as Parameters<typeof generateText>[0])
  t.is(result.text, expected.text)
  t.is(result.finishReason, 'length')
  t.deepEqual([result.usage.inputTokens, result.usage.outputTokens], [expected.usage.promptTokens, 12])
  const stopped = await generateText({ model, prompt: 'The king', maxOutputTokens: 64, stopSequences: ['.'] })
  t.is(stopped.finishReason, 'stop')
  t.false(stopped.text.includes('.'))
})

test('streamText streams it, and an abort ends the request', async (t) => {
  const { text } = await engine.chat([{ role: 'user', content: 'The king' }], { maxTokens: 24 })
  const result = streamText({ model, prompt: 'The king', maxOutputTokens: 24 })
  const pieces: string[] = []
  for await (const piece of result.textStream) pieces.push(piece)
  t.is(pieces.join(''), text)
  t.true(pieces.length > 1)
  t.is((await result.usage).outputTokens, 24)
  const abort = new AbortController()
  const long = streamText({ model, prompt: 'The king', providerOptions: { tetrad: { ignoreEos: true } }, abortSignal: abort.signal })
  for await (const _ of long.textStream) abort.abort()
  while (engine.stats().running > 0) await new Promise((done) => setTimeout(done, 5))
  t.is(engine.stats().running, 0)
})

const SCHEMA = z.object({ name: z.enum(['Ann', 'Bob']), happy: z.boolean() })

test('generateObject gives an object of the schema, and a stream of it the same', async (t) => {
  const asked = { model, prompt: 'Ann is', schema: SCHEMA, maxOutputTokens: 64, maxRetries: 0 }
  const { object } = await generateObject(asked)
  t.deepEqual(SCHEMA.parse(object), object)
  const streamed = streamObject(asked)
  for await (const _ of streamed.partialObjectStream);
  t.deepEqual(await streamed.object, object)
})

const WEATHER = z.object({ city: z.enum(['Rome', 'Oslo']), days: z.number().int().min(1).max(9) })
const asked: z.infer<typeof WEATHER>[] = []
const tools = {
  weather: tool({
    description: 'Of a city',
    inputSchema: WEATHER,
    execute: (input) => {
      asked.push(input)
      return { degrees: 21 }
    },
  }),
  now: tool({ inputSchema: z.object({}) }),
}

type Call = Parameters<typeof generateText>[0]
const withTools = (more: object) =>
  ({ model, prompt: 'How is the weather?', tools, maxOutputTokens: 100, maxRetries: 0, seed: 1, ...more }) as unknown as Call

test('generateText and streamText call tools with arguments of their schemas, and go on from their results', async (t) => {
  const weather = { toolChoice: { type: 'tool', toolName: 'weather' } }
  const { toolCalls, toolResults, finishReason, text } = await generateText(withTools(weather))
  t.deepEqual([toolCalls.length, finishReason, text], [1, 'tool-calls', ''])
  t.deepEqual(WEATHER.parse(toolCalls[0]?.input), asked[0])
  t.deepEqual(toolResults[0]?.output, { degrees: 21 })
  const streamed = streamText(withTools(weather) as Parameters<typeof streamText>[0])
  let deltas = ''
  for await (const part of streamed.fullStream) if (part.type === 'tool-input-delta') deltas += part.delta
  t.deepEqual(JSON.parse(deltas), asked[0])
  t.deepEqual((await streamed.toolCalls)[0]?.input, asked[0])
  // A second step has the call and its result in its prompt.
  const two = await generateText(withTools({ ...weather, stopWhen: stepCountIs(2) }))
  t.is(two.steps.length, 2)
  t.true((two.steps[1]?.usage.inputTokens ?? 0) > (two.steps[0]?.usage.inputTokens ?? 0))
  const free = await generateText(withTools({ toolChoice: 'auto', maxOutputTokens: 10 }))
  t.is(free.toolCalls.length, 0)
  t.true(free.text.length > 0)
})

test('tools and an object at once: the answer is a call, or the object', async (t) => {
  const [brace, angle] = await Promise.all(['{', '<'].map(async (text) => String((await engine.tokenize(text))[0])))
  const both = (more: object) => generateText(withTools({ tools: { now: tools.now }, output: Output.object({ schema: SCHEMA }), ...more }))
  const biased = (id: string | undefined) => ({ providerOptions: { tetrad: { logitBias: { [id as string]: 100 } } } })
  for (const more of [biased(brace), { toolChoice: 'none' }]) {
    const { output } = await both(more)
    t.deepEqual(SCHEMA.parse(output), output)
  }
  const called = await both({ ...biased(angle), stopWhen: stepCountIs(1), maxOutputTokens: 200 })
  t.is(called.toolCalls[0]?.toolName, 'now')
})

test('what is not supported is refused by its name', async (t) => {
  const ask = (more: object) => generateText({ model, prompt: 'x', maxRetries: 0, maxOutputTokens: 1, ...more } as Parameters<typeof generateText>[0])
  await t.throwsAsync(ask({ topP: 2 }), { code: 'OPTION_INVALID', message: /topP/ })
  await t.throwsAsync(ask({ providerOptions: { tetrad: { wrong: 1 } } }), { code: 'OPTION_UNKNOWN', message: /wrong/ })
  const tools = { look: tool({ inputSchema: z.object({ at: z.string().regex(/(?=a)b/) }) }) }
  await t.throwsAsync(ask({ tools }), { code: 'OPTION_INVALID', message: /tools\.0\.function\.parameters.*pattern/ })
  const search = { search: { type: 'provider', id: 'some.search', name: 'search', args: {} } }
  await t.throwsAsync(ask({ tools: search }), { code: 'OPTION_INVALID', message: /^tools\[0\]/ })
  const image = [{ role: 'user', content: [{ type: 'image', image: new Uint8Array([0x89, 0x50, 0x4e, 0x47]) }] }]
  await t.throwsAsync(ask({ prompt: undefined, messages: image }), { code: 'OPTION_INVALID', message: /prompt\[0\]\.content\[0\]/ })
})
