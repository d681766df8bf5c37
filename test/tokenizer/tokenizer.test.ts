import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { Detokenizer } from '../../src/tokenizer/detokenizer.js'
import { differentFeature, javascriptTokenizer } from '../../src/tokenizer/javascript-tokenizer.js'
import { loadTokenizer, type Tokenizer } from '../../src/tokenizer/tokenizer.js'
import { maxBytesPerToken, readSpecials, type TokenizerFile } from '../../src/tokenizer/tokenizer-file.js'
import { FIXTURES, TINY, tinyGolden } from '../support/fixtures.js'
import { temporary } from '../support/models.js'
import { SENTENCE_PIECE } from '../support/sentence-piece.js'

async function load(t: Parameters<typeof temporary>[0], file: TokenizerFile, config: object = {}): Promise<Tokenizer> {
  const dir = temporary(t)
  writeFileSync(join(dir, 'tokenizer.json'), `\ufeff${JSON.stringify({ version: '1.0', truncation: null, padding: null, ...file })}`)
  writeFileSync(join(dir, 'tokenizer_config.json'), JSON.stringify(config))
  return (await loadTokenizer(dir, 400)) as Tokenizer
}

test('ids and texts of the reference tokenizer', async (t) => {
  const tokenizer = (await loadTokenizer(TINY, 4096)) as Tokenizer
  t.is(tokenizer.library, 'tokenizers')
  for (const { text, ids, out, decoded } of tinyGolden().greedy) {
    t.deepEqual(await tokenizer.encodeAsync(text), ids)
    t.deepEqual(tokenizer.encode(text), ids)
    t.is(tokenizer.decode(out), decoded)
  }
  t.is(tokenizer.endOfText, 0)
  t.false(tokenizer.addsBos)
})

test('the pieces of a text never end inside a character and join to the whole', async (t) => {
  const tokenizer = (await loadTokenizer(TINY, 4096)) as Tokenizer
  const text = '\ufeffNa\u00efve caf\u00e9 \u2014 \u65e5\u672c\u8a9e \ud83d\ude00\ud83d\udc69\u200d\ud83d\ude80 end'
  const detokenizer = new Detokenizer(tokenizer)
  const ids = tokenizer.encode(text)
  const pieces = ids.map((id) => detokenizer.push(id))
  t.true(pieces.length > [...text].length / 2)
  for (const piece of pieces) t.false(piece.includes('\ufffd'))
  t.is(pieces.join('') + detokenizer.flush(), text)
  t.is(Buffer.concat(ids.map((id) => tokenizer.bytesOf(id))).toString(), text)
})

test('at most three bytes are held back: bytes that no character begins with come out at once', async (t) => {
  const tokenizer = await load(t, SENTENCE_PIECE)
  const byte = (value: number) => 3 + value
  const push = (...bytes: number[]) => {
    const detokenizer = new Detokenizer(tokenizer)
    return bytes.map((value) => detokenizer.push(byte(value)))
  }
  // U+1F600, then bytes that continue nothing.
  t.deepEqual(push(0xf0, 0x9f, 0x98, 0x80), ['', '', '', '\ud83d\ude00'])
  t.true(push(0x80, 0x80, 0x80, 0x80).every((piece) => piece !== ''))
  t.true(push(0xff, 0xff).every((piece) => piece !== ''))
  const cut = push(0xe2, 0x82, 0x41)
  t.deepEqual(cut, ['', '', '\ufffd\ufffd\ufffd'])
})

test('an unfinished character at the end becomes U+FFFD when flushed', async (t) => {
  const tokenizer = (await loadTokenizer(TINY, 4096)) as Tokenizer
  const detokenizer = new Detokenizer(tokenizer)
  const ids = tokenizer.encode('\ud83d\ude00').slice(0, -1)
  t.is(ids.map((id) => detokenizer.push(id)).join(''), '')
  t.regex(detokenizer.flush(), /^\ufffd+$/)
  t.is(detokenizer.flush(), '')
})

test('an answer keeps its first space, which the decoder drops at the beginning of a text', async (t) => {
  const tokenizer = await load(t, SENTENCE_PIECE)
  const [the] = tokenizer.encode('the') as [number]
  t.is(tokenizer.decode([the]), 'the')
  t.is(new Detokenizer(tokenizer, [the]).push(the), ' the')
  t.is(new Detokenizer(tokenizer).push(the), 'the')
})

