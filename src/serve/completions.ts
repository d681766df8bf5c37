// The two endpoints that generate: what a body asks for, and how its answer is written.
import { randomUUID } from 'node:crypto'
import type { FastifyInstance, FastifyReply } from 'fastify'
import { templateOptions } from '../engine/chat-prompt.js'
import type { Completion, TokenLogprobs } from '../engine/generation.js'
import type { Prompt } from '../engine/prompts.js'
import { OptionError, TetradError } from '../errors.js'
import type { ChatTemplate } from '../tokenizer/chat-template.js'
import type { MarkedText } from '../tokenizer/tokenizer-interface.js'
import { adapterModel, adapterModels } from './adapters.js'
import { type AnswerSettings, type AnswerWriter, sendAnswer } from './answer.js'
import { ChoicesWriter, type Format } from './choices-writer.js'
import { badRequest, HttpError } from './http-error.js'
import { CompletionLogprobs, chatLogprobs, finishReason } from './openai-format.js'
import { append, echoedLogprobs, echoText, vllmPromptLogprobs } from './prompt-scores.js'
import { CHAT_SCHEMA, type ChatBody, COMPLETION_SCHEMA, type CompletionBody, generateParams } from './request-schema.js'
import type { ServedEngine, ServedModel } from './served-model.js'
import { callFormOf } from './tool-calls/call-form.js'
import { withCalls } from './tool-calls/call-format.js'
import { offeredTools } from './tool-calls/tool-fields.js'
import { templateInput } from './tool-calls/tool-messages.js'

/** max_tokens of /v1/completions if the client sends none, as in OpenAI's API. */
const DEFAULT_COMPLETION_TOKENS = 16

export function addCompletions(app: FastifyInstance, models: ReadonlyMap<string, ServedModel>, settings: AnswerSettings): void {
  app.post<{ Body: CompletionBody }>('/v1/completions', { schema: { body: COMPLETION_SCHEMA } }, async ({ body }, reply) => {
    const model = modelOf(models, body.model)
    const { prompt } = body
    const prompts: readonly Prompt[] =
      typeof prompt === 'string' || typeof prompt[0] === 'number' ? [prompt as Prompt] : (prompt as readonly Prompt[])
    const maxTokens = body.max_tokens ?? DEFAULT_COMPLETION_TOKENS
    const specials = body.skip_special_tokens === false
    refuseStreamedScores(body, body.echo === true && body.logprobs !== undefined ? 'echo with logprobs' : undefined)
    // Echoed tokens are scored like generated ones.
    const promptLogprobs = body.echo === true ? mostOf(body.logprobs, body.prompt_logprobs) : body.prompt_logprobs
    const more = {
      ...(body.add_special_tokens === false && { bos: false }),
      ...(promptLogprobs !== undefined && { promptLogprobs }),
    }
    const shape: CompletionShape = {
      choices: body.n ?? 1,
      specials,
      echo: body.echo === true ? prompts.map((given) => echoText(given, model.engine, specials)) : undefined,
      logprobs: body.logprobs,
      promptLogprobs: body.prompt_logprobs,
    }
    const { vocab } = model.engine.info
    await sendAnswer(
      reply,
      {
        model,
        prompts,
        maxTokens,
        params: (signal) => generateParams(body, maxTokens, body.logprobs, signal, { vocab }, more),
        stream: body.stream === true,
        writer: new ChoicesWriter(model, completionFormat(model.engine, shape), {
          choices: shape.choices,
          streamUsage: body.stream_options?.include_usage === true,
        }),
      },
      settings,
    )
  })

  app.post<{ Body: ChatBody }>('/v1/chat/completions', { schema: { body: CHAT_SCHEMA } }, async ({ body }, reply) => {
    const model = modelOf(models, body.model)
    const options = { choices: body.n ?? 1, streamUsage: body.stream_options?.include_usage === true }
    await answerChat(reply, model, body, settings, (format) => new ChoicesWriter(model, format, options))
  })
}

/** Answers a checked conversation. writerOf: how the endpoint writes what chat completions say. Rejects with HttpError in a chat's terms. */
export async function answerChat(
  reply: FastifyReply,
  model: ServedModel,
  body: ChatBody,
  settings: AnswerSettings,
  writerOf: (format: Format) => AnswerWriter,
): Promise<void> {
  if (body.top_logprobs !== undefined && body.logprobs !== true) throw badRequest('top_logprobs needs logprobs: true.', 'top_logprobs')
  const stop = [...(typeof body.stop === 'string' ? [body.stop] : (body.stop ?? [])), ...model.template.stop]
  const maxTokens = body.max_completion_tokens ?? body.max_tokens ?? model.engine.info.contextTokens
  const logprobs = body.logprobs === true ? (body.top_logprobs ?? 0) : undefined
  refuseStreamedScores(body)
  const callForm = callFormOf(model.template)
  const offered = offeredTools(body, callForm)
  const more = offered === undefined ? {} : { structuralTag: offered.tag }
  const plain = chatFormat(model.engine, body.prompt_logprobs)
  const format = offered === undefined ? plain : withCalls(plain, callForm, offered.names)
  const prompt = await chatPromptOf(model, body)
  try {
    await sendAnswer(
      reply,
      {
        model,
        prompts: [prompt],
        maxTokens,
        params: (signal) => generateParams({ ...body, stop }, maxTokens, logprobs, signal, { vocab: model.engine.info.vocab }, more),
        stream: body.stream === true,
        writer: writerOf(format),
      },
      settings,
    )
  } catch (error) {
    throw inChatTerms(error, body)
  }
}

