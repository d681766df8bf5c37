// What callers may ask an output to match, as grammars. Throws Unsupported, or what says that a value is none.
import { anyOf, literal } from './ebnf.js'
import { schemaGrammar } from './json-schema.js'
import type { GrammarSource } from './matcher-messages.js'
import { PLAIN_CLASS, regexExpression } from './regex.js'
import type { Schema } from './schema-keywords.js'
import type { TagFormat } from './tag-network.js'

/** Free text until a trigger; then one of the tags that begin with it, whose content matches its schema; then free text again. */
export interface StructuralTag {
  /** Texts with which tags begin. None is the beginning of another. */
  readonly triggers: readonly string[]
  readonly tags: readonly { readonly begin: string; readonly schema: boolean | Readonly<Record<string, unknown>>; readonly end: string }[]
  /** The output is at least one tag, and begins with it. Default false. */
  readonly atLeastOne?: boolean
  /** The output ends with the first tag. Default false. */
  readonly stopAfterFirst?: boolean
  /** The output has no free text: this comes between two tags, and nothing else. Default: free text. */
  readonly separator?: string
  /** Instead of all that, the output may be JSON under this schema. Default: it may not. */
  readonly otherwise?: boolean | Readonly<Record<string, unknown>>
}

export function schemaSource(schema: Schema): GrammarSource {
  return { kind: 'grammar', text: schemaGrammar(schema) }
}

export function regexSource(pattern: string): GrammarSource {
  return { kind: 'grammar', text: `root ::= ${regexExpression(pattern, { write: PLAIN_CLASS, search: false })}\n` }
}

export function choiceSource(choices: readonly string[]): GrammarSource {
  return { kind: 'grammar', text: `root ::= ${anyOf(choices.map(literal))}\n` }
}

export function grammarSource(grammar: string): GrammarSource {
  return { kind: 'grammar', text: grammar }
}

export function tagSource({ triggers, tags, atLeastOne = false, stopAfterFirst = false, separator, otherwise }: StructuralTag): GrammarSource {
  const format: TagFormat = {
    triggers,
    tags: tags.map(({ begin, schema, end }) => ({ begin, grammar: schemaGrammar(schema), end })),
    atLeastOne,
    stopAfterFirst,
    separator,
    otherwise: otherwise === undefined ? undefined : schemaGrammar(otherwise),
  }
  return { kind: 'tag', text: JSON.stringify(format) }
}
