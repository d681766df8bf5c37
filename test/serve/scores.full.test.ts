// Scores of prompts over HTTP: echo, max_tokens 0 and prompt_logprobs, as lm-evaluation-harness and vLLM's clients ask for them. The scores are
// those of engine.loglikelihood, to the bit.
import test, { type ExecutionContext } from 'ava'
import { Engine } from '../../src/index.js'
import { createServer } from '../../src/serve/server.js'
import { PLAIN, templateOf } from '../../src/tokenizer/chat-template.js'
import { TINY } from '../support/fixtures.js'

const engine = await Engine.load(TINY, { ranks: 2, maxRunning: 4, maxQueue: 8, cacheTokens: 4096 })
test.after.always(() => engine.close())

async function served(t: ExecutionContext, template = PLAIN) {
  const { app } = createServer(new Map([['tiny', { id: 'tiny', engine, template, created: 1 }]]))
  t.teardown(() => app.close())
  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  return async (path: string, body: object) => {
    const headers = { 'content-type': 'application/json' }
    const response = await fetch(`${address}${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
    const text = await response.text()
    return { status: response.status, text, json: text.startsWith('{') ? JSON.parse(text) : undefined }
  }
}

/** What lm-evaluation-harness 0.4.13 posts for loglikelihood (local-completions). */
const harness = (prompt: readonly (readonly number[])[], maxTokens: number) => ({
  model: 'tiny',
  prompt,
  temperature: 0,
  max_tokens: maxTokens,
  logprobs: 1,
  seed: 1234,
  echo: true,
})

test("lm-evaluation-harness's requests have the scores of engine.loglikelihood, to the bit", async (t) => {
  const post = await served(t)
  const context = await engine.tokenize('Once upon a time, there was a')
  const endings = await Promise.all([' little girl', ' dragon who ate the moon', ' time'].map((text) => engine.tokenize(text)))
  const prompts = endings.map((ending) => [...context, ...ending])
  for (const maxTokens of [0, 1]) {
    const { status, json } = await post('/v1/completions', harness(prompts, maxTokens))
    t.is(status, 200)
    for (const [i, ending] of endings.entries()) {
      const { text, logprobs, index, finish_reason: reason } = json.choices[i]
      t.deepEqual([index, reason], [i, 'length'])
      const { tokens, token_logprobs: scores, top_logprobs: tops, text_offset: offsets } = logprobs
      const length = (prompts[i] as number[]).length + maxTokens
      for (const list of [tokens, scores, tops, offsets]) t.is(list.length, length)
      t.deepEqual([scores[0], tops[0], offsets[0]], [null, null, 0])
      // As the harness reads it: the continuation, without the generated token.
      const end = maxTokens === 0 ? undefined : -maxTokens
      const expected = await engine.loglikelihood(context, ending)
      t.deepEqual(scores.slice(context.length, end), expected.perToken)
      const greedy = scores
        .slice(context.length, end)
        .every((score: number, j: number) => score === Math.max(...(Object.values(tops[context.length + j]) as number[])))
      t.is(greedy, expected.isGreedy)
      t.true(text.startsWith(engine.detokenize(prompts[i] as number[])))
      t.is(tokens.join(''), text)
      for (const [j, token] of tokens.entries()) t.is(text.slice(offsets[j], offsets[j] + token.length), token)
    }
    t.is(json.usage.completion_tokens, maxTokens * endings.length)
  }
})

test('a text is echoed as it was sent, with n choices, and in a stream', async (t) => {
  const post = await served(t)
  const body = { model: 'tiny', prompt: ['Once upon', 'The king'], n: 2, max_tokens: 2, temperature: 0 }
  const plain = (await post('/v1/completions', body)).json.choices
  const echoed = (await post('/v1/completions', { ...body, echo: true })).json.choices
  t.deepEqual(
    echoed.map((choice: { text: string }) => choice.text),
    plain.map((choice: { text: string }, i: number) => body.prompt[i >> 1] + choice.text),
  )
  const stream = (await post('/v1/completions', { ...body, n: 1, prompt: 'Once upon', echo: true, stream: true })).text
  const texts = [...stream.matchAll(/^data: (\{.*)$/gm)].map((match) => JSON.parse(match[1] as string).choices[0].text)
  t.is(texts.join(''), echoed[0].text)
  for (const [extra, param] of [
    [{ echo: true, logprobs: 1 }, 'echo'],
    [{ prompt_logprobs: 1 }, 'prompt_logprobs'],
  ] as const)
    t.is((await post('/v1/completions', { ...body, ...extra, stream: true })).json.error.param, param)
})

test("vLLM's prompt_logprobs, in a completion and beside a chat", async (t) => {
  const post = await served(t)
  const prompt = await engine.tokenize('Once upon a time')
  const { promptLogprobs } = await engine.generate(prompt, { maxTokens: 0, promptLogprobs: 2 })
  const { json } = await post('/v1/completions', { model: 'tiny', prompt, max_tokens: 0, prompt_logprobs: 2 })
  const written = json.choices[0].prompt_logprobs
  t.is(written[0], null)
  for (const [i, id] of prompt.entries()) {
    const scored = promptLogprobs?.[i]
    if (!scored) continue
    t.is(written[i][id].logprob, scored.logprob)
    t.is(written[i][scored.top[0]?.token ?? -1].rank, 1)
    t.is(typeof written[i][id].decoded_token, 'string')
  }
  t.is(json.choices[0].text, '')
  const chat = await post('/v1/chat/completions', { model: 'tiny', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 1, prompt_logprobs: 0 })
  const ids = await engine.tokenize('User: Hi\nAssistant:')
  t.is(chat.json.prompt_logprobs.length, ids.length)
  t.deepEqual(Object.keys(chat.json.prompt_logprobs[1]), [String(ids[1])])
})

test('maxTokens 0 computes the prompt and generates nothing', async (t) => {
  for (const params of [{}, { promptLogprobs: 1 }, { speculate: { ngram: 2, maxTokens: 4 } }]) {
    const { tokens, text, finishReason, usage } = await engine.generate('Once upon a time', { maxTokens: 0, ...params })
    t.deepEqual([tokens.length, text, finishReason, usage.completionTokens], [0, '', 'length', 0])
  }
  const ids: number[] = Array(engine.info.contextTokens).fill(5)
  t.is((await engine.generate(ids, { maxTokens: 0 })).usage.promptTokens, ids.length)
  await t.throwsAsync(engine.generate(ids, { maxTokens: 1 }), { code: 'PROMPT_TOO_LONG' })
})

const TEMPLATE = templateOf({
  source:
    '{% for m in messages %}<{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}>{{ m.content | trim }}</>{% endfor %}{% if mood %}[{{ mood }}]{% endif %}{% if add_generation_prompt %}<assistant>{% endif %}',
  bosToken: '',
  eosToken: '',
})

test('the template gets names, variables, and whether the answer begins or continues', async (t) => {
  const messages = [
    { role: 'user', content: 'Hi', name: 'Ann' },
    { role: 'assistant', content: 'Sure, </> ' },
  ] as const
  const text = async (options: Parameters<typeof TEMPLATE.prompt>[1]) => (await TEMPLATE.prompt(messages, options)).text
  t.is(await text({}), '<user Ann>Hi</><assistant>Sure, </></><assistant>')
  t.is(await text({ addGenerationPrompt: false, variables: { mood: 'merry' } }), '<user Ann>Hi</><assistant>Sure, </></>[merry]')
  t.is(await text({ continueFinalMessage: true }), '<user Ann>Hi</><assistant>Sure, </>')
  t.is((await PLAIN.prompt(messages, { continueFinalMessage: true })).text, 'User: Hi\nAssistant: Sure, </> ')

  const post = await served(t, TEMPLATE)
  const body = { model: 'tiny', messages, max_tokens: 4, temperature: 0 }
  const answer = async (extra: object) => (await post('/v1/chat/completions', { ...body, ...extra })).json
  const expected = async (prompt: string) => (await engine.generate(prompt, { maxTokens: 4 })).text
  t.is(
    (await answer({ add_generation_prompt: false, chat_template_kwargs: { mood: 'merry' } })).choices[0].message.content,
    await expected('<user Ann>Hi</><assistant>Sure, </></>[merry]'),
  )
  t.is((await answer({ continue_final_message: true })).choices[0].message.content, await expected('<user Ann>Hi</><assistant>Sure, </>'))
  for (const [extra, param] of [
    [{ chat_template_kwargs: { messages: [] } }, 'chat_template_kwargs'],
    [{ continue_final_message: true, add_generation_prompt: true }, 'continue_final_message'],
    [{ echo: true }, 'echo'],
  ] as const)
    t.is((await answer(extra)).error.param, param)
  const plain = await served(t)
  t.is((await plain('/v1/chat/completions', { ...body, chat_template_kwargs: { enable_thinking: false } })).json.error.param, 'chat_template_kwargs')
})

test('engine.chat takes the same options', async (t) => {
  const messages = [
    { role: 'user', content: 'Tell me a story.' },
    { role: 'assistant', content: 'Once upon a' },
  ] as const
  const { text } = await engine.chat(messages, { maxTokens: 4, template: { continueFinalMessage: true } })
  t.is(text, (await engine.generate('User: Tell me a story.\nAssistant: Once upon a', { maxTokens: 4 })).text)
  await t.throwsAsync(engine.chat(messages, { template: { variables: { a: 1 } } }), { code: 'OPTION_INVALID', message: /template\.variables/ })
  await t.throwsAsync(engine.chat(messages, { template: { wrong: 1 } as object }), { code: 'OPTION_UNKNOWN' })
})

test('special tokens are written where the text has them', async (t) => {
  const post = await served(t)
  const [special] = engine.info.hasTokenizer ? [await engine.tokenize('<|endoftext|>')] : []
  t.is(special?.length, 1)
  const body = { model: 'tiny', prompt: 'Once', max_tokens: 3, temperature: 0, ignore_eos: true, logit_bias: { [String(special?.[0])]: 1000 } }
  const shown = (await post('/v1/completions', { ...body, skip_special_tokens: false, logprobs: 0 })).json.choices[0]
  t.is(shown.text, '<|endoftext|>'.repeat(3))
  t.deepEqual(shown.logprobs.text_offset, [0, 13, 26])
  t.is((await post('/v1/completions', { ...body, skip_special_tokens: true })).json.choices[0].text, '')
  t.is(
    (await engine.generate('Once', { maxTokens: 2, ignoreEos: true, logitBias: { [special?.[0] ?? 0]: 1000 }, skipSpecialTokens: false })).text
      .length,
    26,
  )
})

test('/tokenize and /detokenize, of texts and conversations, as vLLM and lm-evaluation-harness use them', async (t) => {
  const post = await served(t)
  const text = 'Once upon a time<|endoftext|> there'
  const ids = await engine.tokenize(text)
  const { json } = await post('/tokenize', { prompt: text, add_special_tokens: false, return_token_strs: true })
  t.deepEqual([json.tokens, json.count, json.max_model_len], [ids, ids.length, engine.info.contextTokens])
  t.is(json.token_strs.join(''), text)
  t.is((await post('/detokenize', { model: 'tiny', tokens: ids })).json.prompt, text)
  const messages = [{ role: 'user', content: 'Hi' }]
  t.deepEqual((await post('/tokenize', { model: 'tiny', messages })).json.tokens, await engine.tokenize('User: Hi\nAssistant:'))
  t.deepEqual((await post('/tokenize', { messages, add_generation_prompt: false })).json.tokens, await engine.tokenize('User: Hi\n'))
  for (const [path, body, param] of [
    ['/tokenize', {}, 'prompt'],
    ['/tokenize', { prompt: 'x', messages }, 'prompt'],
    ['/tokenize', { prompt: 'word '.repeat(100_000) }, 'prompt'],
    ['/tokenize', { prompt: 'x', model: 'other' }, 'model'],
    ['/tokenize', { prompt: 'x', tools: [] }, 'tools'],
    ['/detokenize', { tokens: [1e9] }, 'tokens'],
    ['/detokenize', { tokens: Array(5000).fill(1) }, 'tokens'],
  ] as const)
    t.is((await post(path, body)).json.error.param, param, JSON.stringify(body).slice(0, 60))
  const withBos = await engine.tokenize('x', { bos: true })
  t.deepEqual(withBos, [engine.info.bosId ?? -1, ...(await engine.tokenize('x'))])
})
