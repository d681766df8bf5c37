import { join } from 'node:path'
import test from 'ava'
import { Engine, OptionError, synthesize } from '../../src/index.js'
import { Detokenizer } from '../../src/tokenizer/detokenizer.js'
import { loadTokenizer, type Tokenizer } from '../../src/tokenizer/tokenizer.js'
import { FIXTURES } from '../support/fixtures.js'
import { temporary } from '../support/models.js'

test('a model without tokenizer.json and with 50257 ids or more has the GPT-2 BPE', async (t) => {
  const dir = temporary(t)
  t.is(await loadTokenizer(dir, 50256), undefined)
  const tokenizer = (await loadTokenizer(dir, 50304)) as Tokenizer
  // Ids of OpenAI's tiktoken for "gpt2".
  t.deepEqual(tokenizer.encode('Hello world'), [15496, 995])
  t.deepEqual(tokenizer.encode('tiktoken is great!'), [83, 1134, 30001, 318, 1049, 0])
  t.is(tokenizer.endOfText, 50256)
  t.is(tokenizer.decode([15496, 50256, 995, 50300]), 'Hello world')
  // Text that looks like a special token is text.
  t.true(tokenizer.encode('<|endoftext|>').length > 1)
  const text = 'Na\u00efve \u65e5\u672c \ud83d\ude00 end'
  const detokenizer = new Detokenizer(tokenizer)
  t.is(
    tokenizer
      .encode(text)
      .map((id) => detokenizer.push(id))
      .join('') + detokenizer.flush(),
    text,
  )
})

test('bos puts <|endoftext|> before a prompt; a model that has none refuses it', async (t) => {
  const dir = join(temporary(t), 'out')
  const config = { n_layer: 1, n_head: 2, n_embd: 16, vocab_size: 50304, block_size: 64, intermediate_size: 16, head_dim: 8, group_size: 1 }
  await synthesize(dir, { variant: 'mha', config })
  const engine = await Engine.load(dir, { ranks: 1 })
  const options = { maxTokens: 8, ignoreEos: true }
  const plain = await engine.generate('Hello world', options)
  const bos = await engine.generate('Hello world', { ...options, bos: true })
  t.is(plain.usage.promptTokens, 2)
  t.is(bos.usage.promptTokens, 3)
  t.deepEqual(bos.tokens, (await engine.generate([50256, 15496, 995], options)).tokens)
  t.deepEqual((await engine.generate([15496, 995], { ...options, bos: true })).tokens, bos.tokens)
  await t.throwsAsync(async () => await engine.generate('x', { bos: 'yes' } as object), { instanceOf: OptionError })
  await engine.close()
  const other = await Engine.load(`${FIXTURES}golden/mlra_4`, { ranks: 1 })
  await t.throwsAsync(async () => await other.generate([1], { bos: true }), { instanceOf: OptionError, message: /bos/ })
  t.is((await other.generate([1], { maxTokens: 2 })).tokens.length, 2)
  await other.close()
})
