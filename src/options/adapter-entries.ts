// Entries about low-rank adapters: which are loaded, and which one a request has.
import { invalidOption, show } from './check.js'
import type { Entry } from './entry.js'

/** Names of adapters: like those of models. */
const NAME = /^(?=.{1,200}$)\w[\w.-]*(\/[\w.-]+)*$/
const NAMES = 'letters, digits, _, . and -, at most 200, parts divided by /'

/** Directories by the names of their adapters. Throws OptionError. */
export function checkAdapters(value: unknown, option: string): Readonly<Record<string, string>> {
  const fail = (what: string, expected: string, actual: string) =>
    invalidOption({ what, expected, actual, remedy: 'Pass a name and the directory of an adapter.', option })
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw fail(`${option} has the wrong type`, 'an object of names and directories', show(value))
  for (const [name, dir] of Object.entries(value as Record<string, unknown>)) {
    if (!NAME.test(name)) throw fail(`a name of ${option} is not valid`, NAMES, show(name))
    if (typeof dir !== 'string' || dir === '') throw fail(`the directory of ${name} has the wrong type`, 'a path', show(dir))
  }
  return Object.freeze({ ...(value as Record<string, string>) })
}

export const ADAPTERS: Entry<Readonly<Record<string, string>>, Readonly<Record<string, string>>> = {
  doc: 'low-rank adapters (LoRA, as PEFT saves them) that are loaded with the model: directories by name',
  more: 'A request has one by the parameter lora. On the command line: --lora name=directory. On the CPU only. See docs/lora.md.',
  type: 'Readonly<Record<string, string>>',
  range: '',
  defaultText: 'none',
  flag: undefined,
  http: undefined,
  check: (value, name) => (value === undefined ? Object.freeze({}) : checkAdapters(value, name)),
}

export const LORA: Entry<string, string | undefined> = {
  doc: 'name of a loaded adapter that the request has',
  more: "Without it the model alone answers. Over HTTP the adapter's name as `model` does the same.",
  type: 'string',
  range: 'a name',
  defaultText: '',
  flag: undefined,
  http: { schema: { type: 'string' }, unset: [''] },
  check: (value, name) => {
    if (value === undefined || (typeof value === 'string' && NAME.test(value))) return value
    throw invalidOption({
      what: `${name} is not valid`,
      expected: `a name: ${NAMES}`,
      actual: show(value),
      remedy: 'Pass the name of a loaded adapter.',
      option: name,
    })
  },
}
