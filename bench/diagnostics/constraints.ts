// What it costs to hold texts to a schema, in one thread: a grammar of 2 KB until its first mask, and masks of random texts under it, for vocabularies
// of 4,096, 50,257 and 151,936 tokens. Milliseconds of CPU time.
// Usage: node dist/bench/diagnostics/constraints.js [texts]
import gpt2 from 'js-tiktoken/ranks/gpt2'
import o200k from 'js-tiktoken/ranks/o200k_base'
import { GrammarMatcher } from '../../src/constraints/grammar-matcher.js'
import { schemaSource } from '../../src/constraints/sources.js'
import { TokenTrie } from '../../src/constraints/token-trie.js'
import { loadTokenizer } from '../../src/tokenizer/tokenizer.js'
import { machine, quantile, table } from '../measure.js'
import { prompts, TINY } from '../traffic.js'

const texts = Number(process.argv[2] ?? 20)
const TOKENS = 120

const person = {
  type: 'object',
  properties: {
    name: { type: 'string', maxLength: 40 },
    note: { type: 'string' },
    age: { type: 'integer', minimum: 0, maximum: 120 },
    joined: { type: 'string', format: 'date' },
    kind: { enum: ['alpha', 'beta', 'gamma', 'delta'] },
    tags: { type: 'array', items: { type: 'string', pattern: '^[a-z]{2,12}$' }, maxItems: 5 },
  },
  required: ['name', 'note', 'age', 'joined', 'kind', 'tags'],
}
/** New at each call, 2 KB. */
const schema = (serial: number) => ({
  type: 'object',
  properties: Object.fromEntries(['a', 'b', 'c', 'd', 'e'].map((name) => [`${name}${serial}`, person])),
  required: [`a${serial}`],
})

/** Bytes of the tokens of js-tiktoken's ranks: lines of a name, the first id, and tokens in base64. */
function ranked({ bpe_ranks }: { readonly bpe_ranks: string }, vocab: number): Uint8Array[] {
  const bytes: Uint8Array[] = Array.from({ length: vocab }, () => new Uint8Array())
  for (const line of bpe_ranks.split('\n').filter(Boolean)) {
    const [, first = '0', ...tokens] = line.split(' ')
    for (const [i, token] of tokens.entries()) if (Number(first) + i < vocab) bytes[Number(first) + i] = Buffer.from(token, 'base64')
  }
  return bytes
}

const tokenizer = await loadTokenizer(TINY, 4096)
if (!tokenizer) throw new Error('models/tiny has no tokenizer')
const vocabularies = [Array.from({ length: 4096 }, (_, id) => tokenizer.bytesOf(id)), ranked(gpt2, 50_257), ranked(o200k, 151_936)]

const cpuMs = () => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}
const timed = <T>(run: () => T): readonly [T, number] => {
  const start = cpuMs()
  const value = run()
  return [value, cpuMs() - start]
}

console.log(`${machine()}; a schema of ${JSON.stringify(schema(0)).length} characters; ${texts} texts of ${TOKENS} tokens`)
const rows = vocabularies.map((bytes) => {
  const bytesOf = (id: number) => bytes[id] as Uint8Array
  const [trie, trieMs] = timed(() => new TokenTrie(bytes.length, bytesOf, new Set()))
  const { random } = prompts(1)
  const firsts: number[] = []
  const masks: number[] = []
  for (let serial = 0; serial < texts; serial++) {
    const source = schemaSource(schema(serial))
    const [matcher, ms] = timed(() => {
      const made = new GrammarMatcher(source, trie, bytesOf)
      made.next(made.follow([]))
      return made
    })
    firsts.push(ms)
    const text = matcher.follow([])
    for (let i = 0; i < TOKENS; i++) {
      const [{ bits, allowed }, maskMs] = timed(() => matcher.next(text))
      masks.push(maskMs)
      let left = Math.floor(random() * allowed)
      const token = bytes.findIndex((_, id) => (((bits[id >> 5] as number) >>> (id & 31)) & 1) === 1 && left-- === 0)
      if (token < 0) break
      matcher.accept(text, token)
    }
  }
  return [bytes.length, trieMs, quantile(firsts, 0.5), quantile(firsts, 1), ...[0.5, 0.9, 0.99, 1].map((q) => quantile(masks, q))].map((value, i) =>
    i === 0 ? String(value) : value.toFixed(2),
  )
})
console.log(table([['vocabulary', 'tree', 'new schema: median', 'slowest', 'mask: median', '90 %', '99 %', 'slowest'], ...rows]))
