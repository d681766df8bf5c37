// Filters and tests of Jinja that the library lacks or does differently from Python.
import { capitalize, equal, formatPercent, pythonString, STRING_METHODS, toFixed, type Value } from './python-values.js'

export interface FilterCall {
  readonly operand: Value
  readonly args: readonly Value[]
  readonly named: ReadonlyMap<string, Value>
  make(value: unknown): Value
  filter(value: Value, name: string): Value
  test(name: string, value: Value, other?: Value): boolean
}

const truthy = ({ type, value }: Value) =>
  type === 'ArrayValue' || type === 'TupleValue'
    ? (value as Value[]).length > 0
    : type === 'ObjectValue'
      ? (value as Map<string, Value>).size > 0
      : Boolean(value)

/** Filters that the library lacks or does differently; undefined: as the library does. */
export const FILTERS: Readonly<Record<string, (call: FilterCall) => Value | undefined>> = {
  string: ({ operand, make }) => make(pythonString(operand)),
  capitalize: ({ operand, make }) => make(capitalize(pythonString(operand))),
  title: ({ operand, make }) => make(pythonString(operand).replace(/[^-\s({[<]+/g, capitalize)),
  trim: ({ operand, args, make }) => make((STRING_METHODS.strip as (text: string, set?: unknown) => unknown)(pythonString(operand), args[0]?.value)),
  e: ({ operand, make }) => make(escapeHtml(pythonString(operand))),
  escape: ({ operand, make }) => make(escapeHtml(pythonString(operand))),
  format: ({ operand, args, make }) => make(formatPercent(String(operand.value), args)),
  length: ({ operand, make }) => (typeof operand.value === 'string' ? make([...operand.value].length) : undefined),
  count: ({ operand, filter }) => filter(operand, 'length'),
  list: ({ operand, make }) =>
    typeof operand.value === 'string' ? make([...operand.value]) : operand.value instanceof Map ? make([...operand.value.keys()]) : undefined,
  first: ({ operand, make }) => (typeof operand.value === 'string' ? make([...operand.value][0]) : undefined),
  last: ({ operand, make }) => (typeof operand.value === 'string' ? make([...operand.value].at(-1)) : undefined),
  reverse: ({ operand, make }) => (typeof operand.value === 'string' ? make([...operand.value].reverse().join('')) : undefined),
  wordcount: ({ operand, make }) => make(pythonString(operand).match(/\S+/g)?.length ?? 0),
  round: ({ operand, args, named, make }) => {
    const digits = Number((args[0] ?? named.get('precision'))?.value ?? 0)
    const method = (args[1] ?? named.get('method'))?.value ?? 'common'
    const value = Number(operand.value)
    const scale = 10 ** digits
    const rounded =
      method === 'ceil' ? Math.ceil(value * scale) / scale : method === 'floor' ? Math.floor(value * scale) / scale : Number(toFixed(value, digits))
    return withValue(make(0.5), rounded)
  },
  int: ({ operand, make }) => (operand.type === 'FloatValue' ? make(Math.trunc(operand.value as number)) : undefined),
  sum: ({ operand, make }) => make((operand.value as Value[]).reduce((sum, item) => sum + Number(item.value), 0)),
  min: ({ operand, make }) => extreme(operand, -1) ?? make(undefined),
  max: ({ operand, make }) => extreme(operand, 1) ?? make(undefined),
  d: ({ operand, args, named, make }) =>
    operand.type === 'UndefinedValue' || ((args[1] ?? named.get('boolean'))?.value === true && !truthy(operand)) ? (args[0] ?? make('')) : operand,
  join: ({ operand, args, named, make }) =>
    Array.isArray(operand.value) && !named.has('attribute')
      ? make((operand.value as Value[]).map(pythonString).join(String((args[0] ?? named.get('d') ?? named.get('separator'))?.value ?? '')))
      : undefined,
  map: ({ operand, args, filter, make }) => {
    const name = args[0]?.value
    if (typeof name !== 'string') return undefined
    return withValue(
      make([]),
      (operand.value as Value[]).map((item) => filter(item, name)),
    )
  },
  select: ({ operand, args, test, make }) => selected(operand, args, test, make, true),
  reject: ({ operand, args, test, make }) => selected(operand, args, test, make, false),
}

function selected(operand: Value, args: readonly Value[], test: FilterCall['test'], make: FilterCall['make'], keep: boolean): Value {
  const name = args[0]?.value
  const items = (operand.value as Value[]).filter((item) => (typeof name === 'string' ? test(name, item, args[1]) : truthy(item)) === keep)
  return withValue(make([]), items)
}

function extreme(operand: Value, sign: number): Value | undefined {
  const order = (a: Value, b: Value) => (typeof a.value === 'string' ? compare(a.value, String(b.value)) : Number(a.value) - Number(b.value))
  return (operand.value as Value[]).reduce<Value | undefined>((best, item) => (best && sign * order(item, best) <= 0 ? best : item), undefined)
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&#34;', "'": '&#39;' })[c] as string)
}

export const EXTRA_TESTS: Readonly<Record<string, (operand: Value, other?: Value) => boolean>> = {
  equalto: (a, b) => b !== undefined && equal(a, b),
  eq: (a, b) => b !== undefined && equal(a, b),
  ne: (a, b) => b !== undefined && !equal(a, b),
  in: (a, b) => Array.isArray(b?.value) && b.value.some((item: Value) => equal(a, item)),
  float: ({ type }) => type === 'FloatValue',
}

export function compare(a: string, b: string): number {
  const [x, y] = [[...a], [...b]]
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    const difference = ((x[i] as string).codePointAt(0) ?? 0) - ((y[i] as string).codePointAt(0) ?? 0)
    if (difference !== 0) return difference
  }
  return x.length - y.length
}

/** A value of the same class with other content: arrays of values, and numbers that must stay floats. */
export function withValue(value: Value, content: unknown): Value {
  ;(value as { value: unknown }).value = content
  return value
}
