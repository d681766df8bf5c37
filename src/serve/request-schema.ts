// What /v1/completions and /v1/chat/completions take, as JSON schemas: names and types. The fields of the sampling parameters, and the checks
// of their values, come from the parameter table. A field that is not in the schema is refused by its name.
import { OptionError } from '../errors.js'
import { snakeCase } from '../options/caller.js'
import { checkParams, GENERATE_PARAMS } from '../options/generate-params.js'
import type { GenerateManyParams } from '../options/public-types.js'
import { badRequest } from './http-error.js'
import { CONSTRAINT_FIELDS, constraintField, SCHEMA_FIELDS } from './output-constraint.js'
import { TOOL_FIELDS, type ToolFields } from './tool-calls/tool-fields.js'

/** Fields that both have; those of the parameter table are read by name. */
interface CommonBody {
  readonly model: string
  readonly n?: number
  readonly stream?: boolean
  readonly stream_options?: { readonly include_usage?: boolean }
  readonly stop?: string | readonly string[]
  readonly user?: string
  readonly prompt_logprobs?: number
  readonly skip_special_tokens?: boolean
}

export interface CompletionBody extends CommonBody {
  readonly prompt: string | readonly number[] | readonly string[] | readonly (readonly number[])[]
  readonly max_tokens?: number
  /** Number of most likely tokens to report, 0 to 20. */
  readonly logprobs?: number
  /** The prompt is put before each choice's text; with logprobs its tokens are scored too. */
  readonly echo?: boolean
  /** false: nothing is put before a text prompt, whatever the tokenizer says. */
  readonly add_special_tokens?: boolean
}

export interface ChatBody extends CommonBody, ToolFields {
  readonly messages: readonly {
    readonly role: string
    /** Messages with calls may have none. */
    readonly content?: string | readonly { readonly type: 'text'; readonly text: string }[]
    readonly name?: string
    readonly tool_calls?: readonly { readonly id: string; readonly type: 'function'; readonly function: { name: string; arguments: string } }[]
    readonly tool_call_id?: string
  }[]
  readonly max_tokens?: number
  readonly max_completion_tokens?: number
  readonly logprobs?: boolean
  readonly top_logprobs?: number
  readonly add_generation_prompt?: boolean
  readonly continue_final_message?: boolean
  readonly chat_template_kwargs?: Readonly<Record<string, unknown>>
  readonly response_format?:
    | { readonly type: 'text' | 'json_object' }
    | { readonly type: 'json_schema'; readonly json_schema: { readonly schema: unknown } }
}

const common = {
  model: { type: 'string', minLength: 1, maxLength: 500 },
  stream: { type: 'boolean' },
  stream_options: { type: 'object', properties: { include_usage: { type: 'boolean' } }, additionalProperties: false },
  user: { type: 'string' },
  ...CONSTRAINT_FIELDS,
  ...Object.fromEntries(Object.entries(GENERATE_PARAMS).flatMap(([name, { http }]) => (http ? [[snakeCase(name), http.schema]] : []))),
}
const integer = { type: 'integer' }
export const TOKEN_IDS = { type: 'array', items: { type: 'integer', minimum: 0 }, minItems: 1 }

export const COMPLETION_SCHEMA = {
  type: 'object',
  properties: {
    ...common,
    prompt: {
      anyOf: [
        { type: 'string' },
        TOKEN_IDS,
        { type: 'array', items: { type: 'string' }, minItems: 1, maxItems: 256 },
        { type: 'array', items: TOKEN_IDS, minItems: 1, maxItems: 256 },
      ],
    },
    max_tokens: integer,
    logprobs: integer,
    echo: { type: 'boolean' },
    add_special_tokens: { type: 'boolean' },
  },
  required: ['model', 'prompt'],
  additionalProperties: false,
}

/** A call of an earlier answer, also as a stream has it. */
const TOOL_CALL = {
  type: 'object',
  properties: {
    index: integer,
    id: { type: 'string', maxLength: 256 },
    type: { const: 'function' },
    function: {
      type: 'object',
      properties: { name: { type: 'string' }, arguments: { type: 'string' } },
      required: ['name', 'arguments'],
      additionalProperties: false,
    },
  },
  required: ['id', 'type', 'function'],
  additionalProperties: false,
}

