import test from 'ava'
import { Detokenizer } from '../../src/tokenizer/detokenizer.js'
import { loadTokenizer, type Tokenizer } from '../../src/tokenizer/tokenizer.js'
import { FIXTURES, TINY, tinyGolden } from '../support/fixtures.js'

test('ids and texts of the reference tokenizer', async (t) => {
  const tokenizer = (await loadTokenizer(TINY, 4096)) as Tokenizer
  for (const { text, ids, out, decoded } of tinyGolden().greedy) {
    t.deepEqual(tokenizer.encode(text), ids)
    t.is(tokenizer.decode(out), decoded)
  }
  t.is(tokenizer.endOfText, 0)
})

test('the pieces of a text never end inside a character and join to the whole', async (t) => {
  const tokenizer = (await loadTokenizer(TINY, 4096)) as Tokenizer
  const text = 'Na\u00efve caf\u00e9 \u2014 \u65e5\u672c\u8a9e \ud83d\ude00\ud83d\udc69\u200d\ud83d\ude80 end'
  const detokenizer = new Detokenizer(tokenizer)
  const pieces = tokenizer.encode(text).map((id) => detokenizer.push(id))
  t.true(pieces.length > [...text].length / 2)
  for (const piece of pieces) t.false(piece.includes('\ufffd'))
  t.is(pieces.join('') + detokenizer.flush(), text)
})

test('an unfinished character at the end becomes U+FFFD when flushed', async (t) => {
  const tokenizer = (await loadTokenizer(TINY, 4096)) as Tokenizer
  const ids = tokenizer.encode('\ud83d\ude00')
  const detokenizer = new Detokenizer(tokenizer)
  t.is(
    ids
      .slice(0, -1)
      .map((id) => detokenizer.push(id))
      .join(''),
    '',
  )
  t.regex(detokenizer.flush(), /^\ufffd+$/)
  t.is(detokenizer.flush(), '')
})

test('a model without tokenizer.json has none; one with other ids than the model is refused', async (t) => {
  t.is(await loadTokenizer(`${FIXTURES}golden/mlra_4`, 160), undefined)
  await t.throwsAsync(loadTokenizer(TINY, 100), { message: /cannot be used/ })
})
