// Reads grammars: EBNF as in llama.cpp and XGrammar. Rules are `name ::= expression`; an expression has literals, classes of characters, `.`, names,
// groups, `|`, and `*`, `+`, `?`, `{m}`, `{m,}`, `{m,n}`. Spaces and line ends separate, `#` begins a comment.
import { type CharRanges, complement, MAX_CODE_POINT, MAX_REPEAT, mergeRanges } from './ebnf.js'
import { Refused } from './unsupported.js'

export type Expression =
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | { readonly kind: 'class'; readonly ranges: CharRanges }
  | { readonly kind: 'sequence'; readonly parts: readonly Expression[] }
  | { readonly kind: 'choice'; readonly parts: readonly Expression[] }
  /** max: Infinity for no limit. */
  | { readonly kind: 'repeat'; readonly inner: Expression; readonly min: number; readonly max: number }
  | { readonly kind: 'rule'; readonly name: string }

const MAX_DEPTH = 200

const SPACE = /(?:\s|#[^\n]*)+/y
const NAME = /[A-Za-z0-9_][A-Za-z0-9_.-]*/y
const DEFINES = /\s*::=/y
const COUNTS = /\{\s*(\d+)\s*(?:(,)\s*(\d+)?\s*)?\}/y
const ESCAPE = /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))/suy
const COUNT_OF: Readonly<Record<string, readonly [min: number, max: number]>> = { '*': [0, Infinity], '+': [1, Infinity], '?': [0, 1] }
const SHORT: Readonly<Record<string, number>> = { n: 10, r: 13, t: 9, f: 12, v: 11, b: 8, a: 7, 0: 0 }

/** The rules by name; `root` is among them. Throws Refused. */
export function parseGrammar(text: string): ReadonlyMap<string, Expression> {
  return new GrammarParser(text).rules()
}

class GrammarParser {
  readonly #text: string
  #at = 0
  #depth = 0

  constructor(text: string) {
    this.#text = text
  }

  rules(): ReadonlyMap<string, Expression> {
    const rules = new Map<string, Expression>()
    const used = new Set<string>()
    this.#skip()
    while (this.#at < this.#text.length) {
      const name = this.#match(NAME)?.[0]
      if (name === undefined || !this.#match(DEFINES)) throw this.#wrong('a rule, name ::= expression')
      if (rules.has(name)) throw new Refused(`the rule "${name}" is defined twice`)
      rules.set(name, this.#choice(used))
    }
    for (const name of ['root', ...used]) if (!rules.has(name)) throw new Refused(`the rule "${name}" is not defined`)
    return rules
  }

  #match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text) ?? undefined
    if (found) this.#at = pattern.lastIndex
    return found
  }

  #skip(): void {
    this.#match(SPACE)
  }

  #take(char: string): boolean {
    if (this.#text[this.#at] !== char) return false
    this.#at++
    return true
  }

  #wrong(expected: string): Refused {
    const found = this.#text.slice(this.#at, this.#at + 20)
    return new Refused(`expected ${expected} at character ${this.#at + 1}, found ${found === '' ? 'the end' : JSON.stringify(found)}`)
  }

  #choice(used: Set<string>): Expression {
    const parts: Expression[] = []
    do parts.push(this.#sequence(used))
    while (this.#take('|'))
    return parts.length === 1 ? (parts[0] as Expression) : { kind: 'choice', parts }
  }

  /** Up to a `|`, a `)`, the next rule or the end. */
  #sequence(used: Set<string>): Expression {
    const parts: Expression[] = []
    for (;;) {
      this.#skip()
      const item = this.#item(used)
      if (!item) break
      parts.push(this.#repeated(item))
    }
    return parts.length === 1 ? (parts[0] as Expression) : { kind: 'sequence', parts }
  }

  #item(used: Set<string>): Expression | undefined {
    const char = this.#text[this.#at]
    if (char === undefined || char === '|' || char === ')') return undefined
    if (char === '"') return this.#literal()
    if (char === '[') return this.#class()
    if (char === '(') return this.#group(used)
    if (this.#take('.')) return { kind: 'class', ranges: complement([]) }
    const start = this.#at
    const name = this.#match(NAME)?.[0]
    if (name === undefined) throw this.#wrong('a literal, a class, a name or a group')
    if (this.#match(DEFINES)) {
      this.#at = start
      if (this.#depth > 0) throw this.#wrong(')')
      return undefined
    }
    used.add(name)
    return { kind: 'rule', name }
  }

  #repeated(item: Expression, turns = 0): Expression {
    if (turns > MAX_DEPTH) throw new Refused(`more than ${MAX_DEPTH} repetitions of one expression`)
    this.#skip()
    const known = COUNT_OF[this.#text[this.#at] ?? '']
    let [min, max] = known ?? [1, 1]
    if (known) this.#at++
    else {
      const counts = this.#match(COUNTS)
      if (!counts) return item
      min = Number(counts[1])
      max = counts[3] !== undefined ? Number(counts[3]) : counts[2] === undefined ? min : Infinity
      if (max < min) throw new Refused(`the repetition ${counts[0]} ends below its start`)
      if (Math.max(min, max === Infinity ? 0 : max) > MAX_REPEAT) throw new Refused(`the repetition ${counts[0]} is above ${MAX_REPEAT}`)
    }
    return this.#repeated({ kind: 'repeat', inner: item, min, max }, turns + 1)
  }

  #group(used: Set<string>): Expression {
    if (++this.#depth > MAX_DEPTH) throw new Refused(`groups are nested deeper than ${MAX_DEPTH}`)
    this.#at++
    if (this.#text[this.#at] === '=') throw new Refused('a lookahead, (=...), is not supported')
    const inner = this.#choice(used)
    if (!this.#take(')')) throw this.#wrong(')')
    this.#depth--
    return inner
  }

  /** A character within a literal or a class. */
  #char(end: string): number {
    const escaped = this.#match(ESCAPE)
    if (escaped) {
      const [whole, two, four, eight, plain = ''] = escaped
      const hex = two ?? four ?? eight
      const code = hex === undefined ? (SHORT[plain] ?? (plain.codePointAt(0) as number)) : Number.parseInt(hex, 16)
      if (code > MAX_CODE_POINT || (code >= 0xd800 && code <= 0xdfff)) throw new Refused(`${whole} is no character`)
      return code
    }
    const code = this.#text.codePointAt(this.#at)
    if (code === undefined || code === 0x0a) throw this.#wrong(end)
    this.#at += code > 0xffff ? 2 : 1
    return code
  }

  #literal(): Expression {
    this.#at++
    const codes: number[] = []
    while (!this.#take('"')) codes.push(this.#char('"'))
    return { kind: 'bytes', bytes: Buffer.from(codes.map((code) => String.fromCodePoint(code)).join('')) }
  }

  #class(): Expression {
    this.#at++
    const negated = this.#take('^')
    const ranges: [number, number][] = []
    while (!this.#take(']')) {
      const from = this.#char(']')
      const isRange = this.#text[this.#at] === '-' && this.#text[this.#at + 1] !== ']'
      if (isRange) this.#at++
      ranges.push([from, isRange ? this.#char(']') : from])
    }
    const merged = mergeRanges(ranges.filter(([from, to]) => from <= to))
    const found = negated ? complement(merged) : complement(complement(merged))
    if (found.length === 0) throw new Refused(`a class before character ${this.#at + 1} has no characters`)
    return { kind: 'class', ranges: found }
  }
}