export const CHAT_SCHEMA = {
  type: 'object',
  properties: {
    ...common,
    messages: {
      type: 'array',
      minItems: 1,
      items: {
        type: 'object',
        properties: {
          role: { enum: ['system', 'developer', 'user', 'assistant', 'tool'] },
          name: { type: 'string', maxLength: 256 },
          tool_call_id: { type: 'string', maxLength: 256 },
          tool_calls: { type: 'array', items: TOOL_CALL },
          content: {
            anyOf: [
              { type: 'string' },
              {
                type: 'array',
                items: {
                  type: 'object',
                  properties: { type: { const: 'text' }, text: { type: 'string' } },
                  required: ['type', 'text'],
                  additionalProperties: false,
                },
              },
            ],
          },
        },
        required: ['role'],
        additionalProperties: false,
      },
    },
    ...TOOL_FIELDS,
    max_tokens: integer,
    max_completion_tokens: integer,
    logprobs: { type: 'boolean' },
    top_logprobs: integer,
    add_generation_prompt: { type: 'boolean' },
    continue_final_message: { type: 'boolean' },
    chat_template_kwargs: { type: 'object' },
  },
  required: ['model', 'messages'],
  additionalProperties: false,
}

/** What a body is checked against beside its own values. */
export interface ParamsContext {
  /** Size of the model's vocabulary. */
  readonly vocab: number
  /** Longest time of a request in ms. Default: none. */
  readonly timeoutMs?: number | undefined
}

/**
 * The engine's parameters of a body. temperature is 1 if the client does not set it, as in OpenAI's API. `maxTokens` and `logprobs`: the two
 * that the endpoints spell differently; `more`: those that one endpoint makes of fields of its own. Throws HttpError 400 that names the client's field.
 */
export function generateParams(
  body: CommonBody,
  maxTokens: number | undefined,
  logprobs: number | undefined,
  signal: AbortSignal,
  { vocab, timeoutMs }: ParamsContext,
  more: Pick<GenerateManyParams, 'bos' | 'promptLogprobs' | 'structuralTag'> = {},
): GenerateManyParams & { n: number } {
  const fields = body as unknown as Readonly<Record<string, unknown>>
  const values = Object.entries(GENERATE_PARAMS).flatMap(([name, { http }]) => {
    const value = http && withoutUnset(fields[snakeCase(name)], http.unset)
    return value === undefined ? [] : [[name, value] as const]
  })
  const constraint = constraintField(fields)
  const given = {
    temperature: 1,
    n: 1,
    ...Object.fromEntries(values),
    // A tag has what the answer may be otherwise.
    ...(constraint && !more.structuralTag && { [constraint.name]: constraint.value }),
    ...more,
    ...(maxTokens !== undefined && { maxTokens }),
    ...(logprobs !== undefined && { logprobs }),
    ...(timeoutMs !== undefined && { timeoutMs }),
    signal,
  }
  try {
    const context = { caller: 'http', vocab } as const
    GENERATE_PARAMS.maxTokens.check(maxTokens, 'max_completion_tokens' in body ? 'max_completion_tokens' : 'max_tokens', context)
    GENERATE_PARAMS.logprobs.check(logprobs, 'top_logprobs' in body ? 'top_logprobs' : 'logprobs', context)
    checkParams(given, vocab, 'http')
  } catch (error) {
    if (error instanceof OptionError) {
      const own = constraint && error.option === snakeCase(constraint.name) ? constraint.field : error.option
      throw badRequest(own === undefined ? error.message : error.message.replaceAll(error.option ?? own, own), own, 'invalid_value')
    }
    throw error
  }
  return given as GenerateManyParams & { n: number }
}

/** undefined for a value that means "not set"; such values are also removed from a list. */
function withoutUnset(value: unknown, unset: readonly unknown[]): unknown {
  if (unset.includes(value)) return undefined
  if (!Array.isArray(value) || unset.length === 0) return value
  const rest = value.filter((item) => !unset.includes(item))
  return rest.length === 0 ? undefined : rest
}

/** Fields that are null are treated as absent, down to the parts of a message: clients send those, and this server's own answers have them. */
export function withoutNulls(body: unknown, depth = 4): unknown {
  if (typeof body !== 'object' || body === null || depth < 0) return body
  if (Array.isArray(body)) return typeof body[0] === 'object' ? body.map((item) => withoutNulls(item, depth - 1)) : body
  return Object.fromEntries(
    Object.entries(body).flatMap(([name, value]) =>
      value === null ? [] : [[name, SCHEMA_FIELDS.has(name) ? value : withoutNulls(value, depth - 1)]],
    ),
  )
}
