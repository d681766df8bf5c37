// Grammars as they are read and followed: what may come next, against regular expressions of the platform and token by token.
import test from 'ava'
import fc from 'fast-check'
import { Automaton } from '../../src/constraints/automaton.js'
import { GrammarMatcher, networkOf } from '../../src/constraints/grammar-matcher.js'
import type { GrammarSource } from '../../src/constraints/matcher-messages.js'
import { regexSource, schemaSource, tagSource } from '../../src/constraints/sources.js'
import { TokenMasks } from '../../src/constraints/token-masks.js'
import { TokenTrie } from '../../src/constraints/token-trie.js'
import { randomSchema } from '../support/random-schemas.js'

/** All bytes, some of them twice, pieces of characters, and words that begin alike. */
const TOKENS: readonly Uint8Array[] = [
  new Uint8Array(),
  ...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
  ...['a', 'ab', 'abc', 'ab"', '", "', '{"', '": ', 'é', 'aé', '€x', '12', '123', '0', 'true', '\n\n', '<f', '<f>', 'e7|', '𝄞'].map((text) =>
    Buffer.from(text),
  ),
  Uint8Array.of(0xc3, 0xa9, 0xe2),
  Uint8Array.of(0x82, 0xac, 0x22),
]
const STOP = 0
const bytesOf = (id: number) => TOKENS[id] as Uint8Array
const trie = new TokenTrie(TOKENS.length, bytesOf, new Set([STOP]))

const grammar = (text: string): GrammarSource => ({ kind: 'grammar', text })
const automatonOf = (source: GrammarSource) => {
  const { network, start } = networkOf(source)
  return new Automaton(network, start)
}

function matches(automaton: Automaton, text: string): boolean {
  let at = automaton.start
  for (const byte of Buffer.from(text)) {
    automaton.know(at)
    at = automaton.table[256 * at + byte] as number
    if (at < 0) return false
  }
  return automaton.ends(at)
}

const TAGS = {
  triggers: ['<f', 'ab'],
  tags: [
    { begin: '<f>', schema: { enum: [7, 8] }, end: '|' },
    { begin: 'ab', schema: { const: 1 }, end: ';' },
  ],
}
const tag = '(<f>[78]\\||ab1;)'
const free = '(?:(?!<f|ab)[^])*'

/** A grammar, a regular expression for the same texts, and the characters to try. */
const LANGUAGES: readonly (readonly [GrammarSource, RegExp, string])[] = [
  ...['(a|b)*c?', 'a{2,4}b', '(ab|a)(c|bc)?', '[^a-c]{1,3}', '(a?){3}', '((a|b){2}){0,2}', 'é+|[α-ω]{2,}', '(a*)*b', 'a{0}b?', '(|a)b'].map(
    (pattern) => [regexSource(pattern), new RegExp(`^(?:${pattern})$`, 'u'), 'abcéβω'] as const,
  ),
  [grammar('root ::= root "," item | item\nitem ::= [ab]+'), /^[ab]+(,[ab]+)*$/, 'ab,'],
  [grammar('root ::= x | root "+" | root "-" x\nx ::= "a"'), /^a(\+|-a)*$/, 'a+-'],
  [grammar('# one\nroot ::= ("a" # two\n | "b")? .{2}\n'), /^[ab]?.{2}$/su, 'abc\u{1d11e}'],
  [grammar('root ::= a\na ::= "" | "a" a "b"'), /^(|ab|aabb|aaabbb)$/, 'ab'],
  [grammar('root ::= s s\ns ::= "a" s | ""'), /^a*$/, 'ab'],
  [grammar('root ::= [\\x61-\\u0063\\]\\-] "\\"\\U0001d11e"'), /^[a-c\]-]"\u{1d11e}$/u, 'ac-]"\u{1d11e}'],
  [tagSource(TAGS), new RegExp(`^(${free}${tag})*${free}$`), '<f>78|ab1;'],
  [tagSource({ ...TAGS, atLeastOne: true }), new RegExp(`^${tag}(${free}${tag})*${free}$`), '<f>78|ab1;'],
  [tagSource({ ...TAGS, stopAfterFirst: true }), new RegExp(`^${free}${tag}?$`), '<f>78|ab1;'],
  [
    tagSource({ ...TAGS, separator: ', ', atLeastOne: true, otherwise: { enum: ['ab', 1] } }),
    new RegExp(`^(${tag}(, ${tag})*|"ab"|1)$`),
    '<f>78|ab1;, "',
  ],
  [tagSource({ ...TAGS, separator: ', ' }), new RegExp(`^(${tag}(, ${tag})*)?$`), '<f>78|ab1;, '],
]

