// The metadata of a GGUF file, each value checked as it is asked for.
import { CheckpointError } from '../../errors.js'
import { show } from '../../options/check.js'

export class GgufMetadata {
  /** Without a prototype. */
  readonly #values: Readonly<Record<string, unknown>>
  readonly #path: string

  constructor(values: Readonly<Record<string, unknown>>, path: string) {
    this.#values = values
    this.#path = path
  }

  get path(): string {
    return this.#path
  }

  keys(): string[] {
    return Object.keys(this.#values)
  }

  /** Unchecked; undefined: there is none. */
  get(key: string): unknown {
    return this.#values[key]
  }

  string(key: string): string | undefined {
    const value = this.get(key)
    if (value === undefined || typeof value === 'string') return value
    throw this.wrong(key, 'a text', value)
  }

  boolean(key: string): boolean | undefined {
    const value = this.get(key)
    if (value === undefined || typeof value === 'boolean') return value
    throw this.wrong(key, 'true or false', value)
  }

  optionalInteger(key: string, min: number, max: number): number | undefined {
    const value = this.get(key)
    if (value === undefined) return undefined
    // A value for each layer, all alike.
    const [one, ...others] = Array.isArray(value) ? (value as unknown[]) : [value]
    if (typeof one === 'number' && Number.isInteger(one) && one >= min && one <= max && others.every((other) => other === one)) return one
    throw this.wrong(key, `a whole number from ${min} to ${max}, the same in all layers`, value)
  }

  integer(key: string, min: number, max: number): number {
    const value = this.optionalInteger(key, min, max)
    if (value === undefined) throw this.wrong(key, `a whole number from ${min} to ${max}`, undefined)
    return value
  }

  /** The shortest decimal number that is this float32: 1e-5, not 9.999999747378752e-6. */
  number(key: string): number | undefined {
    const value = this.get(key)
    if (value === undefined) return undefined
    if (typeof value !== 'number' || !Number.isFinite(value)) throw this.wrong(key, 'a finite number', value)
    for (let digits = 1; digits < 10; digits++) {
      const short = Number(value.toPrecision(digits))
      if (Math.fround(short) === value) return short
    }
    return value
  }

  strings(key: string): readonly string[] | undefined {
    return this.#array(key, (item) => typeof item === 'string', 'a list of texts') as readonly string[] | undefined
  }

  numbers(key: string): readonly number[] | undefined {
    return this.#array(key, (item) => typeof item === 'number' && Number.isFinite(item), 'a list of finite numbers') as readonly number[] | undefined
  }

  #array(key: string, is: (item: unknown) => boolean, expected: string): readonly unknown[] | undefined {
    const value = this.get(key)
    if (value === undefined || (Array.isArray(value) && value.every(is))) return value as unknown[] | undefined
    throw this.wrong(key, expected, value)
  }

  wrong(key: string, expected: string, actual: unknown, remedy = 'Use a file that llama.cpp wrote for this model.'): CheckpointError {
    return new CheckpointError('CONFIG_INVALID', {
      what: `${this.#path}: ${key} ${actual === undefined ? 'is missing' : 'cannot be used'}`,
      expected,
      actual: actual === undefined ? 'none' : show(actual),
      remedy,
    })
  }
}
