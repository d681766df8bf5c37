// What /v1/completions and /v1/chat/completions take, as JSON schemas: names and types. Ranges are the engine's to check, but for those
// that only HTTP has. A field that is not here is refused by its name.
import type { GenerateParams } from '../options/generate-params.js'

/** Fields that both have. Beyond OpenAI's: what vLLM calls the same. */
interface CommonBody {
  readonly model: string
  readonly temperature?: number
  readonly top_p?: number
  readonly n?: number
  readonly stream?: boolean
  readonly stream_options?: { readonly include_usage?: boolean }
  readonly stop?: string | readonly string[]
  readonly seed?: number
  readonly presence_penalty?: number
  readonly frequency_penalty?: number
  readonly logit_bias?: Readonly<Record<string, number>>
  readonly user?: string
  readonly top_k?: number
  readonly min_p?: number
  readonly typical_p?: number
  readonly repetition_penalty?: number
  readonly min_tokens?: number
  readonly stop_token_ids?: readonly number[]
  readonly ignore_eos?: boolean
  readonly priority?: number
}

export interface CompletionBody extends CommonBody {
  readonly prompt: string | readonly number[] | readonly string[] | readonly (readonly number[])[]
  readonly max_tokens?: number
  /** Of the most likely tokens, 0 to 20. */
  readonly logprobs?: number
  readonly echo?: boolean
}

export interface ChatBody extends CommonBody {
  readonly messages: readonly {
    readonly role: string
    readonly content: string | readonly { readonly type: 'text'; readonly text: string }[]
    readonly name?: string
  }[]
  readonly max_tokens?: number
  readonly max_completion_tokens?: number
  readonly logprobs?: boolean
  readonly top_logprobs?: number
  readonly response_format?: { readonly type: 'text' }
}

const number = { type: 'number' }
const integer = { type: 'integer' }
const common = {
  model: { type: 'string', minLength: 1, maxLength: 500 },
  temperature: number,
  top_p: number,
  n: { type: 'integer', minimum: 1, maximum: 64 },
  stream: { type: 'boolean' },
  stream_options: { type: 'object', properties: { include_usage: { type: 'boolean' } }, additionalProperties: false },
  stop: { anyOf: [{ type: 'string' }, { type: 'array', items: { type: 'string' }, maxItems: 16 }] },
  seed: integer,
  presence_penalty: number,
  frequency_penalty: number,
  logit_bias: { type: 'object', additionalProperties: number, maxProperties: 1024 },
  user: { type: 'string' },
  top_k: integer,
  min_p: number,
  typical_p: number,
  repetition_penalty: number,
  min_tokens: integer,
  stop_token_ids: { type: 'array', items: integer, maxItems: 32 },
  ignore_eos: { type: 'boolean' },
  priority: integer,
}
const ids = { type: 'array', items: { type: 'integer', minimum: 0 }, minItems: 1 }

export const COMPLETION_SCHEMA = {
  type: 'object',
  properties: {
    ...common,
    prompt: {
      anyOf: [
        { type: 'string' },
        ids,
        { type: 'array', items: { type: 'string' }, minItems: 1, maxItems: 256 },
        { type: 'array', items: ids, minItems: 1, maxItems: 256 },
      ],
    },
    max_tokens: { type: 'integer', minimum: 1 },
    logprobs: { type: 'integer', minimum: 0, maximum: 20 },
    echo: { const: false },
  },
  required: ['model', 'prompt'],
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
          role: { enum: ['system', 'developer', 'user', 'assistant'] },
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
        required: ['role', 'content'],
        additionalProperties: false,
      },
    },
    max_tokens: { type: 'integer', minimum: 1 },
    max_completion_tokens: { type: 'integer', minimum: 1 },
    logprobs: { type: 'boolean' },
    top_logprobs: { type: 'integer', minimum: 0, maximum: 20 },
    response_format: { type: 'object', properties: { type: { const: 'text' } }, required: ['type'], additionalProperties: false },
  },
  required: ['model', 'messages'],
  additionalProperties: false,
}

/** The engine's parameters of a body. temperature is 1 where the client says nothing, as OpenAI has it. */
export function generateParams(
  body: CommonBody,
  maxTokens: number | undefined,
  logprobs: number | undefined,
  signal: AbortSignal,
): GenerateParams & { n: number } {
  const { temperature = 1, n = 1, stop, logit_bias: bias } = body
  const given: Record<string, unknown> = {
    topP: body.top_p,
    seed: body.seed,
    presencePenalty: body.presence_penalty,
    frequencyPenalty: body.frequency_penalty,
    topK: body.top_k,
    minP: body.min_p,
    typicalP: body.typical_p,
    repetitionPenalty: body.repetition_penalty,
    minTokens: body.min_tokens,
    stopTokenIds: body.stop_token_ids,
    ignoreEos: body.ignore_eos,
    priority: body.priority,
    logitBias: bias,
    stop: typeof stop === 'string' ? [stop] : stop,
    maxTokens,
    logprobs,
  }
  const known = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  return { ...known, temperature, n, signal }
}

/** Fields with null are as if they were not there, down to the parts of a message: clients send those, and this server's own answers have them. */
export function withoutNulls(body: unknown, depth = 4): unknown {
  if (typeof body !== 'object' || body === null || depth < 0) return body
  if (Array.isArray(body)) return typeof body[0] === 'object' ? body.map((item) => withoutNulls(item, depth - 1)) : body
  return Object.fromEntries(Object.entries(body).flatMap(([name, value]) => (value === null ? [] : [[name, withoutNulls(value, depth - 1)]])))
}
