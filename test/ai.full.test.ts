// tetrad/ai with the AI SDK itself: generateText and streamText over an engine of this process.
import { generateObject, generateText, streamObject, streamText, tool } from 'ai'
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

test('what is not supported is refused by its name', async (t) => {
  const ask = (more: object) => generateText({ model, prompt: 'x', maxRetries: 0, maxOutputTokens: 1, ...more } as Parameters<typeof generateText>[0])
  await t.throwsAsync(ask({ topP: 2 }), { code: 'OPTION_INVALID', message: /topP/ })
  await t.throwsAsync(ask({ providerOptions: { tetrad: { wrong: 1 } } }), { code: 'OPTION_UNKNOWN', message: /wrong/ })
  const tools = { look: tool({ inputSchema: z.object({ at: z.string() }) }) }
  await t.throwsAsync(ask({ tools }), { code: 'OPTION_INVALID', message: /^tools/ })
  const image = [{ role: 'user', content: [{ type: 'image', image: new Uint8Array([0x89, 0x50, 0x4e, 0x47]) }] }]
  await t.throwsAsync(ask({ prompt: undefined, messages: image }), { code: 'OPTION_INVALID', message: /prompt\[0\]\.content\[0\]/ })
})
