// The keywords of JSON Schema that the grammar keeps, with the shapes of their values. Any other is refused by name, except those that only describe.
import { Unsupported } from './unsupported.js'

export type JsonObject = Readonly<Record<string, unknown>>
export type Schema = boolean | JsonObject

const isCount = (value: unknown) => Number.isInteger(value) && (value as number) >= 0
const isNumber = (value: unknown) => typeof value === 'number' && Number.isFinite(value)
const isText = (value: unknown) => typeof value === 'string'
const isTexts = (value: unknown) => Array.isArray(value) && value.every(isText)
const isList = (value: unknown) => Array.isArray(value)
const isObject = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value)
const isSchema = (value: unknown) => typeof value === 'boolean' || isObject(value)
const isSchemas = (value: unknown) => Array.isArray(value) && value.length > 0 && value.every(isSchema)
const isSchemasByName = (value: unknown) => isObject(value) && Object.values(value as JsonObject).every(isSchema)

/** Keywords of each type. */
export const TYPE_KEYWORDS: Readonly<Record<string, readonly string[]>> = {
  object: ['properties', 'required', 'additionalProperties', 'minProperties', 'maxProperties'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems', 'uniqueItems'],
  string: ['minLength', 'maxLength', 'pattern', 'format'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
  integer: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
  boolean: [],
  null: [],
}

const TYPES = Object.keys(TYPE_KEYWORDS)
const isType = (value: unknown) => [value].flat().length > 0 && [value].flat().every((type) => TYPES.includes(type as string))

const KEPT: Readonly<Record<string, (value: unknown) => boolean>> = {
  type: isType,
  enum: isList,
  const: (value) => value !== undefined,
  properties: isSchemasByName,
  required: isTexts,
  additionalProperties: isSchema,
  minProperties: isCount,
  maxProperties: isCount,
  items: isSchema,
  prefixItems: isSchemas,
  minItems: isCount,
  maxItems: isCount,
  uniqueItems: (value) => typeof value === 'boolean',
  minLength: isCount,
  maxLength: isCount,
  pattern: isText,
  format: isText,
  minimum: isNumber,
  maximum: isNumber,
  exclusiveMinimum: isNumber,
  exclusiveMaximum: isNumber,
  anyOf: isSchemas,
  oneOf: isSchemas,
  allOf: isSchemas,
  $ref: isText,
}

/** Keywords that only describe, and containers of schemas that are referred to. */
const DESCRIBING = [
  ...['title', 'description', 'default', 'examples', 'deprecated', 'readOnly', 'writeOnly'],
  ...['$schema', '$id', '$comment', '$defs', 'definitions'],
]

/** The keywords of a schema that ask for something. Throws Unsupported for one that is not kept, or whose value is none of its kind. */
export function keywordsOf(schema: JsonObject, at: string): readonly string[] {
  const asking = Object.keys(schema).filter((name) => !DESCRIBING.includes(name) && !name.startsWith('x-'))
  for (const name of asking) {
    if (!Object.hasOwn(KEPT, name)) throw new Unsupported(name, `this keyword is not supported (at ${at})`)
    if (!KEPT[name]?.(schema[name])) throw new Unsupported(name, `its value at ${at} is not one of this keyword`)
  }
  return asking
}

/**
 * The types that a schema allows: its own, else those that its keywords are about, else all. Throws Unsupported for a keyword of another type:
 * it would ask for nothing, which is hardly meant.
 */
export function typesOf(schema: JsonObject, keywords: readonly string[], at: string): readonly string[] {
  const given = schema.type === undefined ? undefined : ([schema.type].flat() as string[])
  const about = keywords.filter((name) => name !== 'type')
  const types =
    given ??
    (about.length === 0
      ? TYPES.filter((type) => type !== 'integer')
      : TYPES.filter((type) => about.some((name) => TYPE_KEYWORDS[type]?.includes(name))))
  const stray = about.find((name) => !types.some((type) => TYPE_KEYWORDS[type]?.includes(name)))
  if (stray !== undefined) throw new Unsupported(stray, `it says nothing about ${types.join(', ')} at ${at}`)
  // An integer is a number as well.
  return types.includes('number') ? types.filter((type) => type !== 'integer') : types
}
