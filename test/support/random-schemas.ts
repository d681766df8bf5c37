// JSON schemas of every kind that the grammar keeps, at random.
import fc from 'fast-check'

type Bounds = Readonly<Record<string, number>>

const key = fc.string({ minLength: 1, maxLength: 4, unit: fc.constantFrom('a', 'b', '"', '\\', 'é', '_', ' ') })

/** Both, one or none of two bounds, in order. */
function bounded(low: string, high: string, max: number, atLeast = 0): fc.Arbitrary<Bounds> {
  const bound = fc.option(fc.integer({ min: 0, max }), { nil: undefined })
  return fc
    .tuple(bound, fc.integer({ min: atLeast, max }))
    .map(([a, b]) => ({ ...(a !== undefined && { [low]: Math.min(a, b) }), [high]: Math.max(a ?? 0, b) }))
}

const decimal = fc.tuple(fc.integer({ min: -20_000, max: 20_000 }), fc.constantFrom(1, 1, 10, 100)).map(([a, b]) => a / b)
const numeric = fc
  .tuple(
    fc.constantFrom('minimum', 'exclusiveMinimum'),
    fc.constantFrom('maximum', 'exclusiveMaximum'),
    decimal,
    decimal,
    fc.integer({ min: 0, max: 3 }),
  )
  .map(([low, high, a, b, which]): Bounds => ({ ...(which & 1 && { [low]: Math.min(a, b) }), ...(which & 2 && { [high]: Math.max(a, b) + 2 }) }))

const PATTERNS = ['^[a-z]{2,4}$', '^\\d+x', '^(foo|ba[rz])+$', '^["\\\\\\n]{1,3}$', '^.{0,3}x$', '^[^a-z]$', '^\\w+@\\S{1,3}$']
const FORMATS = ['date', 'time', 'date-time', 'uuid', 'email', 'ipv4', 'uri']

export const randomSchema = fc.letrec((tie) => ({
  schema: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.record({ type: fc.constantFrom('null', 'boolean', 'integer', 'number') }),
    fc.tuple(fc.constantFrom('integer', 'number'), numeric).map(([type, bounds]) => ({ type, ...bounds })),
    bounded('minLength', 'maxLength', 8).map((bounds) => ({ type: 'string', ...bounds })),
    fc.constantFrom(...PATTERNS).map((pattern) => ({ type: 'string', pattern })),
    fc.constantFrom(...FORMATS).map((format) => ({ type: 'string', format })),
    fc.array(fc.jsonValue({ maxDepth: 1 }), { minLength: 1, maxLength: 3 }).map((values) => ({ enum: values })),
    fc
      .tuple(
        fc.uniqueArray(key, { maxLength: 4 }),
        fc.array(tie('schema'), { minLength: 4, maxLength: 4 }),
        fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }),
      )
      .map(([keys, schemas, needed]) => ({
        type: 'object',
        properties: Object.fromEntries(keys.map((name, i) => [name, schemas[i]])),
        required: keys.filter((_, i) => needed[i]),
      })),
    fc.tuple(tie('schema'), bounded('minItems', 'maxItems', 3)).map(([items, bounds]) => ({ type: 'array', items, ...bounds })),
    fc
      .tuple(fc.array(tie('schema'), { minLength: 1, maxLength: 3 }), fc.integer({ min: 0, max: 1 }))
      .map(([prefixItems, minItems]) => ({ type: 'array', prefixItems, minItems })),
    fc
      .tuple(tie('schema'), bounded('minProperties', 'maxProperties', 1))
      .map(([additionalProperties, bounds]) => ({ type: 'object', additionalProperties, ...bounds })),
    fc.array(tie('schema'), { minLength: 1, maxLength: 3 }).map((anyOf) => ({ anyOf })),
    fc.uniqueArray(fc.constantFrom('integer', 'null', 'boolean'), { minLength: 1, maxLength: 3 }).map((type) => ({ type })),
  ),
})).schema as fc.Arbitrary<Record<string, unknown>>
