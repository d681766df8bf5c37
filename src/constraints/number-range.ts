// Numbers within bounds as grammars, digit by digit.
import { anyOf, literal, optional, repeat, sequence } from './ebnf.js'
import { Unsupported } from './unsupported.js'

const DIGIT = '[0-9]'
/** Digits of an integer without bounds, and of the fraction and the exponent of a number. */
const INTEGER_DIGITS = 18
const FRACTION_DIGITS = 17
const EXPONENT_DIGITS = 2
/** Bounds of numbers: with 6 more digits every text is a number of its own in float64, so exclusive bounds hold. */
const MAX_NUMBER_BOUND = 1e9
const BOUNDED_FRACTION_DIGITS = 6

export const INTEGER = sequence(optional('"-"'), anyOf(['"0"', `[1-9] ${repeat(DIGIT, 0, INTEGER_DIGITS)}`]))
export const NUMBER = sequence(
  INTEGER,
  optional(`"." ${repeat(DIGIT, 1, FRACTION_DIGITS)}`),
  optional(`[eE] ${optional('[+\\-]')} ${repeat(DIGIT, 1, EXPONENT_DIGITS)}`),
)

export interface Bounds {
  readonly minimum?: number | undefined
  readonly maximum?: number | undefined
  readonly exclusiveMinimum?: number | undefined
  readonly exclusiveMaximum?: number | undefined
}

function lowest({ minimum, exclusiveMinimum }: Bounds, next: (bound: number) => number, round: (bound: number) => number): number | undefined {
  const bounds = [...(minimum === undefined ? [] : [round(minimum)]), ...(exclusiveMinimum === undefined ? [] : [next(exclusiveMinimum)])]
  return bounds.length === 0 ? undefined : Math.max(...bounds)
}

/** Integers within the bounds. Throws Unsupported where there is none. */
export function integerExpression(bounds: Bounds): string {
  const low = lowest(bounds, (b) => Math.floor(b) + 1, Math.ceil)
  const mirrored = { minimum: negative(bounds.maximum), exclusiveMinimum: negative(bounds.exclusiveMaximum) }
  const high = negative(lowest(mirrored, (b) => Math.floor(b) + 1, Math.ceil))
  if (low === undefined && high === undefined) return INTEGER
  for (const [name, bound] of [
    ['minimum', low],
    ['maximum', high],
  ] as const) {
    if (bound !== undefined && !Number.isSafeInteger(bound)) throw new Unsupported(name, 'bounds of integers are safe integers')
  }
  return integersBetween(low, high)
}

/** Numbers within the bounds, without exponents. Throws Unsupported. */
export function numberExpression(bounds: Bounds): string {
  const given = (['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'] as const).flatMap((name) => {
    const bound = bounds[name]
    return bound === undefined ? [] : [[name, bound] as const]
  })
  if (given.length === 0) return NUMBER
  for (const [name, bound] of given) {
    if (Math.abs(bound) > MAX_NUMBER_BOUND) throw new Unsupported(name, `bounds of numbers are at most ${MAX_NUMBER_BOUND} here`)
  }
  // Bounds between integers: in units of as many decimals as the bounds have.
  const decimals = Math.max(...given.map(([, bound]) => decimalsOf(bound)))
  if (decimals > BOUNDED_FRACTION_DIGITS) throw new Unsupported(given[0]?.[0] ?? '', `bounds have at most ${BOUNDED_FRACTION_DIGITS} decimals`)
  if (decimals > 0) return decimalsBetween(bounds, decimals)
  const fraction = `"." ${repeat(DIGIT, 1, BOUNDED_FRACTION_DIGITS)}`
  const low = Math.max(bounds.minimum ?? Number.NEGATIVE_INFINITY, bounds.exclusiveMinimum ?? Number.NEGATIVE_INFINITY)
  const high = Math.min(bounds.maximum ?? Number.POSITIVE_INFINITY, bounds.exclusiveMaximum ?? Number.POSITIVE_INFINITY)
  // k.f lies between k and k + 1. One more digit that is not 0 keeps it off an exclusive bound.
  const inner = `"." ${repeat(DIGIT, 0, BOUNDED_FRACTION_DIGITS - 1)} [1-9]`
  const positive =
    high > 0 && high - Math.max(low, 0) >= 1 ? [natural(Math.max(low, 0), high === Number.POSITIVE_INFINITY ? undefined : high - 1)] : []
  const below = low < 0 && Math.min(high, 0) - low >= 1 ? [natural(Math.max(-high, 0), low === Number.NEGATIVE_INFINITY ? undefined : -low - 1)] : []
  const strict = bounds.exclusiveMinimum !== undefined || bounds.exclusiveMaximum !== undefined
  const parts = [
    ...positive.map((digits) => sequence(digits, strict ? inner : fraction)),
    ...below.map((digits) => sequence('"-"', digits, strict ? inner : fraction)),
  ]
  // Between 0 and 1, both excluded, there is no integer.
  const whole = parts.length > 0 && high - low <= 1 && strict ? [] : [integerExpression(bounds)]
  return anyOf([...whole, ...parts])
}

