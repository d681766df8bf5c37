// The kinds of entries that the option tables are made of. An entry holds all that is known about one option: its check, its default, its flag,
// its HTTP field and its documentation. Knows no option by name.
import { type Caller, spelledPart } from './caller.js'
import { checkBoolean, checkInstance, checkInteger, checkNames, checkOneOf, invalidOption, show } from './check.js'

/** How the command line writes the value of an option. */
export interface FlagShape {
  /** Placeholder in the help, for example <n>; undefined: the flag takes no value. */
  readonly value: string | undefined
  /** There is a second flag, --no-..., for false. */
  readonly negatable?: boolean
  /** The flag may be given several times, for a list. */
  readonly repeats: boolean
  /** Reads the value. A text that it cannot read is returned as it is, so that the check reports it. */
  parse(text: string): unknown
}

/** An HTTP field as JSON schema: the type only. Ranges are checked by the entry, with the field's name. */
export interface HttpShape {
  readonly schema: object
  /** Values that other servers' clients send for "not set". */
  readonly unset: readonly unknown[]
}

export interface CheckContext {
  readonly caller: Caller
  /** Size of the vocabulary; Infinity before the model is known. */
  readonly vocab: number
}

/** In: the type in the API. Out: the type after the check, with the default filled in. */
export interface Entry<In, Out> {
  /** What it is: a phrase that is also the help of the flag. */
  readonly doc: string
  /** Further sentences for the documentation; '' if there are none. */
  readonly more: string
  /** The type as TypeScript writes it. */
  readonly type: string
  /** Values that are allowed, in words; '' if the type says it all. */
  readonly range: string
  /** The default in words; '' if there is none. */
  readonly defaultText: string
  /** undefined: the command line has no such flag, or another one of its own. */
  readonly flag: FlagShape | undefined
  /** undefined: not offered over HTTP. */
  readonly http: HttpShape | undefined
  /** `name`: in the caller's spelling. Fills in the default. Throws OptionError OPTION_INVALID. */
  check(value: unknown, name: string, context: CheckContext): Out
  /** Never set: it carries the type. */
  readonly input?: In
}

export type Table = Readonly<Record<string, Entry<unknown, unknown>>>
export type InputOf<E> = E extends Entry<infer In, unknown> ? In : never
export type OutputOf<E> = E extends Entry<unknown, infer Out> ? Out : never
/** What a caller may pass for a table. */
export type Inputs<T extends Table> = { [K in keyof T]?: InputOf<T[K]> }
/** The checked values of a table. */
export type Checked<T extends Table> = { readonly [K in keyof T]: OutputOf<T[K]> }

/** What it is and which values it takes, as the help of its flag. */
export function withRange({ doc, range }: Entry<unknown, unknown>): string {
  return range === '' ? doc : `${doc}: ${range}`
}

interface Text {
  readonly doc: string
  readonly more?: string
  /** The default in words, where it is not a constant. */
  readonly defaultText?: string
  /** Placeholder of the flag's value; false: no flag. */
  readonly flag?: string | false
  /** Offered over HTTP. Default false. */
  readonly http?: boolean
  /** HTTP values that mean "not set". */
  readonly unset?: readonly unknown[]
}

type Default<D> = D | (() => D)

function fallback<D>(value: Default<D>): D {
  return typeof value === 'function' ? (value as () => D)() : value
}

/** Words of a default: the constant, unless the text says it otherwise. */
function wordsOf(text: Text, value: unknown): string {
  if (text.defaultText !== undefined) return text.defaultText
  return value === undefined || typeof value === 'function' ? '' : String(value)
}

function httpOf(text: Text, schema: object): HttpShape | undefined {
  return text.http ? { schema, unset: text.unset ?? [] } : undefined
}

function flagOf(text: Text, value: string, parse: (text: string) => unknown, repeats = false): FlagShape | undefined {
  return text.flag === false ? undefined : { value: text.flag ?? value, parse, repeats }
}

function parseNumber(text: string): unknown {
  const value = Number(text)
  return text.trim() === '' || Number.isNaN(value) ? text : value
}

function parseNumbers(text: string): unknown {
  return text.split(',').map(parseNumber)
}

interface Range {
  readonly min: number
  readonly max: number
}

function rangeText({ min, max }: Range): string {
  if (max >= Number.MAX_SAFE_INTEGER) return `${min} or more`
  return `${min} to ${max}`
}

/** An integer in [min, max]. */
export function int<D extends number | undefined>(spec: Text & Range & { readonly default: Default<D> }): Entry<number, number | Exclude<D, number>> {
  return {
    doc: spec.doc,
    more: spec.more ?? '',
    type: 'number',
    range: `an integer, ${rangeText(spec)}`,
    defaultText: wordsOf(spec, spec.default),
    flag: flagOf(spec, '<n>', parseNumber),
    http: httpOf(spec, { type: 'integer' }),
    check: (value, name) =>
      value === undefined ? (fallback(spec.default) as number | Exclude<D, number>) : checkInteger(name, value, spec.min, spec.max, invalidOption),
  }
}

