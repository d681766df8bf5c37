// The two endpoints that generate: one answer, or a stream of server-sent events that a slow client slows down.
import { randomUUID } from 'node:crypto'
import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply } from 'fastify'
import type { IndexedChunk } from '../engine/engine.js'
import type { Completion, Generation, TokenLogprobs } from '../engine/generation.js'
import type { Prompt } from '../engine/prompts.js'
import type { ChatMessage, ChatTemplate } from '../tokenizer/chat-template.js'
import { badRequest, HttpError, httpError } from './http-error.js'
import type { ServerMetrics } from './metrics.js'
import { chatLogprobs, completionLogprobs, decoder, finishReason, usage } from './openai-format.js'
import type { ServedEngine } from './replicas/replica-pool.js'
import { CHAT_SCHEMA, type ChatBody, COMPLETION_SCHEMA, type CompletionBody, generateParams } from './request-schema.js'

export interface ServedModel {
  readonly id: string
  readonly engine: ServedEngine
  readonly template: ChatTemplate
  /** Seconds since 1970. */
  readonly created: number
  /** Of the model and its determinism key, where they were asked for: equal ones give equal texts for a seed. */
  readonly fingerprint?: string | undefined
}

/** What the two endpoints differ in. */
interface Format {
  readonly id: string
  readonly object: string
  readonly chunkObject: string
  choice(index: number, completion: Completion): object
  /** A choice of a chunk; the first of each index, and the last, are told. */
  delta(index: number, text: string, logprobs: readonly TokenLogprobs[] | undefined, first: boolean): object
  end(index: number, completion: Completion): object
}

/** /v1/completions has as many tokens where the client says nothing. */
const DEFAULT_COMPLETION_TOKENS = 16

/** Milliseconds. */
export interface Limits {
  /** After which a stream whose client reads nothing is cut. */
  readonly stalledMs: number
  /** That a request may take from its arrival to the end of its answer; undefined: no limit. */
  readonly timeoutMs: number | undefined
}

export function addCompletions(app: FastifyInstance, models: ReadonlyMap<string, ServedModel>, metrics: ServerMetrics, limits: Limits): void {
  app.post<{ Body: CompletionBody }>('/v1/completions', { schema: { body: COMPLETION_SCHEMA } }, async (request, reply) => {
    const { body } = request
    const model = modelOf(models, body.model)
    const { prompt } = body
    const prompts: readonly Prompt[] =
      typeof prompt === 'string' || typeof prompt[0] === 'number' ? [prompt as Prompt] : (prompt as readonly Prompt[])
    const decode = decoder(model.engine)
    const offsets = new Map<number, number>()
    await answer(reply, model, { metrics, ...limits }, prompts, body, body.max_tokens ?? DEFAULT_COMPLETION_TOKENS, body.logprobs, {
      id: `cmpl-${randomUUID()}`,
      object: 'text_completion',
      chunkObject: 'text_completion',
      choice: (index, { text, logprobs, finishReason: reason }) => ({
        index,
        text,
        logprobs: completionLogprobs(logprobs, decode),
        finish_reason: finishReason(reason),
      }),
      delta: (index, text, logprobs) => {
        const offset = offsets.get(index) ?? 0
        offsets.set(index, offset + text.length)
        return { index, text, logprobs: completionLogprobs(logprobs, decode, offset), finish_reason: null }
      },
      end: (index, { finishReason: reason }) => ({ index, text: '', logprobs: null, finish_reason: finishReason(reason) }),
    })
  })

  app.post<{ Body: ChatBody }>('/v1/chat/completions', { schema: { body: CHAT_SCHEMA } }, async (request, reply) => {
    const { body } = request
    const model = modelOf(models, body.model)
    if (body.top_logprobs !== undefined && body.logprobs !== true) throw badRequest('top_logprobs needs logprobs: true.', 'top_logprobs')
    const messages = body.messages.map(
      ({ role, content }): ChatMessage => ({
        role: role as ChatMessage['role'],
        content: typeof content === 'string' ? content : content.map(({ text }) => text).join(''),
      }),
    )
    const decode = decoder(model.engine)
    const stop = [...(typeof body.stop === 'string' ? [body.stop] : (body.stop ?? [])), ...model.template.stop]
    const logprobs = body.logprobs === true ? (body.top_logprobs ?? 0) : undefined
    await answer(
      reply,
      model,
      { metrics, ...limits },
      [render(model.template, messages)],
      { ...body, stop },
      body.max_completion_tokens ?? body.max_tokens ?? mostTokens(model.engine),
      logprobs,
      {
        id: `chatcmpl-${randomUUID()}`,
        object: 'chat.completion',
        chunkObject: 'chat.completion.chunk',
        choice: (index, completion) => ({
          index,
          message: { role: 'assistant', content: completion.text, refusal: null },
          logprobs: chatLogprobs(completion.logprobs, decode),
          finish_reason: finishReason(completion.finishReason),
        }),
        delta: (index, text, probabilities, first) => ({
          index,
          delta: { ...(first && { role: 'assistant' }), content: text },
          logprobs: chatLogprobs(probabilities, decode),
          finish_reason: null,
        }),
        end: (index, { finishReason: reason }) => ({ index, delta: {}, logprobs: null, finish_reason: finishReason(reason) }),
      },
    )
  })
}