/** The prompt of a conversation. Rejects with HttpError 400. */
export async function chatPromptOf({ template }: ServedModel, body: ChatBody): Promise<MarkedText> {
  return render(template, body)
}

/** Throws HttpError 404. */
export function modelOf(models: ReadonlyMap<string, ServedModel>, id: string): ServedModel {
  const model = models.get(id) ?? adapterModel(models, id)
  if (model) return model
  throw new HttpError(
    404,
    'invalid_request_error',
    `The model ${JSON.stringify(id)} is not served here. Served models: ${[...models.keys(), ...adapterModels(models).map((adapter) => adapter.id)].join(', ') || 'none'}.`,
    { param: 'model', code: 'model_not_found' },
  )
}

/** Scores of a prompt are known as a whole, with the completion. */
function refuseStreamedScores({ stream, prompt_logprobs: scores }: CompletionBody | ChatBody, echo?: string): void {
  if (stream !== true) return
  if (scores !== undefined) throw badRequest('prompt_logprobs cannot be streamed. Send stream: false.', 'prompt_logprobs', 'unsupported_parameter')
  if (echo !== undefined) throw badRequest(`${echo} cannot be streamed. Send stream: false.`, 'echo', 'unsupported_parameter')
}

function mostOf(...counts: readonly (number | undefined)[]): number | undefined {
  const given = counts.filter((count) => count !== undefined)
  return given.length === 0 ? undefined : Math.max(...given)
}

interface CompletionShape {
  /** Completions of each prompt. */
  readonly choices: number
  /** Texts have special tokens. */
  readonly specials: boolean
  /** The text before the choices of each prompt. */
  readonly echo: readonly string[] | undefined
  readonly logprobs: number | undefined
  readonly promptLogprobs: number | undefined
}

function completionFormat(engine: ServedEngine, { choices, specials, echo, logprobs: top, promptLogprobs }: CompletionShape): Format {
  const writers = new Map<number, CompletionLogprobs>()
  const logprobsOf = (index: number, logprobs: readonly TokenLogprobs[] | undefined) => {
    if (!logprobs) return null
    const writer = writers.get(index) ?? new CompletionLogprobs(engine, specials)
    writers.set(index, writer)
    return writer.write(logprobs)
  }
  const before = (index: number) => echo?.[Math.floor(index / choices)] ?? ''
  const withEcho = async (index: number, completion: Completion) => {
    const writer = new CompletionLogprobs(engine, specials)
    const all = await echoedLogprobs(completion, writer, top ?? 0)
    writer.seek(before(index).length)
    append(all, writer.write(completion.logprobs ?? []))
    return all
  }
  return {
    id: `cmpl-${randomUUID()}`,
    object: 'text_completion',
    chunkObject: 'text_completion',
    choice: async (index, completion) => ({
      index,
      text: before(index) + completion.text,
      logprobs: echo && top !== undefined ? await withEcho(index, completion) : logprobsOf(index, completion.logprobs),
      finish_reason: finishReason(completion.finishReason),
      ...(promptLogprobs !== undefined && { prompt_logprobs: await vllmPromptLogprobs(completion, engine, promptLogprobs) }),
    }),
    delta: (index, text, logprobs, first) => [
      { index, text: first ? before(index) + text : text, logprobs: logprobsOf(index, logprobs), finish_reason: null },
    ],
    end: (index, { finishReason: reason }) => [{ index, text: '', logprobs: null, finish_reason: finishReason(reason) }],
  }
}

/** promptLogprobs: most likely tokens of each token of the prompt to report. vLLM writes them beside the choices of a chat. */
function chatFormat(engine: ServedEngine, promptLogprobs: number | undefined): Format {
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
    ...(promptLogprobs !== undefined && {
      more: async ([first]) => ({ prompt_logprobs: first ? await vllmPromptLogprobs(first, engine, promptLogprobs) : null }),
    }),
    delta: (index, text, logprobs, first) => [
      {
        index,
        delta: { ...(first && { role: 'assistant' }), content: text },
        logprobs: chatLogprobs(logprobs, engine),
        finish_reason: null,
      },
    ],
    end: (index, { finishReason: reason }) => [{ index, delta: {}, logprobs: null, finish_reason: finishReason(reason) }],
  }
}

/** Bounded in time and memory, on a thread of its own. Rejects with HttpError 400: the template fails its request, never the server. */
async function render(template: ChatTemplate, body: ChatBody): Promise<MarkedText> {
  const { messages, tools } = templateInput(body, callFormOf(template))
  const { add_generation_prompt: addGenerationPrompt, continue_final_message: continueFinalMessage, chat_template_kwargs: variables } = body
  const given = {
    ...(addGenerationPrompt !== undefined && { addGenerationPrompt }),
    ...(continueFinalMessage !== undefined && { continueFinalMessage }),
    ...(variables !== undefined && { variables }),
  }
  try {
    return await template.prompt(messages, templateOptions(given, template, 'http'), tools)
  } catch (error) {
    if (error instanceof OptionError) throw badRequest(error.message, error.option, 'invalid_value')
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
    structural_tag: 'tools',
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
