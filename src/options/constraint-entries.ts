// Entries of parameters that hold an output to a grammar. The check makes the grammar, so what cannot be done is refused before anything runs.
import type { GrammarSource } from '../constraints/matcher-messages.js'
import { choiceSource, grammarSource, regexSource, type StructuralTag, schemaSource, tagSource } from '../constraints/sources.js'
import { Unsupported } from '../constraints/unsupported.js'
import { invalidOption, show } from './check.js'
import type { Entry, HttpShape } from './entry.js'

/** Of a value, as JSON. */
const MAX_CHARACTERS = 65_536

interface Spec<In> {
  readonly doc: string
  readonly more?: string
  readonly type: string
  readonly range: string
  readonly http?: object
  readonly flag?: { readonly value: string; readonly repeats?: boolean; parse(text: string): unknown }
  readonly is: (value: unknown) => boolean
  readonly source: (value: In) => GrammarSource
}

/** Checked, it is a grammar. */
function constraint<In>({ doc, more = '', type, range, http, flag, is, source }: Spec<In>): Entry<In, GrammarSource | undefined> {
  const shape: HttpShape | undefined = http && { schema: http, unset: [] }
  return {
    doc,
    more,
    type,
    range,
    defaultText: '',
    flag: flag && { repeats: false, ...flag },
    http: shape,
    check: (value, name) => {
      if (value === undefined) return undefined
      const fail = (what: string, actual: string) =>
        invalidOption({ what, expected: range, actual, remedy: 'docs/structured-output.md has what is supported.', option: name })
      if (!is(value)) throw fail(`${name} has the wrong type`, show(value))
      if (sizeOf(value) > MAX_CHARACTERS) throw fail(`${name} is too large`, `more than ${MAX_CHARACTERS} characters, or too deep`)
      try {
        return source(value as In)
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error)
        throw fail(`${name} cannot be kept`, error instanceof Unsupported || error instanceof SyntaxError ? why : `too much of it (${why})`)
      }
    },
  }
}

/** Infinity for what is no JSON. */
function sizeOf(value: unknown): number {
  try {
    return JSON.stringify(value).length
  } catch {
    return Number.POSITIVE_INFINITY
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)
const isSchema = (value: unknown) => typeof value === 'boolean' || isRecord(value)
const isText = (value: unknown): value is string => typeof value === 'string' && value !== ''
const isTexts = (value: unknown): value is readonly string[] => Array.isArray(value) && value.length > 0 && value.every(isText)
const parseJson = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

const TEXT = { type: 'string' }

export const CONSTRAINTS = {
  jsonSchema: constraint<boolean | Readonly<Record<string, unknown>>>({
    doc: 'the output is JSON that is valid under this schema',
    more: 'Keywords that cannot be kept are refused by name. At most one of jsonSchema, regex, grammar, choice and structuralTag.',
    type: 'boolean | Readonly<Record<string, unknown>>',
    range: 'a JSON Schema of at most 65536 characters',
    http: { type: ['object', 'boolean'] },
    flag: { value: '<json>', parse: parseJson },
    is: isSchema,
    source: schemaSource,
  }),
  regex: constraint<string>({
    doc: 'the whole output matches this regular expression',
    more: 'Without lookaround and backreferences.',
    type: 'string',
    range: 'a regular expression',
    http: TEXT,
    flag: { value: '<pattern>', parse: (text) => text },
    is: isText,
    source: regexSource,
  }),
  grammar: constraint<string>({
    doc: 'the output matches this grammar',
    more: 'EBNF as in llama.cpp and XGrammar; it begins with the rule root.',
    type: 'string',
    range: 'a grammar in EBNF',
    http: TEXT,
    flag: { value: '<ebnf>', parse: (text) => text },
    is: isText,
    source: grammarSource,
  }),
  choice: constraint<readonly string[]>({
    doc: 'the output is one of these texts',
    type: 'readonly string[]',
    range: 'an array of texts',
    http: { type: 'array', items: TEXT },
    flag: { value: '<text>', repeats: true, parse: (text) => text },
    is: isTexts,
    source: choiceSource,
  }),
  structuralTag: constraint<StructuralTag>({
    doc: 'free text until a trigger, then one of the tags that begin with it, whose content is JSON under a schema, then free text again',
    type: 'StructuralTag',
    range: '{ triggers, tags: [{ begin, schema, end }], atLeastOne, stopAfterFirst, separator, otherwise }',
    flag: { value: '<json>', parse: parseJson },
    is: isStructuralTag,
    source: tagSource,
  }),
} as const

function isStructuralTag(value: unknown): boolean {
  if (!isRecord(value)) return false
  const { triggers, tags, atLeastOne, stopAfterFirst, separator, otherwise, ...rest } = value
  const isSwitch = (given: unknown) => given === undefined || typeof given === 'boolean'
  if (separator !== undefined && !isText(separator)) return false
  if (otherwise !== undefined && !isSchema(otherwise)) return false
  if (Object.keys(rest).length > 0 || !isSwitch(atLeastOne) || !isSwitch(stopAfterFirst) || !isTexts(triggers) || !Array.isArray(tags)) return false
  if (triggers.some((a, i) => triggers.some((b, j) => i !== j && b.startsWith(a)))) return false
  return (
    tags.length > 0 &&
    tags.every(
      (tag) =>
        isRecord(tag) && isText(tag.begin) && isText(tag.end) && isSchema(tag.schema) && triggers.some((t) => (tag.begin as string).startsWith(t)),
    )
  )
}