test('a grammar matches the texts of its regular expression, and no others', (t) => {
  for (const [source, pattern, characters] of LANGUAGES) {
    const automaton = automatonOf(source)
    const pieces = [...characters, ...(source.kind === 'tag' ? ['<f>7|', 'ab1;', '<f>8|, ', 'ab1;, '] : [])]
    const counts = { true: 0, false: 0 }
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...pieces), { maxLength: 8 }), (parts) => {
        const text = parts.join('')
        const expected = pattern.test(text)
        counts[`${expected}`]++
        return matches(automaton, text) === expected
      }),
      { numRuns: 600, seed: 5 },
    )
    t.true(counts.true > 0 && counts.false > 0, `${pattern} ${JSON.stringify(counts)}`)
  }
})

test('a mask has the tokens that may come one by one, at each position of random schemas, also when positions are forgotten', (t) => {
  const sources = [...fc.sample(randomSchema, { numRuns: 25, seed: 2 }).map(schemaSource), ...LANGUAGES.map(([source]) => source)]
  let seed = 1
  const random = () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
    return seed / 2 ** 32
  }
  let steps = 0
  for (const source of sources) {
    const matcher = new GrammarMatcher(source, trie, bytesOf)
    const forgetful = new GrammarMatcher(source, trie, bytesOf, 4)
    const text = matcher.follow([])
    const same = forgetful.follow([])
    const oracle = automatonOf(source)
    const single = new TokenMasks(oracle, trie)
    let at = oracle.start
    for (let i = 0; i < 20; i++) {
      const next = matcher.next(text)
      const allowed = TOKENS.flatMap((bytes, id) => (id !== STOP && single.after(at, bytes) >= 0 ? [id] : []))
      const inMask = TOKENS.flatMap((_, id) => (((next.bits[id >> 5] as number) >>> (id & 31)) & 1 ? [id] : []))
      t.deepEqual(inMask, allowed)
      t.is(next.allowed, allowed.length)
      t.is(next.mayEnd, oracle.ends(at))
      t.deepEqual(forgetful.next(same), next)
      steps++
      const token = allowed[Math.floor(random() * allowed.length)]
      if (token === undefined) break
      matcher.accept(text, token)
      forgetful.accept(same, token)
      at = single.after(at, bytesOf(token))
    }
    t.deepEqual(matcher.next(matcher.follow(text.tokens)), matcher.next(text))
  }
  t.true(steps > 300, String(steps))
})

const REFUSED: readonly (readonly [string, RegExp])[] = [
  ['', /"root" is not defined/],
  ['root ::= other', /"other" is not defined/],
  ['root ::= "a"\nroot ::= "b"', /"root" is defined twice/],
  ['root ::= "a', /expected "/],
  ['root ::= "a\n"', /expected "/],
  ['root ::= [a', /expected \]/],
  ['root ::= []', /no characters/],
  ['root ::= ("a"', /expected \)/],
  ['root ::= ("a" b ::= "c")', /expected \)/],
  ['root ::= "a")', /expected a rule/],
  ['root = "a"', /expected a rule/],
  ['root ::= "a" (="b")', /lookahead/],
  ['root ::= "a"{2,1}', /ends below its start/],
  ['root ::= "a"{2000}', /above 1000/],
  ['root ::= "\\ud800"', /no character/],
  ['root ::= root "a"', /begins with itself/],
  ['root ::= a\na ::= b? c\nb ::= "x"\nc ::= a "y" | "z"', /begins with itself, through other rules/],
  [`root ::= ${'('.repeat(300)}"a"${')'.repeat(300)}`, /nested deeper/],
  [`root ::= "a"${'*'.repeat(5000)}`, /repetitions of one expression/],
  [`root ::= ${Array.from({ length: 250 }, () => '"a"{1000}').join(' ')}`, /more than 200000 states/],
]

test('a grammar that cannot be read is refused with what is wrong', (t) => {
  for (const [text, message] of REFUSED) t.throws(() => networkOf(grammar(text)), { message }, text.slice(0, 60))
})

test('a grammar that can be read in too many ways is refused when a text comes there', (t) => {
  const many = grammar(`root ::= (((x{0,200}){0,200}){0,200}){0,200}\nx ::= "a" | ""`)
  t.throws(
    () => {
      const automaton = automatonOf(many)
      matches(automaton, 'a'.repeat(200))
    },
    { message: /too many ways/ },
  )
})
