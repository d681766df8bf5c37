// Regular expressions (ECMAScript's syntax, a subset) as grammars: alternatives, groups, classes, quantifiers. Anchors only where a text begins or
// ends; what looks around or back is refused by name.
import { anyOf, type CharRanges, charClass, complement, MAX_REPEAT, mergeRanges, repeat, sequence } from './ebnf.js'
import { Unsupported } from './unsupported.js'

/** How a set of characters is written in the output. */
export type WriteClass = (ranges: CharRanges) => string

export interface RegexForm {
  readonly write: WriteClass
  /** The expression matches a part of the text, as JSON Schema's `pattern` does; otherwise the whole. */
  readonly search: boolean
}

const MAX_DEPTH = 50
const DIGITS: CharRanges = [[0x30, 0x39]]
const WORD: CharRanges = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
]
const SPACE: CharRanges = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
]
const LINE_ENDS: CharRanges = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
]
const SETS: Readonly<Record<string, CharRanges>> = {
  d: DIGITS,
  w: WORD,
  s: SPACE,
  D: complement(DIGITS),
  W: complement(WORD),
  S: complement(SPACE),
}
const CONTROLS: Readonly<Record<string, number>> = { n: 0x0a, r: 0x0d, t: 0x09, f: 0x0c, v: 0x0b, 0: 0 }

/** An expression of the grammar for everything that the regular expression matches. Throws Unsupported, or SyntaxError for what is none. */
export function regexExpression(source: string, form: RegexForm): string {
  // Says what is wrong better than a parser of a subset could.
  new RegExp(source, 'u')
  return new RegexParser(source, form).whole()
}

class RegexParser {
  readonly #chars: readonly string[]
  readonly #form: RegexForm
  #at = 0
  #depth = 0

  constructor(source: string, form: RegexForm) {
    this.#chars = [...source]
    this.#form = form
  }

  whole(): string {
    const expression = this.#alternatives(true)
    if (this.#at < this.#chars.length) throw this.#refuse('an unexpected character')
    return expression
  }

  get #next(): string | undefined {
    return this.#chars[this.#at]
  }

  #take(text: string): boolean {
    if (
      !this.#chars
        .slice(this.#at, this.#at + text.length)
        .join('')
        .startsWith(text)
    )
      return false
    this.#at += text.length
    return true
  }

  #refuse(why: string): Unsupported {
    return new Unsupported('the regular expression', `${why} at character ${this.#at + 1} is not supported`)
  }

  #alternatives(top: boolean): string {
    const branches = [this.#branch(top)]
    while (this.#take('|')) branches.push(this.#branch(top))
    return anyOf(branches)
  }

  #branch(top: boolean): string {
    const parts: string[] = []
    const any = repeat(this.#form.write(complement([])), 0, undefined)
    if (!(top && this.#take('^')) && top && this.#form.search) parts.push(any)
    let ended = false
    while (this.#next !== undefined && this.#next !== '|' && this.#next !== ')') {
      if (this.#next === '$' && top && (this.#chars[this.#at + 1] ?? '|') === '|') {
        this.#at++
        ended = true
        break
      }
      parts.push(this.#quantified())
    }
    if (top && this.#form.search && !ended) parts.push(any)
    return sequence(...parts)
  }

  #quantified(): string {
    const atom = this.#atom()
    const [min, max] = this.#quantifier()
    if (min === 1 && max === 1) return atom
    // Lazy or not, the same texts match.
    this.#take('?')
    return repeat(atom, min, max)
  }

  #quantifier(): readonly [number, number | undefined] {
    if (this.#take('*')) return [0, undefined]
    if (this.#take('+')) return [1, undefined]
    if (this.#take('?')) return [0, 1]
    if (!this.#take('{')) return [1, 1]
    const end = this.#chars.indexOf('}', this.#at)
    const [low = '', high] = this.#chars.slice(this.#at, end).join('').split(',')
    this.#at = end + 1
    const min = Number(low)
    const max = high === undefined ? min : high === '' ? undefined : Number(high)
    if (Math.max(min, max ?? 0) > MAX_REPEAT) throw new Unsupported('the regular expression', `more than ${MAX_REPEAT} repetitions are not supported`)
    return [min, max]
  }

  #atom(): string {
    if (this.#take('(')) return this.#group()
    if (this.#next === '^' || this.#next === '$') throw this.#refuse('an anchor inside')
    if (this.#take('.')) return this.#form.write(complement(LINE_ENDS))
    if (this.#take('[')) return this.#form.write(this.#class())
    return this.#form.write(this.#take('\\') ? this.#escape() : this.#char())
  }

  #group(): string {
    if (++this.#depth > MAX_DEPTH) throw this.#refuse(`nesting deeper than ${MAX_DEPTH}`)
    if (this.#take('?')) {
      if (this.#take('<')) {
        if (this.#next === '=' || this.#next === '!') throw this.#refuse('a lookbehind')
        this.#at = this.#chars.indexOf('>', this.#at) + 1
      } else if (!this.#take(':')) throw this.#refuse('a lookahead')
    }
    const inner = `(${this.#alternatives(false)})`
    this.#take(')')
    this.#depth--
    return inner
  }

  #char(): CharRanges {
    const code = this.#chars[this.#at++]?.codePointAt(0) as number
    return [[code, code]]
  }

  /** After a backslash. */
  #escape(): CharRanges {
    const char = this.#next as string
    const set = SETS[char]
    if (set) {
      this.#at++
      return set
    }
    if (/[1-9k]/.test(char)) throw this.#refuse('a backreference')
    if (/[bB]/.test(char)) throw this.#refuse('a word boundary')
    if (/[pP]/.test(char)) throw this.#refuse('a property of Unicode')
    if (char === 'c') throw this.#refuse('a control character')
    if (char === 'x') return this.#hex(1, 2)
    if (char === 'u') return this.#chars[this.#at + 1] === '{' ? this.#hexInBraces() : this.#hex(1, 4)
    this.#at++
    const code = CONTROLS[char] ?? (char.codePointAt(0) as number)
    return [[code, code]]
  }

  #hex(skip: number, digits: number): CharRanges {
    const code = Number.parseInt(this.#chars.slice(this.#at + skip, this.#at + skip + digits).join(''), 16)
    this.#at += skip + digits
    if (code >= 0xd800 && code <= 0xdfff) throw this.#refuse('half a surrogate pair')
    return [[code, code]]
  }

  #hexInBraces(): CharRanges {
    const end = this.#chars.indexOf('}', this.#at)
    const code = Number.parseInt(this.#chars.slice(this.#at + 2, end).join(''), 16)
    this.#at = end + 1
    return [[code, code]]
  }

  /** After an opening bracket. */
  #class(): CharRanges {
    const negated = this.#take('^')
    const ranges: (readonly [number, number])[] = []
    while (!this.#take(']')) {
      const from = this.#classPart()
      const first = from[0]
      if (from.length === 1 && first && first[0] === first[1] && this.#next === '-' && this.#chars[this.#at + 1] !== ']') {
        this.#at++
        const to = this.#classPart()[0]
        ranges.push([first[0], to?.[1] as number])
      } else ranges.push(...from)
    }
    const merged = mergeRanges(ranges)
    const found = negated ? complement(merged) : complement(complement(merged))
    if (found.length === 0) throw this.#refuse('a class without characters')
    return found
  }

  #classPart(): CharRanges {
    if (!this.#take('\\')) return this.#char()
    if (this.#take('b')) return [[0x08, 0x08]]
    return this.#escape()
  }
}

/** Characters as they are. */
export const PLAIN_CLASS: WriteClass = charClass
