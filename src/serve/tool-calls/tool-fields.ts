// The fields of a chat that offer functions to the model, and the constraint that holds its calls to them.
import type { StructuralTag } from '../../constraints/sources.js'
import { OptionError } from '../../errors.js'
import { CONSTRAINTS } from '../../options/constraint-entries.js'
import { badRequest } from '../http-error.js'
import { constraintField } from '../output-constraint.js'
import type { CallForm } from './call-form.js'

export interface ChatTool {
  readonly type: 'function'
  readonly function: {
    readonly name: string
    readonly description?: string
    /** JSON Schema of the arguments. Default: there are none. */
    readonly parameters?: Readonly<Record<string, unknown>>
    /** Taken: calls are held to their schema either way. */
    readonly strict?: boolean
  }
}

export interface ToolFields {
  readonly tools?: readonly ChatTool[]
  readonly tool_choice?: 'auto' | 'none' | 'required' | { readonly type: 'function'; readonly function: { readonly name: string } }
  readonly parallel_tool_calls?: boolean
}

type Schema = boolean | Readonly<Record<string, unknown>>

const NAME = { type: 'string', pattern: '^[a-zA-Z0-9_.-]{1,64}$' }

/** Their JSON schemas. */
export const TOOL_FIELDS = {
  tools: {
    type: 'array',
    maxItems: 128,
    items: {
      type: 'object',
      properties: {
        type: { const: 'function' },
        function: {
          type: 'object',
          properties: { name: NAME, description: { type: 'string' }, parameters: { type: 'object' }, strict: { type: 'boolean' } },
          required: ['name'],
          additionalProperties: false,
        },
      },
      required: ['type', 'function'],
      additionalProperties: false,
    },
  },
  tool_choice: {
    anyOf: [
      { enum: ['auto', 'none', 'required'] },
      {
        type: 'object',
        properties: {
          type: { const: 'function' },
          function: { type: 'object', properties: { name: { type: 'string' } }, required: ['name'], additionalProperties: false },
        },
        required: ['type', 'function'],
        additionalProperties: false,
      },
    ],
  },
  parallel_tool_calls: { type: 'boolean' },
}

/** Functions that the model may call, and how its text is held to their calls. */
export interface OfferedTools {
  readonly names: readonly string[]
  readonly tag: StructuralTag
}

/** The functions that the model is shown: with tool_choice none it may call none, and sees none. */
export function shownTools({ tools = [], tool_choice: choice }: ToolFields): readonly ChatTool[] {
  return choice === 'none' ? [] : tools
}

/** Of all functions, JSON. */
const MAX_CHARACTERS = 65_536

/** undefined: there are none to call. Throws HttpError 400. */
export function offeredTools(body: ToolFields, form: CallForm): OfferedTools | undefined {
  const { tool_choice: choice = 'auto', parallel_tool_calls: parallel = true } = body
  const tools = shownTools(body)
  if (tools.length === 0) {
    if (choice !== 'auto' && choice !== 'none') throw badRequest('tool_choice needs tools.', 'tool_choice', 'invalid_value')
    return undefined
  }
  const other = constraintField(body as Readonly<Record<string, unknown>>)
  if (other && other.name !== 'jsonSchema') {
    throw badRequest(`tools and ${other.field} exclude each other: a text is held to one of them. tool_choice "none" calls none.`, other.field)
  }
  if (JSON.stringify(tools).length > MAX_CHARACTERS)
    throw badRequest(`tools has more than ${MAX_CHARACTERS} characters as JSON.`, 'tools', 'invalid_value')
  const names = tools.map((tool) => tool.function.name)
  const twice = names.findIndex((name, i) => names.indexOf(name) < i)
  if (twice >= 0) {
    const field = `tools.${twice}.function.name`
    throw badRequest(`${field} ${JSON.stringify(names[twice])} is the name of two tools.`, field, 'invalid_value')
  }
  const schemas = tools.map((tool, i) => argumentsSchema(tool, `tools.${i}.function.parameters`))
  const wanted = typeof choice === 'object' ? choice.function.name : undefined
  if (wanted !== undefined && !names.includes(wanted))
    throw badRequest(`tool_choice asks for ${JSON.stringify(wanted)}, which is none of the tools.`, 'tool_choice', 'invalid_value')
  const tags = names.map((name, i) => ({ begin: form.begin(name), schema: schemas[i] as Readonly<Record<string, unknown>>, end: form.end }))
  const otherwise = other && kept(other.value as Schema, other.field)
  const stopAfterFirst = wanted !== undefined || !parallel || !form.parallel
  return {
    names,
    tag: {
      triggers: [form.trigger],
      tags: wanted === undefined ? tags : tags.filter((_, i) => names[i] === wanted),
      atLeastOne: choice !== 'auto' || otherwise !== undefined,
      stopAfterFirst,
      // Calls that are asked for come without other text; so do those of an answer that would else be JSON.
      ...((choice !== 'auto' || otherwise !== undefined) && !stopAfterFirst && { separator: '\n' }),
      ...(choice === 'auto' && otherwise !== undefined && { otherwise }),
    },
  }
}

/** Arguments are an object. Throws HttpError 400 that names the field, and the keyword that cannot be kept. */
function argumentsSchema({ function: { parameters } }: ChatTool, field: string): Readonly<Record<string, unknown>> {
  if (parameters === undefined) return { type: 'object', additionalProperties: false }
  const { type = 'object' } = parameters
  const alone = ['$ref', 'anyOf', 'oneOf', 'allOf', 'enum', 'const'].find((keyword) => parameters[keyword] !== undefined)
  if (type !== 'object' || alone !== undefined)
    throw badRequest(`${field} must be a schema of type object${alone === undefined ? '' : ` without ${alone} beside it`}.`, field, 'invalid_value')
  return kept({ ...parameters, type }, field)
}

/** The schema. Throws HttpError 400 for one that cannot be kept. */
function kept<T extends Schema>(schema: T, field: string): T {
  try {
    CONSTRAINTS.jsonSchema.check(schema, field, { caller: 'http', vocab: Number.POSITIVE_INFINITY })
  } catch (error) {
    throw error instanceof OptionError ? badRequest(error.message, field, 'invalid_value') : error
  }
  return schema
}
