// Checks of single values from users and files, each throwing the error that `fail` makes. Owns no option.
import { closestMatch } from 'leven'
import { type ErrorFacts, OptionError } from '../errors.js'

export type Fail = (facts: ErrorFacts) => Error

/** The error of a wrong option value. */
export const invalidOption: Fail = (facts) => new OptionError('OPTION_INVALID', facts)

/** A value as it looks in a message: short, on one line. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}...` : value)
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'function') return 'a function'
  // Nested values are not shown: a hostile file nests them a million deep.
  if (Array.isArray(value))
    return value.length > 8
      ? `an array of ${value.length}`
      : `[${value.map((v) => (typeof v === 'object' && v !== null ? '...' : show(v))).join(', ')}]`
  if (typeof value === 'object' && value !== null) return 'an object'
  return String(value)
}

/** An integer in [min, max]. */
export function checkInteger(name: string, value: unknown, min: number, max: number, fail: Fail): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
  throw fail({
    what: `${name} is out of range`,
    expected: max >= Number.MAX_SAFE_INTEGER ? `an integer of ${min} or more` : `an integer from ${min} to ${max}`,
    actual: show(value),
    remedy: `Set ${name} to a value in this range.`,
    option: name,
  })
}

/** A boolean; false if the value is undefined. */
export function checkBoolean(name: string, value: unknown, fail: Fail): boolean {
  if (value === undefined || typeof value === 'boolean') return value ?? false
  throw fail({ what: `${name} must be a boolean`, expected: 'true or false', actual: show(value), remedy: 'Pass true or false.', option: name })
}

export function checkOneOf<T extends string | number>(name: string, value: unknown, allowed: readonly T[], fail: Fail): T {
  const found = allowed.find((a) => a === value)
  if (found !== undefined) return found
  const close = typeof value === 'string' ? similar(value, allowed.map(String)) : undefined
  throw fail({
    what: value === undefined ? `${name} is needed` : `${name} is not supported`,
    expected: `one of ${allowed.join(', ')}`,
    actual: value === undefined ? 'not set' : show(value),
    remedy: close === undefined ? `Choose one of them for ${name}.` : `Did you mean ${close}?`,
    option: name,
  })
}

/** A value of a type that `is` recognises; undefined if the value is undefined. */
export function checkInstance<T>(name: string, value: unknown, is: (v: unknown) => v is T, expected: string): T | undefined {
  if (value === undefined || is(value)) return value
  throw invalidOption({
    what: `${name} has the wrong type`,
    expected,
    actual: show(value),
    remedy: `Pass ${expected}, or omit ${name}.`,
    option: name,
  })
}

export function checkSignal(value: unknown): AbortSignal | undefined {
  return checkInstance('signal', value, (v): v is AbortSignal => v instanceof AbortSignal, 'an AbortSignal')
}

export function isFunction(value: unknown): value is (...args: unknown[]) => unknown {
  return typeof value === 'function'
}

/** Options as a plain object that has known names only. Throws OptionError OPTION_INVALID or OPTION_UNKNOWN. */
export function checkNames(what: string, value: unknown, known: readonly string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalidOption({ what: `${what} must be an object`, expected: 'an object', actual: show(value), remedy: 'Pass the options by name.' })
  }
  for (const name of Object.keys(value)) {
    if (known.includes(name)) continue
    const close = similar(name, known)
    throw new OptionError('OPTION_UNKNOWN', {
      what: `${what} has no option ${show(name)}`,
      expected: `any of ${known.join(', ')}`,
      actual: show(name),
      remedy: close === undefined ? 'Remove it or correct its spelling.' : `Did you mean ${close}?`,
      option: name,
    })
  }
  return value as Record<string, unknown>
}

/** The known name that was probably meant. */
function similar(name: string, known: readonly string[]): string | undefined {
  // Long texts are no misspelling, and the distance takes quadratic time.
  if (name.length > 40) return undefined
  // Swapped letters are two edits.
  const plain = (text: string) => text.toLowerCase().replaceAll(/[_-]/g, '')
  const found = closestMatch(plain(name), known.map(plain), { maxDistance: name.length < 4 ? 1 : Math.max(2, Math.floor(name.length / 3)) })
  return found === undefined ? undefined : known.find((candidate) => plain(candidate) === found)
}