/** A number in [min, max], or in (min, max] with `above`. `also`: one more value that is allowed. */
export function number(spec: Text & Range & { readonly default: number; readonly above?: boolean; readonly also?: number }): Entry<number, number> {
  const { min, max, above = false, also } = spec
  const range = `${also === undefined ? '' : `${also}, or `}${above ? 'above' : 'from'} ${min} to ${max}`
  return {
    doc: spec.doc,
    more: spec.more ?? '',
    type: 'number',
    range,
    defaultText: wordsOf(spec, spec.default),
    flag: flagOf(spec, '<x>', parseNumber),
    http: httpOf(spec, { type: 'number' }),
    check: (value = spec.default, name) => checkNumber(value, name, { min, max, above, also }, range),
  }
}

function checkNumber(
  value: unknown,
  name: string,
  bounds: Range & { above?: boolean; also?: number | undefined },
  range: string,
  option = name,
): number {
  const { min, max, above, also } = bounds
  if (typeof value === 'number' && (value === also || ((above ? value > min : value >= min) && value <= max))) return value
  throw invalidOption({
    what: `${name} is out of range`,
    expected: `a number, ${range}`,
    actual: show(value),
    remedy: `Set ${name} to a value in this range.`,
    option,
  })
}

/** true or false; false by default. */
export function flag(spec: Text): Entry<boolean, boolean> {
  return {
    doc: spec.doc,
    more: spec.more ?? '',
    type: 'boolean',
    range: '',
    defaultText: wordsOf(spec, false),
    flag: spec.flag === false ? undefined : { value: undefined, repeats: false, parse: () => true },
    http: httpOf(spec, { type: 'boolean' }),
    check: (value, name) => checkBoolean(name, value, invalidOption),
  }
}

/** A switch that decides by itself when it is not set. `automatic`: how, in words. */
export function automaticFlag(spec: Text & { readonly automatic: string }): Entry<boolean, boolean | undefined> {
  return {
    doc: spec.doc,
    more: spec.more ?? '',
    type: 'boolean',
    range: '',
    defaultText: spec.automatic,
    flag: spec.flag === false ? undefined : { value: undefined, negatable: true, repeats: false, parse: () => true },
    http: httpOf(spec, { type: 'boolean' }),
    check: (value, name) => (value === undefined ? undefined : checkBoolean(name, value, invalidOption)),
  }
}

/** One of a list of values. */
export function choice<const V extends string | number, D extends V | undefined>(
  spec: Text & { readonly values: readonly V[]; readonly default: D; readonly type?: string },
): Entry<V, V | Exclude<D, V>> {
  return {
    doc: spec.doc,
    more: spec.more ?? '',
    type: spec.type ?? spec.values.map((v) => (typeof v === 'string' ? `'${v}'` : String(v))).join(' | '),
    range: spec.values.join(', '),
    defaultText: wordsOf(spec, spec.default),
    flag: flagOf(spec, '<name>', (text) => spec.values.find((v) => String(v) === text) ?? parseNumber(text)),
    http: httpOf(spec, { enum: spec.values }),
    check: (value, name) => (value === undefined ? (spec.default as V | Exclude<D, V>) : checkOneOf(name, value, spec.values, invalidOption)),
  }
}

/** A text, or several of them. `maxItems` and `maxLength` bound them. */
export function texts(
  spec: Text & { readonly maxItems: number; readonly maxLength: number; readonly what: string },
): Entry<string | readonly string[], readonly string[]> {
  const { maxItems, maxLength, what } = spec
  const valid = (text: unknown): text is string => typeof text === 'string' && text.length > 0 && text.length <= maxLength
  const isList = (list: unknown): list is readonly string[] => Array.isArray(list) && list.length <= maxItems && list.every(valid)
  const range = `${what} of 1 to ${maxLength} characters, or an array of at most ${maxItems} of them`
  return {
    doc: spec.doc,
    more: spec.more ?? '',
    type: 'string | readonly string[]',
    range,
    defaultText: wordsOf(spec, undefined),
    flag: flagOf(spec, '<text>', (text) => text, true),
    http: httpOf(spec, { anyOf: [{ type: 'string' }, { type: 'array', items: { type: 'string' } }] }),
    check: (value, name) => {
      if (value === undefined) return []
      const list: unknown = typeof value === 'string' ? [value] : value
      if (isList(list)) return Object.freeze([...list])
      throw invalidOption({ what: `${name} is not valid`, expected: range, actual: show(value), remedy: `Pass such texts as ${name}.`, option: name })
    },
  }
}

/** Token ids, at most maxItems. */
export function ids(spec: Text & { readonly maxItems: number }): Entry<readonly number[], readonly number[]> {
  const { maxItems } = spec
  const range = `at most ${maxItems} token ids`
  return {
    doc: spec.doc,
    more: spec.more ?? '',
    type: 'readonly number[]',
    range,
    defaultText: wordsOf(spec, undefined),
    flag: flagOf(spec, '<ids>', parseNumbers),
    http: httpOf(spec, { type: 'array', items: { type: 'integer' } }),
    check: (value = [], name, { vocab }) => {
      if (!Array.isArray(value) || value.length > maxItems) {
        throw invalidOption({
          what: `${name} is not valid`,
          expected: `an array of ${range}`,
          actual: show(value),
          remedy: 'Pass such an array.',
          option: name,
        })
      }
      return Object.freeze(value.map((id) => checkId(`an id of ${name}`, id, vocab, name)))
    },
  }
}

