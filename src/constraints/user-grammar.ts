// A caller's grammar in the alphabet of byte-symbols.ts: other characters than ASCII become the symbols of their UTF-8, in literals and classes.
import { type CharRanges, charClass, complement, literal, MAX_CODE_POINT } from './ebnf.js'
import { Unsupported } from './unsupported.js'

/** Comments, literals, classes, and everything else. */
const PARTS = /#[^\n]*|"(?:\\.|[^"\\\n])*"|\[(?:\\.|[^\]\\\n])*\]|[^#"[]+|["[]/gsu
const ESCAPE = /^\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|(.))/su
const SHORT: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', f: '\f', v: '\v', b: '\b', a: '\x07', 0: '\0' }

/** Throws Unsupported. */
export function portableGrammar(grammar: string): string {
  return (grammar.match(PARTS) ?? []).map(portablePart).join('')
}

function portablePart(part: string): string {
  // Parsers differ on comments, and nobody needs them.
  if (part.startsWith('#')) return ''
  if (part.startsWith('"') && part.length > 1)
    return literal(
      charactersOf(part.slice(1, -1))
        .map(({ char }) => char)
        .join(''),
    )
  if (!part.startsWith('[') || part.length === 1) return part
  const negated = part[1] === '^'
  const found = rangesOf(charactersOf(part.slice(negated ? 2 : 1, -1)))
  const ranges = negated ? complement(found) : complement(complement(found))
  if (ranges.length === 0) throw new Unsupported('the grammar', `the class ${part} has no characters`)
  return charClass(ranges)
}

function charactersOf(text: string): { readonly char: string; readonly escaped: boolean }[] {
  const characters: { char: string; escaped: boolean }[] = []
  for (let rest = text; rest !== ''; ) {
    const found = ESCAPE.exec(rest)
    if (!found) {
      const char = String.fromCodePoint(rest.codePointAt(0) as number)
      characters.push({ char, escaped: false })
      rest = rest.slice(char.length)
      continue
    }
    const [whole, four, eight, two, plain = ''] = found
    const hex = four ?? eight ?? two
    const code = hex === undefined ? undefined : Number.parseInt(hex, 16)
    if (code !== undefined && code > MAX_CODE_POINT) throw new Unsupported('the grammar', `${whole} is no character`)
    characters.push({ char: code === undefined ? (SHORT[plain] ?? plain) : String.fromCodePoint(code), escaped: true })
    rest = rest.slice(whole.length)
  }
  return characters
}

function rangesOf(characters: readonly { readonly char: string; readonly escaped: boolean }[]): CharRanges {
  const ranges: [number, number][] = []
  const codeAt = (i: number) => characters[i]?.char.codePointAt(0) as number
  for (let i = 0; i < characters.length; i++) {
    const isRange = characters[i + 1]?.char === '-' && !characters[i + 1]?.escaped && i + 2 < characters.length
    ranges.push([codeAt(i), isRange ? codeAt(i + 2) : codeAt(i)])
    if (isRange) i += 2
  }
  return ranges
}
