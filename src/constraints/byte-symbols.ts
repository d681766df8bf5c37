// The alphabet of the grammars. XGrammar's classes of characters are right for ASCII only, so bytes from 128 on are written as two symbols, control
// characters that no text has, and UTF-8 is spelled out. A token with such a control character of its own is never allowed.

/** Symbols for the upper and lower four bits of a byte from 0x80 on. */
const HIGH = 0x01
const LOW = 0x0e

/** A byte that is a symbol's own. */
export function isReserved(byte: number): boolean {
  return (byte >= HIGH && byte < HIGH + 8) || (byte >= LOW && byte < LOW + 16)
}

/** Ranges of reserved bytes, for classes. */
export const RESERVED: readonly (readonly [number, number])[] = [
  [HIGH, HIGH + 7],
  [LOW, LOW + 15],
]

/** Bytes as a text of symbols; '' for a token that cannot be written so, which is never allowed then. */
export function symbolsOf(bytes: Uint8Array): string {
  const codes: number[] = []
  for (const byte of bytes) {
    if (isReserved(byte)) return ''
    if (byte < 0x80) codes.push(byte)
    else codes.push(HIGH + ((byte - 0x80) >> 4), LOW + (byte & 15))
  }
  return String.fromCharCode(...codes)
}

const symbol = (code: number) => `\\u${code.toString(16).padStart(4, '0')}`
const symbols = (from: number, to: number) => (from === to ? `[${symbol(from)}]` : `[${symbol(from)}-${symbol(to)}]`)

/** One byte in [from, to], all of them 0x80 or above, as an expression. */
export function byteBetween(from: number, to: number): string {
  const parts: string[] = []
  const add = (high: number, last: number, low: number, lowest: number) =>
    parts.push(`${symbols(HIGH + high, HIGH + last)} ${symbols(LOW + low, LOW + lowest)}`)
  const [a, b] = [(from - 0x80) >> 4, (to - 0x80) >> 4]
  const [x, y] = [from & 15, to & 15]
  if (a === b) add(a, a, x, y)
  else {
    const first = x === 0 ? a : a + 1
    const last = y === 15 ? b : b - 1
    if (x !== 0) add(a, a, x, 15)
    if (first <= last) add(first, last, 0, 15)
    if (y !== 15) add(b, b, 0, y)
  }
  return parts.length === 1 ? (parts[0] as string) : `(${parts.join(' | ')})`
}

/** Code points in [from, to], all of them 0x80 or above and none a surrogate, as expressions of their UTF-8. */
export function* utf8Between(from: number, to: number): Generator<string> {
  for (const [low, high] of [
    [0x80, 0x7ff],
    [0x800, 0xd7ff],
    [0xe000, 0xffff],
    [0x10000, 0x10ffff],
  ] as const) {
    const [a, b] = [Math.max(from, low), Math.min(to, high)]
    if (a <= b) yield* sameLength([...Buffer.from(String.fromCodePoint(a))], [...Buffer.from(String.fromCodePoint(b))])
  }
}

/** Byte sequences of one length from `a` to `b`: a prefix in common, then a first byte that differs. */
function* sameLength(a: readonly number[], b: readonly number[]): Generator<string> {
  const [first = 0, ...restA] = a
  const [last = 0, ...restB] = b
  if (restA.length === 0) {
    yield byteBetween(first, last)
    return
  }
  if (first === last) {
    for (const rest of sameLength(restA, restB)) yield `${byteBetween(first, first)} ${rest}`
    return
  }
  const low = restA.map(() => 0x80)
  const high = restA.map(() => 0xbf)
  const wholeLow = restA.every((byte) => byte === 0x80)
  const wholeHigh = restB.every((byte) => byte === 0xbf)
  if (!wholeLow) for (const rest of sameLength(restA, high)) yield `${byteBetween(first, first)} ${rest}`
  const from = wholeLow ? first : first + 1
  const to = wholeHigh ? last : last - 1
  if (from <= to) yield [byteBetween(from, to), ...low.map(() => byteBetween(0x80, 0xbf))].join(' ')
  if (!wholeHigh) for (const rest of sameLength(low, restB)) yield `${byteBetween(last, last)} ${rest}`
}

/** A text as the grammars write it. */
export function textInSymbols(text: string): string {
  return [...text].map((char) => symbolsOf(Buffer.from(char))).join('')
}
