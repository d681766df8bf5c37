// Fields that hold an answer to a schema or a grammar, as clients of OpenAI, vLLM and SGLang spell them.
import { badRequest } from './http-error.js'

type Name = 'jsonSchema' | 'regex' | 'grammar' | 'choice'

export interface ConstraintField {
  /** Of the body. */
  readonly field: string
  /** Of the engine's parameter. */
  readonly name: Name
  readonly value: unknown
}

const schema = { type: ['object', 'boolean'] }
const text = { type: 'string' }
const texts = { type: 'array', items: text }

const JSON_SCHEMA = {
  type: 'object',
  properties: { name: text, description: { type: ['string', 'null'] }, strict: { type: ['boolean', 'null'] }, schema },
  required: ['schema'],
  additionalProperties: false,
}

/** Their JSON schemas, beside those of the engine's own parameters. */
export const CONSTRAINT_FIELDS = {
  response_format: {
    type: 'object',
    properties: { type: { enum: ['text', 'json_object', 'json_schema'] }, json_schema: JSON_SCHEMA },
    required: ['type'],
    additionalProperties: false,
  },
  structured_outputs: {
    type: 'object',
    properties: { json: schema, regex: text, grammar: text, choice: texts, json_object: { type: 'boolean' } },
    additionalProperties: false,
  },
  guided_json: schema,
  guided_regex: text,
  guided_grammar: text,
  guided_choice: texts,
}

/** Fields whose value is a JSON schema, where null means null. */
export const SCHEMA_FIELDS: ReadonlySet<string> = new Set(['schema', 'json_schema', 'json', 'guided_json', 'parameters', 'input_schema'])

const ANY_OBJECT = { type: 'object' }
const VLLM: Readonly<Record<string, Name>> = { json: 'jsonSchema', regex: 'regex', grammar: 'grammar', choice: 'choice' }

/** The one that a body has, if it has one. Throws HttpError 400 for two of them. */
export function constraintField(body: Readonly<Record<string, unknown>>): ConstraintField | undefined {
  const found = [...ofResponseFormat(body), ...ofVllm(body), ...ofEngine(body)]
  const [first, second] = found
  if (second) throw badRequest(`${first?.field} and ${second.field} exclude each other.`, second.field, 'invalid_value')
  return first
}

function* ofResponseFormat(body: Readonly<Record<string, unknown>>): Generator<ConstraintField> {
  const format = body.response_format as { type: string; json_schema?: { schema: unknown } } | undefined
  if (format === undefined || format.type === 'text') return
  if (format.type === 'json_schema' && format.json_schema === undefined) throw badRequest('response_format needs json_schema.', 'response_format')
  yield { field: 'response_format', name: 'jsonSchema', value: format.type === 'json_object' ? ANY_OBJECT : format.json_schema?.schema }
}

function* ofVllm(body: Readonly<Record<string, unknown>>): Generator<ConstraintField> {
  const outputs = (body.structured_outputs ?? {}) as Readonly<Record<string, unknown>>
  for (const [key, name] of Object.entries(VLLM)) {
    if (outputs[key] !== undefined) yield { field: 'structured_outputs', name, value: outputs[key] }
    const guided = `guided_${key}`
    if (body[guided] !== undefined) yield { field: guided, name, value: body[guided] }
  }
  if (outputs.json_object === true) yield { field: 'structured_outputs', name: 'jsonSchema', value: ANY_OBJECT }
}

function* ofEngine(body: Readonly<Record<string, unknown>>): Generator<ConstraintField> {
  if (body.json_schema !== undefined) yield { field: 'json_schema', name: 'jsonSchema', value: body.json_schema }
  for (const name of ['regex', 'grammar', 'choice'] as const) if (body[name] !== undefined) yield { field: name, name, value: body[name] }
}
