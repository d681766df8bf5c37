// Grammars as texts in EBNF, which grammar-text.ts reads. Rules are expressions; names are made here.
import { Unsupported } from './unsupported.js'

/** Largest grammar that is made from a schema or a regular expression, characters. */
const MAX_CHARACTERS = 1_000_000
/** Largest number of repetitions that is written into a grammar. */
export const MAX_REPEAT = 1000

/** Inclusive ranges of code points, ascending and apart. */
export type CharRanges = readonly (readonly [from: number, to: number])[]

export const MAX_CODE_POINT = 0x10ffff

/** A text as a literal. */
export function literal(text: string): string {
  return text === '' ? '""' : `"${[...text].map(inLiteral).join('')}"`
}

function inLiteral(char: string): string {
  if (char === '"' || char === '\\') return `\\${char}`
  return char >= ' ' && char <= '~' ? char : escaped(char.codePointAt(0) as number)
}

function escaped(code: number): string {
  const hex = code.toString(16)
  return code > 0xffff ? `\\U${hex.padStart(8, '0')}` : `\\u${hex.padStart(4, '0')}`
}

/** One character of a set, which is not empty. */
export function charClass(ranges: CharRanges): string {
  return `[${ranges.map(([from, to]) => (from === to ? escaped(from) : `${escaped(from)}-${escaped(to)}`)).join('')}]`
}

export function anyOf(expressions: readonly string[]): string {
  const different = [...new Set(expressions)]
  return different.length === 1 ? (different[0] as string) : `(${different.join(' | ')})`
}

export function sequence(...expressions: readonly string[]): string {
  const parts = expressions.filter((part) => part !== '""')
  return parts.length === 0 ? '""' : parts.join(' ')
}

export function optional(expression: string): string {
  return `(${expression} | "")`
}

/** max undefined: no limit. */
export function repeat(expression: string, min: number, max: number | undefined): string {
  if (max === 0) return '""'
  const group = `(${expression})`
  if (min === 1 && max === 1) return group
  if (max === undefined) return min === 0 ? `${group}*` : min === 1 ? `${group}+` : `${group}{${min},}`
  return min === 0 && max === 1 ? optional(expression) : `${group}{${min},${max}}`
}

/** Sorted and merged. */
export function mergeRanges(ranges: CharRanges): CharRanges {
  const merged: [number, number][] = []
  for (const [from, to] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = merged.at(-1)
    if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to)
    else merged.push([from, to])
  }
  return merged
}

/** What the ranges leave, without surrogates, which are no characters. */
export function complement(ranges: CharRanges): CharRanges {
  const left: [number, number][] = []
  let next = 0
  for (const [from, to] of mergeRanges([...ranges, [0xd800, 0xdfff]])) {
    if (from > next) left.push([next, from - 1])
    next = to + 1
  }
  if (next <= MAX_CODE_POINT) left.push([next, MAX_CODE_POINT])
  return left
}

export function intersection(a: CharRanges, b: CharRanges): CharRanges {
  return complement([...complement(a), ...complement(b)])
}

/** Named rules of one grammar. */
export class Rules {
  readonly #rules = new Map<string, string>()
  readonly #names = new Map<string, string>()
  #characters = 0

  /** The name of a rule with this expression; equal expressions share one. */
  name(expression: string): string {
    const known = this.#names.get(expression)
    if (known !== undefined) return known
    const name = this.reserve()
    this.define(name, expression)
    this.#names.set(expression, name)
    return name
  }

  /** A name whose expression comes later. */
  reserve(): string {
    const name = `r${this.#rules.size}`
    this.#rules.set(name, '')
    return name
  }

  define(name: string, expression: string): void {
    this.#characters += expression.length
    if (this.#characters > MAX_CHARACTERS) throw new Unsupported('its size', `it becomes a grammar of more than ${MAX_CHARACTERS} characters`)
    this.#rules.set(name, expression)
  }

  /** The grammar whose root has this expression. */
  text(root: string): string {
    return [['root', root] as const, ...this.#rules].map(([name, expression]) => `${name} ::= ${expression}\n`).join('')
  }
}
