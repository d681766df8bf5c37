// JSON's strings and separators as grammars.
import { anyOf, type CharRanges, charClass, complement, intersection, repeat, sequence } from './ebnf.js'
import type { WriteClass } from './regex.js'

/** Between items, and between a key and its value: as Python's json.dumps writes them. */
export const COMMA = '", "'
export const COLON = '": "'

const ESCAPED: CharRanges = [
  [0x00, 0x1f],
  [0x22, 0x22],
  [0x5c, 0x5c],
]
const UNESCAPED = complement(ESCAPED)
const HEX = '[0-9a-fA-F]'
/** Every code point once: a pair of surrogates is one, and half of one is none. */
const ESCAPE = anyOf([
  '"\\\\" ["\\\\/bfnrt]',
  `"\\\\u" [0-9a-cA-CefEF] ${HEX} ${HEX} ${HEX}`,
  `"\\\\u" [dD] [0-7] ${HEX} ${HEX}`,
  `"\\\\u" [dD] [89abAB] ${HEX} ${HEX} "\\\\u" [dD] [c-fC-F] ${HEX} ${HEX}`,
])
/** One character of a string. */
export const CHARACTER = anyOf([charClass(UNESCAPED), ESCAPE])

const SHORT_ESCAPES: readonly (readonly [number, string])[] = [
  [0x08, 'b'],
  [0x09, 't'],
  [0x0a, 'n'],
  [0x0c, 'f'],
  [0x0d, 'r'],
  [0x22, '"'],
  [0x5c, '\\'],
]

/** A set of characters inside a string. Control characters without a short escape are left out. */
export const inString: WriteClass = (ranges) => {
  const plain = intersection(ranges, UNESCAPED)
  const escapes = SHORT_ESCAPES.filter(([code]) => ranges.some(([from, to]) => code >= from && code <= to)).map(([, letter]) =>
    letter === '"' || letter === '\\' ? `"\\\\\\${letter}"` : `"\\\\${letter}"`,
  )
  return anyOf([...(plain.length > 0 ? [charClass(plain)] : []), ...escapes])
}

export function quoted(content: string): string {
  return sequence('"\\""', content, '"\\""')
}

/** A string of min to max characters, as JSON Schema counts them: code points. */
export function stringOf(character: string, min: number, max: number | undefined): string {
  return quoted(repeat(character, min, max))
}
