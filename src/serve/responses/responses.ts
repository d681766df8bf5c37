// POST /v1/responses without state: each request has the whole conversation, and nothing is kept.
import type { FastifyInstance } from 'fastify'
import type { AnswerSettings } from '../answer.js'
import { checkChat, toolNames } from '../check-chat.js'
import { answerChat, modelOf } from '../completions.js'
import { CHAT_SCHEMA } from '../request-schema.js'
import type { ServedModel } from '../served-model.js'
import { ResponseWriter } from './response-writer.js'
import { type ResponsesBody, toChat, withoutNeutral } from './to-chat.js'

const object = { type: 'object' }

/** Those of a chat that are called the same, without what only a chat has. */
const {
  messages: _messages,
  max_tokens: _maxTokens,
  max_completion_tokens: _maxCompletionTokens,
  logprobs: _logprobs,
  top_logprobs,
  response_format: _format,
  stream_options: _streamOptions,
  n: _n,
  prompt_logprobs: _promptLogprobs,
  continue_final_message: _continue,
  add_generation_prompt: _generation,
  ...shared
} = CHAT_SCHEMA.properties as Readonly<Record<string, object>>

const RESPONSES_SCHEMA = {
  type: 'object',
  properties: {
    ...shared,
    input: { anyOf: [{ type: 'string' }, { type: 'array', minItems: 1, items: object }] },
    instructions: { type: 'string' },
    max_output_tokens: { type: 'integer' },
    top_logprobs,
    include: { type: 'array', items: { type: 'string' } },
    metadata: { type: 'object', additionalProperties: { type: 'string' } },
    text: { type: 'object', properties: { format: object, verbosity: { type: 'string' } }, additionalProperties: false },
    tools: { type: 'array', items: object },
    tool_choice: { anyOf: [{ type: 'string' }, object] },
    parallel_tool_calls: { type: 'boolean' },
  },
  required: ['model', 'input'],
  additionalProperties: false,
}

/** A chat's names of fields, and this endpoint's. */
const NAMES: Readonly<Record<string, string>> = {
  messages: 'input',
  max_completion_tokens: 'max_output_tokens',
  max_tokens: 'max_output_tokens',
  logprobs: 'top_logprobs',
  response_format: 'text.format',
  'response_format.json_schema': 'text.format',
  verbosity: 'text.verbosity',
}

export function addResponses(app: FastifyInstance, models: ReadonlyMap<string, ServedModel>, settings: AnswerSettings): void {
  app.post<{ Body: ResponsesBody }>(
    '/v1/responses',
    {
      schema: { body: RESPONSES_SCHEMA },
      preValidation: async (request) => {
        request.body = withoutNeutral(request.body) as ResponsesBody
      },
    },
    async (request, reply) => {
      const { body } = request
      const model = modelOf(models, body.model)
      await checkChat(request, toChat(body), { ...NAMES, ...toolNames(body.tools, '') }, (chat) =>
        answerChat(reply, model, chat, settings, (format) => new ResponseWriter(model, body, format)),
      )
    },
  )
}
