// What the model writes under a schema is valid under it: random schemas, judged by ajv.
import Ajv2020 from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import test from 'ava'
import fc from 'fast-check'
import { schemaGrammar } from '../../src/constraints/json-schema.js'
import { Engine } from '../../src/index.js'
import { TINY } from '../support/fixtures.js'
import { randomSchema } from '../support/random-schemas.js'
import { inFull } from '../support/tier.js'

const SCHEMAS = Number(process.env.SCHEMA_RUNS ?? (inFull ? 200 : 16))

test('what is written under a random schema is valid JSON under it, or was cut by maxTokens', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1, maxRunning: 8, cacheTokens: 8192 })
  t.teardown(() => engine.close())
  const ajv = new Ajv2020.default({ strict: false })
  addFormats.default(ajv)
  let complete = 0
  const schemas = fc.sample(randomSchema, { numRuns: SCHEMAS, seed: 11 })
  await Promise.all(
    schemas.map(async (jsonSchema, seed) => {
      const { text, finishReason } = await engine.generate('Once upon a time', { jsonSchema, maxTokens: 60, temperature: 1, seed })
      if (finishReason === 'length') return
      t.is(finishReason, 'stop')
      complete++
      const valid = ajv.compile(jsonSchema)
      t.true(valid(JSON.parse(text)), `${JSON.stringify(jsonSchema)} ${text} ${JSON.stringify(valid.errors)}`)
    }),
  )
  t.true(complete > SCHEMAS / 2, `${complete} of ${SCHEMAS} were complete`)
})

const REFUSED: readonly (readonly [object, string])[] = [
  [{ not: { type: 'string' } }, 'not'],
  [{ type: 'object', patternProperties: { a: {} } }, 'patternProperties'],
  [{ type: 'integer', multipleOf: 3 }, 'multipleOf'],
  [{ type: 'array', uniqueItems: true }, 'uniqueItems'],
  [{ type: 'string', pattern: '(?=a)b' }, 'pattern'],
  [{ type: 'string', pattern: '(a)\\1' }, 'pattern'],
  [{ type: 'string', format: 'hostname' }, 'format'],
  [{ oneOf: [{ type: 'integer' }, { type: 'number' }] }, 'oneOf'],
  [{ allOf: [{ type: 'object' }, { type: 'object' }] }, 'allOf'],
  [{ $ref: 'https://example.org/schema' }, '$ref'],
  [{ $ref: '#' }, '$ref'],
  [{ if: { type: 'string' } }, 'if'],
  [{ type: 'string', minimum: 3 }, 'minimum'],
  [{ type: 'integer', minimum: 3, maximum: 2 }, 'minimum'],
  [{ type: 'string', maxLength: 100_000 }, 'maxLength'],
  [{ properties: { a: { items: { contains: {} } } } }, 'contains'],
]

test('a schema that cannot be kept is refused with its keyword, and where it is', (t) => {
  for (const [schema, keyword] of REFUSED) {
    t.throws(
      () => schemaGrammar(schema as Record<string, unknown>),
      { message: new RegExp(`^${keyword.replace('$', '\\$')}: `) },
      JSON.stringify(schema),
    )
  }
  t.throws(() => schemaGrammar({ properties: { a: { items: { contains: {} } } } }), { message: /#\/properties\/a\/items/ })
})

test('schemas that only describe, refer to themselves, or have branches that are apart, are kept', (t) => {
  const node = { type: 'object', properties: { next: { anyOf: [{ $ref: '#/$defs/node' }, { type: 'null' }] } }, required: ['next'] }
  const kept = [
    true,
    {},
    { $schema: 'https://json-schema.org/draft/2020-12/schema', title: 'A', description: 'b', 'x-order': 1, type: 'string' },
    { $defs: { node }, $ref: '#/$defs/node' },
    { oneOf: [{ type: 'string' }, { type: 'null' }] },
    { oneOf: ['a', 'b'].map((kind) => ({ type: 'object', properties: { kind: { const: kind } }, required: ['kind'] })) },
    { type: 'object', anyOf: [{ type: 'object', properties: { a: {} } }] },
  ]
  for (const schema of kept) t.notThrows(() => schemaGrammar(schema as Record<string, unknown>), JSON.stringify(schema))
})
