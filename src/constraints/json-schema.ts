// JSON Schema (2020-12, a subset) as a grammar. Whatever the grammar allows is valid under the schema; what cannot be kept is refused by its keyword.
// Not everything that is valid can be written: properties come in the schema's order, and none that it does not name.
import { anyOf, literal, MAX_REPEAT, optional, Rules, repeat, sequence } from './ebnf.js'
import { FORMATS } from './formats.js'
import { CHARACTER, COLON, COMMA, inString, quoted, stringOf } from './json-text.js'
import { type Bounds, integerExpression, NUMBER, numberExpression } from './number-range.js'
import { areDisjoint } from './one-of.js'
import { resolveReference } from './references.js'
import { regexExpression } from './regex.js'
import { type JsonObject, keywordsOf, type Schema, typesOf } from './schema-keywords.js'
import { Unsupported } from './unsupported.js'

/** Deeper schemas are refused. */
const MAX_DEPTH = 64

/** The grammar of the JSON texts that a schema allows. Throws Unsupported. */
export function schemaGrammar(schema: Schema): string {
  const rules = new Rules()
  const root = new SchemaGrammar(rules, schema).expression(schema, '#')
  return rules.text(root)
}

class SchemaGrammar {
  readonly #rules: Rules
  readonly #root: Schema
  /** By reference: the name of its rule. */
  readonly #references = new Map<string, string>()
  /** References that have led here without a character in between. */
  #chain: readonly string[] = []
  #depth = 0
  #any: string | undefined

  constructor(rules: Rules, root: Schema) {
    this.#rules = rules
    this.#root = root
  }

  /** `at`: where the schema is, for messages. */
  expression(schema: Schema, at: string): string {
    if (schema === true) return this.#anything()
    if (schema === false) throw new Unsupported('false', `the schema at ${at} allows nothing`)
    if (++this.#depth > MAX_DEPTH) throw new Unsupported('its depth', `more than ${MAX_DEPTH} levels`)
    try {
      return this.#byKeywords(schema, at)
    } finally {
      this.#depth--
    }
  }

  #byKeywords(schema: JsonObject, at: string): string {
    const keywords = keywordsOf(schema, at)
    const alone = (name: string) => {
      const other = keywords.find((keyword) => keyword !== name)
      if (other !== undefined) throw new Unsupported(other, `beside ${name} at ${at}`)
    }
    if (schema.$ref !== undefined) {
      alone('$ref')
      return this.#reference(schema.$ref as string)
    }
    for (const name of ['anyOf', 'oneOf', 'allOf']) {
      const branches = schema[name] as readonly Schema[] | undefined
      if (branches === undefined) continue
      if (keywords.includes('type')) {
        // A type that every branch repeats, as some generators write it.
        if (keywords.some((keyword) => keyword !== name && keyword !== 'type')) alone(name)
        if (!branches.every((branch) => typeof branch === 'object' && branch.type === schema.type)) alone(name)
      } else alone(name)
      return this.#branches(name, branches, at)
    }
    if (schema.enum !== undefined || schema.const !== undefined) return this.#values(schema, keywords, at)
    return anyOf(typesOf(schema, keywords, at).map((type) => this.#ofType(type, schema, at)))
  }

  #branches(name: string, branches: readonly Schema[], at: string): string {
    if (name === 'allOf' && branches.length > 1) throw new Unsupported('allOf', `more than one schema at ${at}`)
    if (name === 'oneOf' && !areDisjoint(branches, (schema) => this.#followed(schema))) {
      throw new Unsupported('oneOf', `its schemas at ${at} may be valid together; use anyOf, or a required property with a const of its own in each`)
    }
    const able = branches.map((branch, i) => [branch, i] as const).filter(([branch]) => branch !== false)
    if (able.length === 0) throw new Unsupported(name, `nothing is allowed at ${at}`)
    return anyOf(able.map(([branch, i]) => this.expression(branch, `${at}/${name}/${i}`)))
  }

  #followed(schema: Schema): Schema {
    let found = schema
    for (let i = 0; i < MAX_DEPTH && typeof found === 'object' && typeof found.$ref === 'string'; i++)
      found = resolveReference(this.#root, found.$ref)
    return found
  }

  #reference(reference: string): string {
    const target = resolveReference(this.#root, reference)
    if (this.#chain.includes(reference)) throw new Unsupported('$ref', `${reference} leads to itself`)
    const known = this.#references.get(reference)
    if (known !== undefined) return known
    const name = this.#rules.reserve()
    this.#references.set(reference, name)
    const chain = this.#chain
    this.#chain = [...chain, reference]
    this.#rules.define(name, this.expression(target, reference))
    this.#chain = chain
    return name
  }

  /** What comes after at least one character. */
  #inner(schema: Schema, at: string): string {
    const chain = this.#chain
    this.#chain = []
    const expression = this.expression(schema, at)
    this.#chain = chain
    return this.#rules.name(expression)
  }

  #values(schema: JsonObject, keywords: readonly string[], at: string): string {
    const other = keywords.find((keyword) => !['enum', 'const', 'type'].includes(keyword))
    if (other !== undefined) throw new Unsupported(other, `beside ${schema.enum === undefined ? 'const' : 'enum'} at ${at}`)
    const texts = (values: readonly unknown[]) => values.map((value) => JSON.stringify(value))
    const listed = schema.enum === undefined ? undefined : texts(schema.enum as readonly unknown[])
    const constant = schema.const === undefined ? undefined : texts([schema.const])
    const both = listed && constant ? listed.filter((text) => constant.includes(text)) : (listed ?? constant ?? [])
    const types = schema.type === undefined ? undefined : [schema.type].flat()
    const kept = both.filter((text) => types === undefined || types.some((type) => isOfType(JSON.parse(text), type as string)))
    if (kept.length === 0) throw new Unsupported(schema.enum === undefined ? 'const' : 'enum', `nothing is allowed at ${at}`)
    return anyOf(kept.map(literal))
  }

  #ofType(type: string, schema: JsonObject, at: string): string {
    switch (type) {
      case 'null':
        return '"null"'
      case 'boolean':
        return '("true" | "false")'
      case 'integer':
        return this.#rules.name(integerExpression(schema as Bounds))
      case 'number':
        return this.#rules.name(numberExpression(schema as Bounds))
      case 'string':
        return this.#rules.name(this.#string(schema, at))
      case 'array':
        return this.#array(schema, at)
      default:
        return this.#object(schema, at)
    }
  }