/** Numbers with exactly that many decimals. */
function decimalsBetween(bounds: Bounds, decimals: number): string {
  const scale = 10 ** decimals
  const scaled = (bound: number | undefined) => (bound === undefined ? undefined : Math.round(bound * scale))
  const low = lowest(
    { minimum: scaled(bounds.minimum), exclusiveMinimum: scaled(bounds.exclusiveMinimum) },
    (b) => b + 1,
    (b) => b,
  )
  const mirrored = { minimum: negative(scaled(bounds.maximum)), exclusiveMinimum: negative(scaled(bounds.exclusiveMaximum)) }
  const high = negative(
    lowest(
      mirrored,
      (b) => b + 1,
      (b) => b,
    ),
  )
  if (low !== undefined && high !== undefined && low > high) throw nothingBetween(low / scale, high / scale)
  const parts: string[] = []
  const add = (sign: string, from: number, to: number | undefined) => {
    const first = Math.floor(from / scale)
    const last = to === undefined ? undefined : Math.floor(to / scale)
    const part = (whole: string, a: number, b: number) => parts.push(sequence(sign, whole, '"."', fixedDigits(a, b, decimals)))
    if (last === first) part(literal(String(first)), from % scale, (to as number) % scale)
    else {
      part(literal(String(first)), from % scale, scale - 1)
      if (last !== undefined) part(literal(String(last)), 0, (to as number) % scale)
      if (last === undefined || last > first + 1) part(natural(first + 1, last === undefined ? undefined : last - 1), 0, scale - 1)
    }
  }
  if (high === undefined || high >= 0) add('""', Math.max(low ?? 0, 0), high)
  if (low === undefined || low < 0) add('"-"', Math.max(-(high ?? 0), 1), low === undefined ? undefined : -low)
  return anyOf(parts)
}

function decimalsOf(value: number): number {
  for (let decimals = 0; decimals <= BOUNDED_FRACTION_DIGITS; decimals++) if (Number(value.toFixed(decimals)) === value) return decimals
  return BOUNDED_FRACTION_DIGITS + 1
}

function negative(value: number | undefined): number | undefined {
  return value === undefined ? undefined : 0 - value
}

function nothingBetween(low: number, high: number): Unsupported {
  return new Unsupported('minimum', `nothing lies between ${low} and ${high}`)
}

/** Integers in [low, high], either of which may be open. */
function integersBetween(low: number | undefined, high: number | undefined): string {
  if (low !== undefined && high !== undefined && low > high) throw nothingBetween(low, high)
  const parts: string[] = []
  if (high === undefined || high >= 0) parts.push(natural(Math.max(low ?? 0, 0), high))
  if (low === undefined || low < 0) parts.push(sequence('"-"', natural(Math.max(-(high ?? 0), 1), low === undefined ? undefined : -low)))
  return anyOf(parts)
}

/** Natural numbers in [low, high], without leading zeros. */
function natural(low: number, high: number | undefined): string {
  const parts: string[] = []
  const lowDigits = String(low).length
  const highDigits = high === undefined ? lowDigits : String(high).length
  for (let digits = lowDigits; digits <= highDigits; digits++) {
    const from = Math.max(low, digits === 1 ? 0 : 10 ** (digits - 1))
    const to = Math.min(high ?? Number.POSITIVE_INFINITY, 10 ** digits - 1)
    parts.push(fixedDigits(from, to, digits))
  }
  if (high === undefined) parts.push(`[1-9] ${repeat(DIGIT, lowDigits, Math.max(lowDigits, INTEGER_DIGITS))}`)
  return anyOf(parts)
}

/** Numbers in [low, high] written with exactly that many digits. */
function fixedDigits(low: number, high: number, digits: number): string {
  return between(String(low).padStart(digits, '0'), String(high).padStart(digits, '0'))
}

function between(low: string, high: string): string {
  if (low === '') return '""'
  const [a = '', b = ''] = [low[0], high[0]]
  const rest = [low.slice(1), high.slice(1)] as const
  if (/^0*$/.test(low) && /^9*$/.test(high)) return repeat(DIGIT, low.length, low.length)
  if (a === b) return sequence(literal(a), between(...rest))
  const count = rest[0].length
  const parts = [sequence(literal(a), between(rest[0], '9'.repeat(count))), sequence(literal(b), between('0'.repeat(count), rest[1]))]
  const [first, last] = [Number(a) + 1, Number(b) - 1]
  if (first <= last) parts.push(sequence(`[${first}-${last}]`, count === 0 ? '""' : repeat(DIGIT, count, count)))
  return anyOf(parts)
}
