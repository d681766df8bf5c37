// tetrad tokenize: a text as the file of tokens that eval perplexity reads.
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { TokenFile } from '../../src/evaluation/token-file.js'
import { loadTokenizer } from '../../src/tokenizer/tokenizer.js'
import { ROOT, TINY } from '../support/fixtures.js'
import { temporary } from '../support/models.js'

const run = (...args: string[]) => spawnSync(process.execPath, [`${ROOT}dist/src/cli.js`, 'tokenize', ...args], { encoding: 'utf8' })

test('the tokens of a text, behind the authors’ header; a file that is there is kept unless --force', async (t) => {
  const folder = temporary(t)
  const [text, out] = [join(folder, 'text.txt'), join(folder, 'tokens.bin')]
  const content = 'Once upon a time there was a king,\r\nand a fox. \u{1f60a}\n'
  writeFileSync(text, content)
  const made = run(text, out, '--json')
  t.is(made.status, 0, made.stderr)
  const tokenizer = await loadTokenizer(TINY, 4096)
  const ids = tokenizer?.encode(content) ?? []
  t.deepEqual(JSON.parse(made.stdout), { tokens: ids.length, file: out })
  const bytes = readFileSync(out)
  t.deepEqual([bytes.readInt32LE(0), bytes.readInt32LE(4), bytes.readInt32LE(8)], [20240520, 1, ids.length])
  t.is(bytes.length, 1024 + 2 * ids.length)
  const file = await TokenFile.open(out)
  t.deepEqual(await file.read(0, file.tokens), ids)
  await file.close()
  t.regex(run(text, out).stderr, /OUTPUT_EXISTS/)
  t.deepEqual(readFileSync(out), bytes)
  t.is(run(text, out, '--force', '--bos').status, 0)
  t.is(readFileSync(out).readUInt16LE(1024), tokenizer?.endOfText as number)
})

test('a file that is missing or not UTF-8 is refused', (t) => {
  const folder = temporary(t)
  const path = join(folder, 'latin.txt')
  writeFileSync(path, Buffer.from([0x63, 0x61, 0x66, 0xe9, 0x21]))
  for (const input of [path, join(folder, 'none.txt')]) {
    const refused = run(input, join(folder, 'out.bin'))
    t.is(refused.status, 1)
    t.regex(refused.stderr, /EVAL_DATA_INVALID/)
  }
})