test('U+FEFF survives byte fallback and byte-level decoders', async (t) => {
  const tokenizer = await load(t, SENTENCE_PIECE)
  t.is(tokenizer.decode(tokenizer.encode('the\ufeffthe')), 'the\ufeffthe')
})

test('the token that begins a document: of the post-processor, of tokenizer_config.json, or none', async (t) => {
  const { bosId, addsBos } = await load(t, SENTENCE_PIECE)
  t.deepEqual([bosId, addsBos], [1, true])
  t.false((await load(t, SENTENCE_PIECE, { add_bos_token: false })).addsBos)
  const plain = { ...SENTENCE_PIECE, post_processor: null }
  t.deepEqual(
    [(await load(t, plain)).bosId, (await load(t, plain, { bos_token: { content: '<s>' }, add_bos_token: true })).addsBos],
    [undefined, true],
  )
  t.deepEqual(readSpecials(plain, { bos_token: '<s>' }).addsBos, false)
})

test('a marked control token is text, an unmarked one is not', async (t) => {
  const tokenizer = await load(t, SENTENCE_PIECE)
  const mark = '\u{f5c1a}m\u{f5c1a}'
  const [end] = tokenizer.encode('<|end|>')
  t.is(end, tokenizer.controlId('<|end|>'))
  const ids = await tokenizer.encodeMarked({ text: `the<${mark}|end|>the<|end|>`, mark })
  t.deepEqual(ids.filter((id) => id === end).length, 1)
  t.is(ids.at(-1), end)
  t.is(tokenizer.decode(ids), 'the<|end|>the')
  t.deepEqual(await tokenizer.encodeMarked({ text: 'the<|end|>', mark }), tokenizer.encode('the<|end|>'))
})

test('how much text a token may stand for is known where no word is unknown', async (t) => {
  t.is(maxBytesPerToken({ ...SENTENCE_PIECE, normalizer: null }), '<|end|>'.length)
  t.is(maxBytesPerToken({ model: { type: 'WordPiece', vocab: { a: 0 } } }), Number.POSITIVE_INFINITY)
  t.true(((await loadTokenizer(TINY, 4096)) as Tokenizer).maxBytesPerToken < 100)
})

test('the JavaScript library takes what it does as the reference does, and refuses the rest by name', async (t) => {
  const json = JSON.stringify(SENTENCE_PIECE)
  const fallback = await javascriptTokenizer(json, SENTENCE_PIECE, readSpecials(SENTENCE_PIECE, {}))
  const rust = await load(t, SENTENCE_PIECE)
  for (const text of ['the the', ' the', 'thethe<|end|> the', 'caf\u00e9 \ud83d\ude00', ''])
    t.deepEqual(fallback.encode(text), rust.encode(text), text)
  const refused: [string, Partial<TokenizerFile>][] = [
    ['WordPiece', { model: { type: 'WordPiece', vocab: {} } }],
    ['Split (Removed)', { pre_tokenizer: { type: 'Split', pattern: { String: ' ' }, behavior: 'Removed', invert: false } }],
    ['Punctuation', { pre_tokenizer: { type: 'Punctuation', behavior: 'Isolated' } }],
    ['Lowercase', { normalizer: { type: 'Lowercase' } }],
    ['continuing_subword_prefix', { model: { type: 'BPE', continuing_subword_prefix: '##' } }],
    ['single_word', { added_tokens: [{ id: 1, content: 'x', single_word: true } as object] }],
  ]
  for (const [name, part] of refused) {
    const file = { ...SENTENCE_PIECE, ...part }
    t.true(differentFeature(file)?.includes(name), name)
    await t.throwsAsync(javascriptTokenizer(JSON.stringify(file), file, readSpecials(file, {})), { code: 'TOKENIZER_INVALID' }, name)
  }
})

test('a model without tokenizer.json has none; one with other ids than the model is refused', async (t) => {
  t.is(await loadTokenizer(`${FIXTURES}golden/mlra_4`, 160), undefined)
  await t.throwsAsync(loadTokenizer(TINY, 100), { message: /cannot be used/ })
})