function checkId(name: string, value: unknown, vocab: number, option: string): number {
  const max = Number.isFinite(vocab) ? vocab - 1 : Number.MAX_SAFE_INTEGER
  return checkInteger(name, value, 0, max, (facts) => invalidOption({ ...facts, option }))
}

/** Numbers by token id, each in [min, max]; at most maxItems. */
export function biases(
  spec: Text & Range & { readonly maxItems: number },
): Entry<Readonly<Record<number, number>>, readonly (readonly [id: number, bias: number])[]> {
  const { maxItems } = spec
  const range = `${rangeText(spec)} each, at most ${maxItems} entries`
  return {
    doc: spec.doc,
    more: spec.more ?? '',
    type: 'Readonly<Record<number, number>>',
    range,
    defaultText: wordsOf(spec, undefined),
    flag: flagOf(spec, '<id=bias,...>', parseBiases),
    http: httpOf(spec, { type: 'object', additionalProperties: { type: 'number' } }),
    check: (value = {}, name, { vocab }) => {
      if (typeof value !== 'object' || value === null || Array.isArray(value)) {
        throw invalidOption({
          what: `${name} has the wrong type`,
          expected: 'an object of token ids and numbers',
          actual: show(value),
          remedy: 'Pass { id: bias }.',
          option: name,
        })
      }
      const entries = Object.entries(value)
      if (entries.length > maxItems) {
        throw invalidOption({
          what: `${name} is too long`,
          expected: `at most ${maxItems} entries`,
          actual: String(entries.length),
          remedy: 'Remove some.',
          option: name,
        })
      }
      const bounds = `from ${spec.min} to ${spec.max}`
      return entries.map(([id, bias]) => [
        checkId(`an id of ${name}`, id === '' ? Number.NaN : Number(id), vocab, name),
        checkBias(bias, name, spec, bounds),
      ])
    },
  }
}

function checkBias(bias: unknown, name: string, bounds: Range, range: string): number {
  return checkNumber(bias, `a value of ${name}`, bounds, range, name)
}

/** 50256=-100,11=2 as an object; a part that is not id=bias gives a value that the check refuses. */
function parseBiases(text: string): unknown {
  return Object.fromEntries(
    text.split(',').map((part) => {
      const [id = '', bias = ''] = part.split('=')
      return [id, parseNumber(bias)]
    }),
  )
}

/** An object of integers. The command line writes them in this order, with commas. */
export function integers<const K extends string>(
  spec: Text & { readonly parts: Readonly<Record<K, Range>>; readonly example: Readonly<Record<K, number>> },
): Entry<Readonly<Record<K, number>>, Readonly<Record<K, number>> | undefined> {
  const names = Object.keys(spec.parts) as K[]
  const range = names.map((part) => `${part} ${rangeText(spec.parts[part])}`).join(', ')
  return {
    doc: spec.doc,
    more: spec.more ?? '',
    type: `{ ${names.map((part) => `${part}: number`).join('; ')} }`,
    range,
    defaultText: wordsOf(spec, undefined),
    flag: flagOf(spec, `<${names.join(',')}>`, (text) => {
      const values = text.split(',')
      return values.length === names.length ? Object.fromEntries(names.map((part, i) => [part, parseNumber(values[i] as string)])) : text
    }),
    http: undefined,
    check: (value, name, { caller }) => {
      if (value === undefined) return undefined
      if (caller === 'cli' && typeof value === 'string') {
        throw invalidOption({
          what: `${name} needs ${names.length} integers`,
          expected: `${names.join(',')}: ${range}`,
          actual: value,
          remedy: `Write ${name} ${names.map((part) => spec.example[part]).join(',')}, for example.`,
          option: name,
        })
      }
      const given = checkNames(name, value, names)
      const checked = names.map((part) => {
        const { min, max } = spec.parts[part]
        return [
          part,
          checkInteger(spelledPart(name, part, caller), given[part], min, max, (facts) => invalidOption({ ...facts, option: name })),
        ] as const
      })
      return Object.freeze(Object.fromEntries(checked) as Record<K, number>)
    },
  }
}

/** An object of the API that neither the command line nor HTTP can pass. */
export function instance<T>(
  spec: Text & { readonly type: string; readonly is: (value: unknown) => value is T; readonly expected: string },
): Entry<T, T | undefined> {
  return {
    doc: spec.doc,
    more: spec.more ?? '',
    type: spec.type,
    range: '',
    defaultText: wordsOf(spec, undefined),
    flag: undefined,
    http: undefined,
    check: (value, name) => checkInstance(name, value, spec.is, spec.expected),
  }
}
