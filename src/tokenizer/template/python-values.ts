// Python's ways with values: how they print, compare, and what the methods of its strings do. For templates that were written for Python.

/** A value of @huggingface/jinja. */
export interface Value {
  readonly type: string
  readonly value: unknown
}

/** As Python's str() prints it. An undefined value prints nothing, as in Jinja. */
export function pythonString(value: Value): string {
  if (value.type === 'StringValue') return value.value as string
  return value.type === 'UndefinedValue' ? '' : repr(value)
}

export function repr({ type, value }: Value): string {
  switch (type) {
    case 'StringValue':
      return quoted(value as string)
    case 'BooleanValue':
      return value ? 'True' : 'False'
    case 'NullValue':
      return 'None'
    case 'UndefinedValue':
      return 'Undefined'
    case 'FloatValue':
      return floatText(value as number)
    case 'ArrayValue':
      return `[${(value as Value[]).map(repr).join(', ')}]`
    case 'TupleValue': {
      const items = (value as Value[]).map(repr)
      return items.length === 1 ? `(${items[0]},)` : `(${items.join(', ')})`
    }
    case 'ObjectValue':
      return `{${[...(value as Map<string, Value>)].map(([key, item]) => `${quoted(key)}: ${repr(item)}`).join(', ')}}`
    default:
      return String(value)
  }
}

function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'"
  const escaped = text.replace(/[\\\n\r\t]/g, (c) => ({ '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' })[c] as string)
  return quote + (quote === "'" ? escaped.replaceAll("'", "\\'") : escaped) + quote
}

