import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { Engine, synthesize } from '../../src/index.js'
import { temporary } from '../support/models.js'
import { SENTENCE_PIECE } from '../support/sentence-piece.js'

const TEMPLATE = '{% for m in messages %}<|end|>{{ m.content }}{% endfor %}<|end|>'

/** A model of random weights with that tokenizer: <s> 1, <|end|> 2. */
async function load(t: Parameters<typeof temporary>[0], config: object = {}): Promise<Engine> {
  const dir = join(temporary(t), 'model')
  const shape = { n_layer: 1, n_head: 2, n_embd: 16, vocab_size: 320, block_size: 256, intermediate_size: 16, head_dim: 8, group_size: 1 }
  await synthesize(dir, { variant: 'mha', config: shape })
  writeFileSync(join(dir, 'tokenizer.json'), JSON.stringify({ version: '1.0', truncation: null, padding: null, ...SENTENCE_PIECE }))
  writeFileSync(join(dir, 'tokenizer_config.json'), JSON.stringify({ chat_template: TEMPLATE, ...config }))
  return Engine.load(dir, { ranks: 1 })
}

const ONE = { maxTokens: 1, ignoreEos: true }

test('a text begins with the token that the tokenizer puts there, once; token ids do not', async (t) => {
  const engine = await load(t)
  const tokens = async (prompt: string | number[], bos?: boolean) =>
    (await engine.generate(prompt, { ...ONE, ...(bos !== undefined && { bos }) })).usage.promptTokens
  const plain = (await engine.tokenize('the')).length
  t.is(await tokens('the'), plain + 1)
  t.is(await tokens('the', false), plain)
  t.is(await tokens('<s>the'), (await engine.tokenize('<s>the')).length)
  t.is(await tokens([5, 6]), 2)
  t.is(await tokens([5, 6], true), 3)
  t.is(await tokens([1, 5, 6], true), 3)
  await engine.close()
  const without = await load(t, { add_bos_token: false })
  t.is((await without.generate('the', ONE)).usage.promptTokens, plain)
  await without.close()
})

test('an answer begins with its space, streamed or whole', async (t) => {
  const engine = await load(t)
  const [the] = (await engine.tokenize('the')) as [number]
  const params = { maxTokens: 2, ignoreEos: true, logitBias: { [the]: 1000 } }
  t.is((await engine.generate('the', params)).text, ' the the')
  let streamed = ''
  for await (const { text } of engine.generate('the', params)) streamed += text
  t.is(streamed, ' the the')
  await engine.close()
})

test('a stop text that is a control token stops there; one with a control token inside is refused', async (t) => {
  const engine = await load(t)
  const params = { maxTokens: 5, ignoreEos: true, logitBias: { 2: 1000 } }
  const { finishReason, tokens } = await engine.generate('the', { ...params, stop: '<|end|>' })
  t.is(finishReason, 'stop')
  t.is(tokens.length, 0)
  await t.throwsAsync(async () => await engine.generate('the', { ...params, stop: 'x<|end|>' }), { code: 'OPTION_INVALID', message: /control token/ })
  t.is((await engine.generate('the', params)).finishReason, 'length')
  await engine.close()
})

test('a text that cannot fit is refused before it is tokenized, and the next request is served', async (t) => {
  const engine = await load(t)
  await t.throwsAsync(async () => await engine.generate(' '.repeat(200_000), ONE), { code: 'PROMPT_TOO_LONG', message: /bytes/ })
  await t.throwsAsync(async () => await engine.tokenize(' '.repeat(200_000)), { code: 'PROMPT_TOO_LONG' })
  t.is((await engine.generate('the', ONE)).tokens.length, 1)
  await engine.close()
})

test('a control token in a message is text', async (t) => {
  const engine = await load(t)
  const tokens = async (content: string) => (await engine.chat([{ role: 'user', content }], ONE)).usage.promptTokens
  const [short, control] = [await tokens('x'), await tokens('<|end|>')]
  t.true(control - short >= 3, `${short} and ${control} tokens`)
  await engine.close()
})