  #string(schema: JsonObject, at: string): string {
    const { pattern, format, minLength = 0, maxLength } = schema as { pattern?: string; format?: string; minLength?: number; maxLength?: number }
    if (pattern !== undefined || format !== undefined) {
      const name = pattern === undefined ? 'format' : 'pattern'
      if (minLength > 0 || maxLength !== undefined) throw new Unsupported(minLength > 0 ? 'minLength' : 'maxLength', `beside ${name} at ${at}`)
      const source = pattern ?? FORMATS[format as string]
      if (source === undefined)
        throw new Unsupported('format', `${JSON.stringify(format)} at ${at}; those that can be kept are ${Object.keys(FORMATS).join(', ')}`)
      return quoted(pattern === undefined ? regexExpression(source, { write: inString, search: false }) : patternExpression(source, at))
    }
    this.#bounded('minLength', minLength, maxLength, at)
    return stringOf(this.#rules.name(CHARACTER), minLength, maxLength)
  }

  #bounded(name: string, min: number, max: number | undefined, at: string): void {
    if (max !== undefined && max < min) throw new Unsupported(name, `it is above the maximum at ${at}`)
    const large = min > MAX_REPEAT ? name : name.replace('min', 'max')
    if (Math.max(min, max ?? 0) > MAX_REPEAT) throw new Unsupported(large, `more than ${MAX_REPEAT} at ${at}`)
  }

  #array(schema: JsonObject, at: string): string {
    const { items, minItems = 0, maxItems, uniqueItems } = schema as { items?: Schema; minItems?: number; maxItems?: number; uniqueItems?: boolean }
    const prefix = (schema.prefixItems ?? []) as readonly Schema[]
    // Nothing beyond the prefix, unless items says what.
    const open = items === false || (prefix.length > 0 && items === undefined) ? undefined : (items ?? true)
    const most = open === undefined ? Math.min(maxItems ?? prefix.length, prefix.length) : maxItems
    this.#bounded('minItems', minItems, most, at)
    if (uniqueItems && (most ?? 2) > 1) throw new Unsupported('uniqueItems', `more than one item at ${at}`)
    const heads = prefix.slice(0, most).map((item, i) => this.#inner(item, `${at}/prefixItems/${i}`))
    const item = open === undefined || most === 0 ? undefined : this.#inner(open, `${at}/items`)
    const tail = item && `${repeat(`${COMMA} ${item}`, Math.max(0, minItems - heads.length), most === undefined ? undefined : most - heads.length)}`
    let rest = tail ?? '""'
    for (let i = heads.length - 1; i > 0; i--) {
      const here = sequence(COMMA, heads[i] as string, rest)
      rest = this.#rules.name(i < minItems ? here : optional(here))
    }
    if (heads.length > 0) return this.#brackets('[', sequence(heads[0] as string, rest), ']', minItems === 0)
    if (item === undefined) return '"[]"'
    const more = repeat(`${COMMA} ${item}`, Math.max(0, minItems - 1), most === undefined ? undefined : most - 1)
    return this.#brackets('[', sequence(item, more), ']', minItems === 0)
  }

  #object(schema: JsonObject, at: string): string {
    const {
      properties,
      required = [],
      additionalProperties,
      minProperties = 0,
      maxProperties,
    } = schema as {
      properties?: Readonly<Record<string, Schema>>
      required?: readonly string[]
      additionalProperties?: Schema
      minProperties?: number
      maxProperties?: number
    }
    const named = new Map(Object.entries(properties ?? {}))
    for (const name of required) if (!named.has(name)) named.set(name, additionalProperties ?? true)
    if (named.size === 0) return this.#dictionary(additionalProperties ?? true, minProperties, maxProperties, at)
    const able = [...named].filter(([name, value]) => value !== false || required.includes(name))
    if (minProperties > required.length) throw new Unsupported('minProperties', `more than the required properties at ${at}`)
    if (maxProperties !== undefined && maxProperties < able.length) throw new Unsupported('maxProperties', `fewer than the properties at ${at}`)
    const pairs = able.map(([name, value]) => ({
      pair: sequence(literal(JSON.stringify(name)), COLON, this.#inner(value, `${at}/properties/${name}`)),
      needed: required.includes(name),
    }))
    // After a property, and while there is none yet.
    let after = '""'
    let first = '""'
    for (const { pair, needed } of pairs.reverse()) {
      const own = sequence(pair, after)
      const next = sequence(COMMA, own)
      first = this.#rules.name(needed ? own : anyOf([own, first]))
      after = this.#rules.name(needed ? next : anyOf([next, after]))
    }
    return this.#rules.name(sequence('"{"', first, '"}"'))
  }

  #dictionary(value: Schema, min: number, max: number | undefined, at: string): string {
    if (value === false || max === 0) {
      if (min > 0) throw new Unsupported('minProperties', `no property is allowed at ${at}`)
      return '"{}"'
    }
    // A key that comes twice is one property.
    if (min > 1) throw new Unsupported('minProperties', `more than 1 at ${at}, where any key may come`)
    this.#bounded('minProperties', min, max, at)
    const key = this.#rules.name(stringOf(this.#rules.name(CHARACTER), 0, undefined))
    const pair = this.#rules.name(sequence(key, COLON, this.#inner(value, `${at}/additionalProperties`)))
    return this.#brackets('{', sequence(pair, repeat(`${COMMA} ${pair}`, 0, max === undefined ? undefined : max - 1)), '}', min === 0)
  }

  #brackets(open: string, content: string, close: string, mayBeEmpty: boolean): string {
    return this.#rules.name(sequence(literal(open), mayBeEmpty ? optional(content) : content, literal(close)))
  }

  #anything(): string {
    if (this.#any !== undefined) return this.#any
    const any = this.#rules.reserve()
    this.#any = any
    const text = this.#rules.name(stringOf(this.#rules.name(CHARACTER), 0, undefined))
    const list = this.#brackets('[', sequence(any, repeat(`${COMMA} ${any}`, 0, undefined)), ']', true)
    const pair = this.#rules.name(sequence(text, COLON, any))
    const object = this.#brackets('{', sequence(pair, repeat(`${COMMA} ${pair}`, 0, undefined)), '}', true)
    this.#rules.define(any, anyOf([object, list, text, this.#rules.name(NUMBER), '"true"', '"false"', '"null"']))
    return any
  }
}

function patternExpression(pattern: string, at: string): string {
  try {
    return regexExpression(pattern, { write: inString, search: true })
  } catch (error) {
    throw new Unsupported('pattern', `${(error as Error).message} (at ${at})`)
  }
}

function isOfType(value: unknown, type: string): boolean {
  if (value === null || Array.isArray(value)) return type === (value === null ? 'null' : 'array')
  return type === 'integer' ? Number.isInteger(value) : String(typeof value) === type
}
