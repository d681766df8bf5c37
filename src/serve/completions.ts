// The two endpoints that generate: what a body asks for, and how its answer is written.
import { randomUUID } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import type { Completion, TokenLogprobs } from '../engine/generation.js'
import type { Prompt } from '../engine/prompts.js'
import { TetradError } from '../errors.js'
import type { ChatMessage, ChatTemplate } from '../tokenizer/chat-template.js'
import { type AnswerSettings, type Format, sendAnswer } from './answer.js'
import { badRequest, HttpError } from './http-error.js'
import { CompletionLogprobs, chatLogprobs, finishReason } from './openai-format.js'
import { CHAT_SCHEMA, type ChatBody, COMPLETION_SCHEMA, type CompletionBody, generateParams } from './request-schema.js'
import type { ServedEngine, ServedModel } from './served-model.js'

/** max_tokens of /v1/completions if the client sends none, as in OpenAI's API. */
const DEFAULT_COMPLETION_TOKENS = 16

export function addCompletions(app: FastifyInstance, models: ReadonlyMap<string, ServedModel>, settings: AnswerSettings): void {
  app.post<{ Body: CompletionBody }>('/v1/completions', { schema: { body: COMPLETION_SCHEMA } }, async ({ body }, reply) => {
    const model = modelOf(models, body.model)
    const { prompt } = body
    const prompts: readonly Prompt[] =
      typeof prompt === 'string' || typeof prompt[0] === 'number' ? [prompt as Prompt] : (prompt as readonly Prompt[])
    const maxTokens = body.max_tokens ?? DEFAULT_COMPLETION_TOKENS
    await sendAnswer(
      reply,
      {
        model,
        prompts,
        maxTokens,
        choices: body.n ?? 1,
        params: (signal) => generateParams(body, maxTokens, body.logprobs, signal, { vocab: model.engine.info.vocab }),
        stream: body.stream === true,
        streamUsage: body.stream_options?.include_usage === true,
        format: completionFormat(model.engine),
      },
      settings,
    )
  })

  app.post<{ Body: ChatBody }>('/v1/chat/completions', { schema: { body: CHAT_SCHEMA } }, async ({ body }, reply) => {
    const model = modelOf(models, body.model)
    if (body.top_logprobs !== undefined && body.logprobs !== true) throw badRequest('top_logprobs needs logprobs: true.', 'top_logprobs')
    const messages = body.messages.map(
      ({ role, content }): ChatMessage => ({
        role: role as ChatMessage['role'],
        content: typeof content === 'string' ? content : content.map(({ text }) => text).join(''),
      }),
    )
    const stop = [...(typeof body.stop === 'string' ? [body.stop] : (body.stop ?? [])), ...model.template.stop]
    const maxTokens = body.max_completion_tokens ?? body.max_tokens ?? model.engine.info.contextTokens
    const logprobs = body.logprobs === true ? (body.top_logprobs ?? 0) : undefined
    const prompt = await render(model.template, messages)
    try {
      await sendAnswer(
        reply,
        {
          model,
          prompts: [prompt],
          maxTokens,
          choices: body.n ?? 1,
          params: (signal) => generateParams({ ...body, stop }, maxTokens, logprobs, signal, { vocab: model.engine.info.vocab }),
          stream: body.stream === true,
          streamUsage: body.stream_options?.include_usage === true,
          format: chatFormat(model.engine),
        },
        settings,
      )
    } catch (error) {
      throw inChatTerms(error, body)
    }
  })
}

/** Throws HttpError 404. */
export function modelOf(models: ReadonlyMap<string, ServedModel>, id: string): ServedModel {
  const model = models.get(id)
  if (model) return model
  throw new HttpError(
    404,
    'invalid_request_error',
    `The model ${JSON.stringify(id)} is not served here. Served models: ${[...models.keys()].join(', ') || 'none'}.`,
    { param: 'model', code: 'model_not_found' },
  )
}

function completionFormat(engine: ServedEngine): Format {
  const writers = new Map<number, CompletionLogprobs>()
  const logprobsOf = (index: number, logprobs: readonly TokenLogprobs[] | undefined) => {
    const writer = writers.get(index) ?? new CompletionLogprobs(engine)
    writers.set(index, writer)
    return writer.write(logprobs)
  }
  return {
    id: `cmpl-${randomUUID()}`,
    object: 'text_completion',
    chunkObject: 'text_completion',
    choice: (index, { text, logprobs, finishReason: reason }) => ({
      index,
      text,
      logprobs: logprobsOf(index, logprobs),
      finish_reason: finishReason(reason),
    }),
    delta: (index, text, logprobs) => ({ index, text, logprobs: logprobsOf(index, logprobs), finish_reason: null }),
    end: (index, { finishReason: reason }) => ({ index, text: '', logprobs: null, finish_reason: finishReason(reason) }),
  }
}

function chatFormat(engine: ServedEngine): Format {
  return {
    id: `chatcmpl-${randomUUID()}`,
    object: 'chat.completion',
    chunkObject: 'chat.completion.chunk',
    choice: (index, completion: Completion) => ({
      index,
      message: { role: 'assistant', content: completion.text, refusal: null },
      logprobs: chatLogprobs(completion.logprobs, engine),
      finish_reason: finishReason(completion.finishReason),
    }),
    delta: (index, text, logprobs, first) => ({
      index,
      delta: { ...(first && { role: 'assistant' }), content: text },
      logprobs: chatLogprobs(logprobs, engine),
      finish_reason: null,
    }),
    end: (index, { finishReason: reason }) => ({ index, delta: {}, logprobs: null, finish_reason: finishReason(reason) }),
  }
}

/** Bounded in time and memory, on a thread of its own. Rejects with HttpError 400: the template fails its request, never the server. */
async function render(template: ChatTemplate, messages: readonly ChatMessage[]): Promise<Prompt> {
  try {
    return await template.prompt(messages)
  } catch (error) {
    if (error instanceof TetradError) throw error
    throw badRequest(`The model's chat template refuses these messages: ${error instanceof Error ? error.message : String(error)}`, 'messages')
  }
}

/** Fields that a chat calls otherwise than a completion. */
function inChatTerms(error: unknown, body: ChatBody): unknown {
  if (!(error instanceof HttpError) || error.param === null) return error
  const names: Record<string, string> = {
    prompt: 'messages',
    logprobs: 'top_logprobs',
    ...(body.max_completion_tokens !== undefined && { max_tokens: 'max_completion_tokens' }),
  }
  const param = names[error.param]
  if (param === undefined) return error
  const message = error.param === 'prompt' ? error.message : error.message.replaceAll(new RegExp(`\\b${error.param}\\b`, 'g'), param)
  const { status, type, code, retryAfterMs, cause } = error
  return new HttpError(status, type, message, {
    param,
    ...(code !== null && { code }),
    ...(retryAfterMs !== undefined && { retryAfterMs }),
    cause,
  })
}