export function modelOf(models: ReadonlyMap<string, ServedModel>, id: string): ServedModel {
  const model = models.get(id)
  if (model) return model
  throw new HttpError(
    404,
    'invalid_request_error',
    `The model ${JSON.stringify(id)} is not served here; there are: ${[...models.keys()].join(', ')}.`,
    { param: 'model', code: 'model_not_found' },
  )
}

function render(template: ChatTemplate, messages: readonly ChatMessage[]): string {
  try {
    return template.render(messages)
  } catch (error) {
    throw badRequest(`The model's chat template refuses these messages: ${error instanceof Error ? error.message : String(error)}`, 'messages')
  }
}

/** A chat may go on to the end of the context. */
function mostTokens({ info }: ServedEngine): number {
  return info.contextTokens
}

async function answer(
  reply: FastifyReply,
  { id: name, engine, fingerprint }: ServedModel,
  { metrics, stalledMs, timeoutMs }: Limits & { readonly metrics: ServerMetrics },
  prompts: readonly Prompt[],
  body: CompletionBody | ChatBody | (Omit<ChatBody, 'stop'> & { readonly stop: readonly string[] }),
  maxTokens: number,
  logprobs: number | undefined,
  format: Format,
): Promise<void> {
  const gone = new AbortController()
  // Of the answer, which a client that goes away leaves unfinished; a connection lives on for others.
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) gone.abort()
  })
  const { n = 1, stream = false } = body
  if (body.stream_options !== undefined && !stream) throw badRequest('stream_options needs stream: true.', 'stream_options')
  const generation = engine.generateMany(prompts, generateParams(body, maxTokens, logprobs, gone.signal, { vocab: engine.info.vocab, timeoutMs }))
  const head = {
    id: format.id,
    created: Math.floor(Date.now() / 1000),
    model: name,
    ...(fingerprint !== undefined && { system_fingerprint: `fp_${fingerprint}` }),
  }
  if (!stream) {
    const completions = uncut(await generation, gone.signal)
    metrics.finished(name, completions)
    await reply.send({ ...head, object: format.object, choices: completions.map((c, i) => format.choice(i, c)), usage: usage(completions, n) })
    return
  }
  // Before the first token an error is still an HTTP status.
  const chunks = generation[Symbol.asyncIterator]()
  const first = await chunks.next()
  const events = eventsOf(
    generation,
    chunks,
    first,
    format,
    { ...head, object: format.chunkObject },
    body.stream_options?.include_usage === true,
    n,
    (completions) => metrics.finished(name, uncut(completions, gone.signal)),
  )
  reply.raw.setTimeout(stalledMs, () => reply.raw.destroy())
  reply.header('content-type', 'text/event-stream; charset=utf-8').header('cache-control', 'no-cache').header('x-accel-buffering', 'no')
  await reply.send(Readable.from(events, { objectMode: false, highWaterMark: 16384 }))
}

/** Throws if the engine ended the request, at its own end: what there is of the text is no answer. */
function uncut<T extends readonly Completion[]>(completions: T, gone: AbortSignal): T {
  if (gone.aborted || !completions.some(({ finishReason: reason }) => reason === 'abort')) return completions
  throw new HttpError(503, 'server_error', 'The server ended before the answer did.', { code: 'shutting_down', retryAfter: 1 })
}

async function* eventsOf(
  generation: Generation<Completion[], IndexedChunk>,
  chunks: AsyncGenerator<IndexedChunk, void, undefined>,
  first: IteratorResult<IndexedChunk, void>,
  format: Format,
  head: object,
  withUsage: boolean,
  choices: number,
  finished: (completions: readonly Completion[]) => void,
): AsyncGenerator<string, void, undefined> {
  const event = (value: object) => `data: ${JSON.stringify(value)}\n\n`
  // With usage asked for, every other chunk has a null one.
  const chunk = (choice: object) => event({ ...head, choices: [choice], ...(withUsage && { usage: null }) })
  const seen = new Set<number>()
  try {
    for (let next = first; !next.done; next = await chunks.next()) {
      const { index, text, logprobs } = next.value
      if (text === '' && !logprobs && seen.has(index)) continue
      yield chunk(format.delta(index, text, logprobs, !seen.has(index)))
      seen.add(index)
    }
    const completions = await generation
    finished(completions)
    for (const [i, completion] of completions.entries()) {
      if (!seen.has(i)) yield chunk(format.delta(i, '', undefined, true))
      yield chunk(format.end(i, completion))
    }
    if (withUsage) yield event({ ...head, choices: [], usage: usage(completions, choices) })
    yield 'data: [DONE]\n\n'
  } catch (error) {
    // The status has been sent: the error is an event, and the stream ends without [DONE].
    yield event(httpError(error).body)
  } finally {
    await chunks.return()
  }
}