function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan'
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf'
  if (Object.is(value, -0)) return '-0.0'
  const size = Math.abs(value)
  if (size !== 0 && (size >= 1e16 || size < 1e-4)) {
    const [digits, exponent] = value.toExponential().split('e') as [string, string]
    return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, '0')}`
  }
  return Number.isInteger(value) ? `${value}.0` : String(value)
}

const isNumber = ({ type }: Value) => type === 'IntegerValue' || type === 'FloatValue' || type === 'BooleanValue'

/** Python's ==. */
export function equal(a: Value, b: Value): boolean {
  if (isNumber(a) && isNumber(b)) return Number(a.value) === Number(b.value)
  if (a.type !== b.type) return false
  if (a.type === 'ArrayValue' || a.type === 'TupleValue') {
    const [x, y] = [a.value as Value[], b.value as Value[]]
    return x.length === y.length && x.every((item, i) => equal(item, y[i] as Value))
  }
  if (a.type === 'ObjectValue') {
    const [x, y] = [a.value as Map<string, Value>, b.value as Map<string, Value>]
    return x.size === y.size && [...x].every(([key, item]) => y.has(key) && equal(item, y.get(key) as Value))
  }
  return a.type === 'NullValue' || a.type === 'UndefinedValue' || a.value === b.value
}

/** Python's float formatting and its % operator on strings, as far as templates use them: %s %r %d %i %x %f %e %g with width and precision. */
export function formatPercent(format: string, values: readonly Value[]): string {
  let next = 0
  return format.replace(/%([-0+ ]*)(\d+)?(?:\.(\d+))?([sdirxXfFeg%])/g, (whole, flags: string, width?: string, precision?: string, kind?: string) => {
    if (kind === '%') return '%'
    const value = values[next++]
    if (value === undefined) throw new Error(`not enough values for ${JSON.stringify(whole)}`)
    let text = kind === 's' ? pythonString(value) : kind === 'r' ? repr(value) : number(kind as string, Number(value.value), precision, flags)
    if ((kind === 's' || kind === 'r') && precision !== undefined) text = text.slice(0, Number(precision))
    const size = Number(width ?? 0)
    if (flags.includes('-')) return text.padEnd(size)
    return flags.includes('0') && kind !== 's'
      ? text.startsWith('-')
        ? `-${text.slice(1).padStart(size - 1, '0')}`
        : text.padStart(size, '0')
      : text.padStart(size)
  })
}

function number(kind: string, value: number, precision: string | undefined, flags: string): string {
  if (Number.isNaN(value)) throw new Error(`%${kind} needs a number`)
  const digits = Number(precision ?? 6)
  const sign = flags.includes('+') && value >= 0 ? '+' : ''
  if (kind === 'd' || kind === 'i') return sign + String(Math.trunc(value))
  if (kind === 'x' || kind === 'X') return kind === 'x' ? Math.trunc(value).toString(16) : Math.trunc(value).toString(16).toUpperCase()
  if (kind === 'e') return sign + value.toExponential(digits).replace(/e([+-])(\d)$/, 'e$10$2')
  return sign + (kind === 'g' ? String(Number(value.toPrecision(Math.max(1, digits)))) : toFixed(value, digits))
}

/** Python rounds the exact binary value, half to even; JavaScript's toFixed rounds the same value half up. */
export function toFixed(value: number, digits: number): string {
  const up = value.toFixed(digits)
  const scaled = Math.abs(value) * 10 ** digits
  if (scaled % 1 !== 0.5 || scaled >= 2 ** 52 || (Math.abs(value) * 2 ** 40) % 1 !== 0) return up
  const even = Math.round(scaled / 2) * 2
  return `${value < 0 ? '-' : ''}${(even / 10 ** digits).toFixed(digits)}`
}

const SPACE = '\\s\\x1c-\\x1f\\x85'

function stripper(left: boolean, right: boolean) {
  return (text: string, characters?: unknown): string => {
    const set = typeof characters === 'string' ? new Set(characters) : undefined
    const drop = (c: string) => (set ? set.has(c) : new RegExp(`^[${SPACE}]$`).test(c) && c !== '\ufeff')
    const all = [...text]
    let [from, to] = [0, all.length]
    if (left) while (from < to && drop(all[from] as string)) from++
    if (right) while (to > from && drop(all[to - 1] as string)) to--
    return all.slice(from, to).join('')
  }
}

/** At most `limit` splits, counted from the end. */
function rsplit(text: string, separator?: unknown, limit: unknown = -1): string[] {
  const most = typeof limit === 'number' && limit >= 0 ? limit : Number.POSITIVE_INFINITY
  const parts: string[] = []
  let rest = text
  if (typeof separator !== 'string') {
    rest = strip(rest)
    for (let match = /^([\s\S]*\S)\s+(\S+)$/.exec(rest); match && parts.length < most; match = /^([\s\S]*\S)\s+(\S+)$/.exec(rest)) {
      parts.unshift(match[2] as string)
      rest = match[1] as string
    }
    return rest === '' ? parts : [rest, ...parts]
  }
  if (separator === '') throw new Error('empty separator')
  for (let at = rest.lastIndexOf(separator); at >= 0 && parts.length < most; at = rest.lastIndexOf(separator)) {
    parts.unshift(rest.slice(at + separator.length))
    rest = rest.slice(0, at)
  }
  return [rest, ...parts]
}

const strip = stripper(true, true)
const count = (text: string, part: unknown) => (part === '' ? [...text].length + 1 : text.split(String(part)).length - 1)
const codePoints = (text: string, index: number) => (index < 0 ? -1 : [...text.slice(0, index)].length)

export function capitalize(text: string): string {
  const [first = '', ...rest] = text
  return first.toUpperCase() + rest.join('').toLowerCase()
}

/** Methods of Python's str that @huggingface/jinja lacks or does differently. Arguments are plain values. */
export const STRING_METHODS: Readonly<Record<string, (text: string, ...args: unknown[]) => unknown>> = {
  strip,
  lstrip: stripper(true, false),
  rstrip: stripper(false, true),
  rsplit,
  capitalize,
  title: (text) => text.replace(/\p{L}+/gu, capitalize),
  count,
  find: (text, part) => codePoints(text, text.indexOf(String(part))),
  rfind: (text, part) => codePoints(text, text.lastIndexOf(String(part))),
  splitlines: (text) => (text === '' ? [] : text.replace(/(?:\r\n|[\n\r])$/, '').split(/\r\n|[\n\r]/)),
  partition: (text, part) => split2(text, text.indexOf(String(part)), String(part), [text, '', '']),
  rpartition: (text, part) => split2(text, text.lastIndexOf(String(part)), String(part), ['', '', text]),
  removeprefix: (text, part) => (text.startsWith(String(part)) ? text.slice(String(part).length) : text),
  removesuffix: (text, part) => (part !== '' && text.endsWith(String(part)) ? text.slice(0, -String(part).length) : text),
  casefold: (text) => text.toLowerCase(),
  swapcase: (text) => [...text].map((c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase())).join(''),
  isdigit: (text) => /^\p{Nd}+$/u.test(text),
  isnumeric: (text) => /^\p{N}+$/u.test(text),
  isalpha: (text) => /^\p{L}+$/u.test(text),
  isalnum: (text) => /^[\p{L}\p{N}]+$/u.test(text),
  isspace: (text) => /^\s+$/.test(text),
  isupper: (text) => text !== text.toLowerCase() && text === text.toUpperCase(),
  islower: (text) => text !== text.toUpperCase() && text === text.toLowerCase(),
  zfill: (text, width) => (/^[+-]/.test(text) ? text[0] + text.slice(1).padStart(Number(width) - 1, '0') : text.padStart(Number(width), '0')),
  ljust: (text, width, fill = ' ') => text.padEnd(Number(width), String(fill)),
  rjust: (text, width, fill = ' ') => text.padStart(Number(width), String(fill)),
}

function split2(text: string, at: number, part: string, without: string[]): string[] {
  return at < 0 ? without : [text.slice(0, at), part, text.slice(at + part.length)]
}
