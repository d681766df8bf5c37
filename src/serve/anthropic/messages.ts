// POST /v1/messages and /v1/messages/count_tokens, as Anthropic's clients call them.
import type { FastifyInstance } from 'fastify'
import type { AnswerSettings } from '../answer.js'
import { checkChat, toolNames } from '../check-chat.js'
import { answerChat, chatPromptOf, modelOf } from '../completions.js'
import type { ServedModel } from '../served-model.js'
import { MessageWriter } from './message-writer.js'
import { type MessagesBody, toChat, withoutNeutral } from './to-chat.js'

const parts = { anyOf: [{ type: 'string' }, { type: 'array', items: { type: 'object' } }] }

const conversation = {
  model: { type: 'string', minLength: 1, maxLength: 500 },
  messages: {
    type: 'array',
    minItems: 1,
    items: {
      type: 'object',
      properties: { role: { enum: ['user', 'assistant'] }, content: parts },
      required: ['role', 'content'],
      additionalProperties: false,
    },
  },
  system: parts,
  tools: { type: 'array', items: { type: 'object' } },
  tool_choice: { type: 'object' },
}

const MESSAGES_SCHEMA = {
  type: 'object',
  properties: {
    ...conversation,
    max_tokens: { type: 'integer' },
    stop_sequences: { type: 'array', items: { type: 'string' } },
    stream: { type: 'boolean' },
    temperature: { type: 'number' },
    top_p: { type: 'number' },
    top_k: { type: 'integer' },
  },
  required: ['model', 'messages', 'max_tokens'],
  additionalProperties: false,
}

const COUNT_SCHEMA = { type: 'object', properties: conversation, required: ['model', 'messages'], additionalProperties: false }

/** A chat's names of fields, and this endpoint's. */
const NAMES = { max_completion_tokens: 'max_tokens', stop: 'stop_sequences', continue_final_message: 'messages' }

const namesOf = ({ tools }: MessagesBody) => ({ ...NAMES, ...toolNames(tools, '.input_schema') })

export function addMessages(app: FastifyInstance, models: ReadonlyMap<string, ServedModel>, settings: AnswerSettings): void {
  const preValidation = async (request: { body: unknown }) => {
    request.body = withoutNeutral(request.body)
  }
  app.post<{ Body: MessagesBody }>('/v1/messages', { schema: { body: MESSAGES_SCHEMA }, preValidation }, async (request, reply) => {
    const { body } = request
    const model = modelOf(models, body.model)
    await checkChat(request, toChat(body), namesOf(body), async (chat) => {
      // A stream begins with the size of its prompt.
      const promptTokens = body.stream === true ? await countOf(model, chat) : 0
      const stops = body.stop_sequences ?? []
      await answerChat(reply, model, chat, settings, (format) => new MessageWriter(format, { model: model.id, stops, promptTokens }))
    })
  })

  app.post<{ Body: MessagesBody }>('/v1/messages/count_tokens', { schema: { body: COUNT_SCHEMA }, preValidation }, async (request) => {
    const model = modelOf(models, request.body.model)
    let count = 0
    await checkChat(request, toChat(request.body), namesOf(request.body), async (chat) => {
      count = await countOf(model, chat)
    })
    return { input_tokens: count }
  })
}

async function countOf(model: ServedModel, chat: Parameters<typeof chatPromptOf>[1]): Promise<number> {
  const tokens = await model.engine.tokenize(await chatPromptOf(model, chat))
  return tokens.length
}
