// Whether no value can be valid under two of several schemas: told by their types, or by a required property with other constants in each.
import { type JsonObject, type Schema, TYPE_KEYWORDS } from './schema-keywords.js'

export function areDisjoint(schemas: readonly Schema[], follow: (schema: Schema) => Schema): boolean {
  const followed = schemas.map(follow)
  return followed.every((a, i) => followed.slice(i + 1).every((b) => apart(a, b, follow)))
}

function apart(a: Schema, b: Schema, follow: (schema: Schema) => Schema): boolean {
  if (typeof a === 'boolean' || typeof b === 'boolean') return a === false || b === false
  const [valuesA, valuesB] = [valuesOf(a), valuesOf(b)]
  if (valuesA && valuesB) return !valuesA.some((value) => valuesB.includes(value))
  const [typesA, typesB] = [kindsOf(a), kindsOf(b)]
  if (!typesA.some((type) => typesB.includes(type))) return true
  if (typesA.join() !== 'object' || typesB.join() !== 'object') return false
  const required = (schema: JsonObject) => (Array.isArray(schema.required) ? (schema.required as unknown[]) : [])
  const shared = required(a).filter((name) => required(b).includes(name)) as string[]
  return shared.some((name) => {
    const [x, y] = [propertyOf(a, name), propertyOf(b, name)].map((schema) => (schema === undefined ? undefined : valuesOf(follow(schema))))
    return x !== undefined && y !== undefined && !x.some((value) => y.includes(value))
  })
}

/** The constants that a schema allows, as texts; undefined: it lists none. */
function valuesOf(schema: Schema): readonly string[] | undefined {
  if (typeof schema === 'boolean') return undefined
  if (schema.const !== undefined) return [JSON.stringify(schema.const)]
  return Array.isArray(schema.enum) && schema.enum.every((value) => typeof value !== 'object')
    ? schema.enum.map((value) => JSON.stringify(value))
    : undefined
}

/** Types, with integers among the numbers. */
function kindsOf({ type }: JsonObject): readonly string[] {
  const types = type === undefined ? Object.keys(TYPE_KEYWORDS) : ([type].flat() as string[])
  return [...new Set(types.map((name) => (name === 'integer' ? 'number' : name)))]
}

function propertyOf(schema: JsonObject, name: string): Schema | undefined {
  const { properties } = schema
  return typeof properties === 'object' && properties !== null && Object.hasOwn(properties, name)
    ? ((properties as JsonObject)[name] as Schema)
    : undefined
}
