// Flags of commands, made from tables of entries (src/options/entry.ts), and their values, checked before anything is loaded.
import { type Command, Option } from 'commander'
import { EMBEDDED_MODEL } from '../assets.js'
import { flagName } from '../options/caller.js'
import { invalidOption } from '../options/check.js'
import { checkOptions, ENGINE_OPTIONS } from '../options/engine-options.js'
import { type Checked, type Entry, type Table, withRange } from '../options/entry.js'
import { checkParams, GENERATE_PARAMS } from '../options/generate-params.js'
import type { EngineOptions, GenerateManyParams } from '../options/public-types.js'
import { checkTable } from '../options/table.js'

/** What commander read: values by their API names. */
export interface Flags {
  readonly json?: boolean
  readonly [name: string]: unknown
}

export interface ModelFlags extends Flags {
  readonly model: string
}

/** A flag for each entry that has one. `defaults`: values that differ from the table's; they are told in the help. */
export function withFlags(command: Command, table: Table, defaults: Readonly<Record<string, unknown>> = {}): Command {
  for (const [name, entry] of Object.entries(table)) {
    if (entry.flag) command.addOption(flagOf(name, entry, defaults[name]))
    if (entry.flag?.negatable) command.addOption(new Option(flagName(name).replace('--', '--no-'), `not ${flagName(name)}`))
  }
  return command
}

function flagOf(name: string, entry: Entry<unknown, unknown>, ownDefault: unknown): Option {
  const { value, repeats, parse } = entry.flag ?? { value: undefined, repeats: false, parse: () => true }
  const words = ownDefault === undefined ? entry.defaultText : String(ownDefault)
  const more = `${repeats ? '; again for another' : ''}${words === '' || words === 'false' ? '' : ` (default: ${words})`}`
  const option = new Option(
    `${flagName(name)}${value === undefined ? '' : ` ${value}`}`,
    `${withRange({ ...entry, doc: inFlags(entry.doc) })}${inFlags(more)}`,
  )
  if (value === undefined) return option
  return option.argParser((text: string, before: unknown) => (repeats ? [...((before as unknown[] | undefined) ?? []), parse(text)] : parse(text)))
}

/** The values that were given for a table's entries. */
export function givenFor(table: Table, flags: Flags): Record<string, unknown> {
  return Object.fromEntries(Object.keys(table).flatMap((name) => (flags[name] === undefined ? [] : [[name, flags[name]]])))
}

/** Values of a command's own flags. Throws OptionError that names the flag. */
export function checkFlags<T extends Table>(table: T, flags: Flags): Checked<T> {
  return checkTable(table, 'the command', givenFor(table, flags), 'cli')
}

/** The engine's options that were given. Throws OptionError that names the flag. */
export function engineOptions(flags: Flags): EngineOptions {
  const { profile: _, ...options } = givenFor(ENGINE_OPTIONS, flags)
  const { lora } = flags as { readonly lora?: readonly string[] }
  const all = { ...options, ...(lora && { adapters: namedAdapters(lora) }) }
  checkOptions(all, 'cli')
  return all
}

/** The parameters that were given. `vocab`: as checkParams has it. Throws OptionError that names the flag. */
export function generateParams(flags: Flags, vocab?: number): GenerateManyParams {
  const { lora: _, ...given } = givenFor(GENERATE_PARAMS, flags)
  const lora = loraOf(flags)
  const params = lora === undefined ? given : { ...given, lora }
  checkParams(params, vocab, 'cli')
  return params
}

/** For commands whose requests have the adapter, or may name it. */
export function withLoraFlag(command: Command, more = ''): Command {
  return command.option('--lora <name=directory>', `low-rank adapter (LoRA), as PEFT saves them${more}`, collect)
}

/** Of --lora name=directory. Throws OptionError. */
function namedAdapters(given: readonly string[]): Record<string, string> {
  const named = given.map((text) => {
    const [, name, dir] = /^([^=]+)=(.+)$/.exec(text) ?? []
    if (name === undefined || dir === undefined) throw wrongLora('--lora has no name', '--lora name=directory', JSON.stringify(text.slice(0, 80)))
    return [name, dir] as const
  })
  const twice = named.find(([name], i) => named.findIndex(([other]) => other === name) < i)
  if (twice) throw wrongLora(`two adapters are called ${twice[0]}`, 'a name for each', twice[1])
  return Object.fromEntries(named)
}

/** Name of the adapter of a command's requests. Throws OptionError. */
export function loraOf(flags: Flags): string | undefined {
  const { lora: given } = flags as { readonly lora?: readonly string[] }
  if (given === undefined) return undefined
  const names = Object.keys(namedAdapters(given))
  if (names.length === 1) return names[0] as string
  throw wrongLora('a request has one adapter', 'one --lora', names.join(', '))
}

function wrongLora(what: string, expected: string, actual: string): Error {
  return invalidOption({ what, expected, actual, remedy: 'Correct --lora name=directory.', option: '--lora' })
}

/** The options that were given. */
export function given<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as { [K in keyof T]?: Exclude<T[K], undefined> }
}

/** A flag that may be given several times. */
export function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value]
}

/** 1,2,3 as numbers. Throws OptionError. */
export function ids(text: string): number[] {
  return text.split(',').map((part) => {
    const id = part.trim() === '' ? Number.NaN : Number(part)
    if (Number.isSafeInteger(id) && id >= 0) return id
    throw invalidOption({
      what: '--prompt-ids has something that is not a token id',
      expected: 'integers with commas: 1,2,3',
      actual: JSON.stringify(part.slice(0, 40)),
      remedy: 'Remove or correct it.',
      option: '--prompt-ids',
    })
  })
}

export function withJsonFlag(command: Command): Command {
  return command.option('--json', 'print one line of JSON on stdout and nothing else there')
}

export function withEngineFlags(command: Command): Command {
  return withJsonFlag(withFlags(command, ENGINE_OPTIONS))
}

export const MODEL_DOC = 'model directory, .gguf file, or hf:owner/name[@revision][/folder] of the Hugging Face Hub (default: the embedded model)'

export function withModelFlag(command: Command): Command {
  return withEngineFlags(command).option('--model <model>', MODEL_DOC, EMBEDDED_MODEL)
}

const NAMES = Object.entries({ ...ENGINE_OPTIONS, ...GENERATE_PARAMS }).flatMap(([name, { flag }]) => (flag ? [name] : []))
const ASSIGNED = new RegExp(`\\b(${NAMES.join('|')}): ('[^']*'|\\d+)`, 'g')
const CAMEL = new RegExp(`(?<![-\\w])(${NAMES.filter((name) => /[A-Z]/.test(name)).join('|')})\\b`, 'g')

/**
 * A message of the engine, which names options as the API does, with flags instead. `option`: the option that the message is about, whose name
 * may also be a plain word.
 */
export function inFlags(text: string, option?: string): string {
  const flags = text
    .replace(ASSIGNED, (_, name: string, value: string) => `${flagName(name)} ${value.replaceAll("'", '')}`)
    .replace(CAMEL, (name) => flagName(name))
    .replace(/\{ (--[^{}]*) \}/g, (_, list: string) => list.replaceAll(', ', ' '))
  return option === undefined || !NAMES.includes(option) ? flags : flags.replace(new RegExp(`(?<![-\\w])${option}\\b`, 'g'), flagName(option))
}
