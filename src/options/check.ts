// Checks of single values from users and files, each throwing the error it is given a maker for. Owns no option.
import { type ErrorFacts, OptionError } from '../errors.js'

export type Fail = (facts: ErrorFacts) => Error

/** A value as it looks in a message: short, on one line. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}...` : value)
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'function') return 'a function'
  // Nested values are left out: a hostile file nests them a million deep.
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
    expected: `an integer from ${min} to ${max}`,
    actual: show(value),
    remedy: `Give ${name} such a value.`,
  })
}

/** A boolean; false if it is not given. */
export function checkBoolean(name: string, value: unknown, fail: Fail): boolean {
  if (value === undefined || typeof value === 'boolean') return value ?? false
  throw fail({ what: `${name} is no boolean`, expected: 'true or false', actual: show(value), remedy: 'Pass true or false.' })
}

export function checkOneOf<T extends string | number>(name: string, value: unknown, allowed: readonly T[], fail: Fail): T {
  const found = allowed.find((a) => a === value)
  if (found !== undefined) return found
  throw fail({
    what: `${name} is not supported`,
    expected: `one of ${allowed.join(', ')}`,
    actual: show(value),
    remedy: `Choose one of them for ${name}.`,
  })
}

/** Options as a plain object with known names only. */
export function checkNames(what: string, value: unknown, known: readonly string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new OptionError('OPTION_INVALID', {
      what: `${what} must be an object`,
      expected: 'an object',
      actual: show(value),
      remedy: 'Pass the options by name.',
    })
  }
  for (const name of Object.keys(value)) {
    if (known.includes(name)) continue
    throw new OptionError('OPTION_UNKNOWN', {
      what: `${what} has no ${show(name)}`,
      expected: `any of ${known.join(', ')}`,
      actual: show(name),
      remedy: 'Remove it or correct its spelling.',
    })
  }
  return value as Record<string, unknown>
}
