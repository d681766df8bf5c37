// One generating request, from the engine's call to the end of the HTTP answer: as a whole, or as server-sent events.
// It ends the engine's request when the client leaves or the time is over.
import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import type { IndexedChunk } from '../engine/engine.js'
import type { Completion, Generation } from '../engine/generation.js'
import type { Prompt } from '../engine/prompts.js'
import { OverloadedError } from '../errors.js'
import type { GenerateManyParams } from '../options/public-types.js'
import { HttpError, httpError, overloaded } from './http-error.js'
import type { ServerMetrics } from './metrics.js'
import type { ServedModel } from './served-model.js'
import type { ServiceTimes } from './service-times.js'
import { cutWhenStalled, keepWarm } from './sse.js'

/** How an endpoint writes its answers. */
export interface AnswerWriter {
  /** The whole answer as JSON. */
  whole(completions: readonly Completion[]): Promise<string>
  /** Events of a stream, as server-sent events; '' for none. Before the first chunk: */
  begin(): string
  chunk(chunk: IndexedChunk): string
  end(completions: readonly Completion[]): string
  /** The last event of a stream that fails. */
  error(error: HttpError): string
}

/** A request that was checked. */
export interface Call {
  readonly model: ServedModel
  readonly prompts: readonly Prompt[]
  readonly maxTokens: number
  /** The engine's parameters, which end the request when the signal aborts. */
  readonly params: (signal: AbortSignal) => GenerateManyParams
  readonly stream: boolean
  readonly writer: AnswerWriter
}

export interface AnswerSettings {
  readonly metrics: ServerMetrics
  readonly serviceTimes: (model: ServedModel) => ServiceTimes
  /** A stream whose client reads nothing for this time is cut, milliseconds. */
  readonly stalledMs: number
  /** A comment is sent after this time without an event, milliseconds; 0: never. */
  readonly commentMs: number
  /** Milliseconds from the call to the end of the answer; undefined: no limit. */
  readonly requestTimeoutMs: number | undefined
}

/** Sends the answer. Rejects with HttpError while no byte was sent; after that an error is the last event. */
export async function sendAnswer(reply: FastifyReply, call: Call, settings: AnswerSettings): Promise<void> {
  const { model } = call
  const end = new RequestEnd(reply, settings.requestTimeoutMs)
  const ended = settings.serviceTimes(model).begin(Math.min(call.maxTokens, model.engine.info.contextTokens))
  const finish = (completions: readonly Completion[]) => {
    end.check(completions)
    settings.metrics.finished(model.id, completions)
    ended(true)
  }
  const fail = (error: unknown): HttpError => {
    const known = error instanceof OverloadedError ? overloaded(error, retryAfterMs(model, settings)) : httpError(error)
    settings.metrics.failed(model.id, known.status, known.code)
    return known
  }
  const release = () => {
    end.release()
    ended(false)
  }
  reply.raw.once('close', release)
  try {
    const generation = model.engine.generateMany(call.prompts, call.params(end.signal))
    if (!call.stream) {
      const completions = await generation
      finish(completions)
      release()
      await reply.header('content-type', 'application/json; charset=utf-8').send(await call.writer.whole(completions))
      return
    }
    const chunks = generation[Symbol.asyncIterator]()
    const first = chunks.next()
    // Until the first token an error is still an HTTP status; a slow start is not waited for, so that comments can be sent.
    await firstOrLate(first, settings.commentMs)
    const parts = { writer: call.writer, generation, chunks, finish, fail, release }
    cutWhenStalled(reply.raw, settings.stalledMs)
    reply.header('content-type', 'text/event-stream; charset=utf-8').header('cache-control', 'no-cache').header('x-accel-buffering', 'no')
    await reply.send(Readable.from(keepWarm(events(parts, first), settings.commentMs), { objectMode: false, highWaterMark: 16_384 }))
  } catch (error) {
    release()
    throw fail(error)
  }
}

function retryAfterMs(model: ServedModel, { serviceTimes }: AnswerSettings): number {
  const { timePerToken } = model.engine.stats()
  return serviceTimes(model).retryAfterMs(timePerToken.count === 0 ? 0 : timePerToken.sumMs / timePerToken.count)
}

/** Resolves when the first chunk is there, or after `ms` without one (0: never). Rejects as the chunk does. */
async function firstOrLate(first: Promise<unknown>, ms: number): Promise<void> {
  if (ms === 0) {
    await first
    return
  }
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms)
  })
  await Promise.race([first, late]).finally(() => clearTimeout(timer))
}

/** Aborts the engine's request when the client leaves or the time is over, and knows which of them it was. */
class RequestEnd {
  readonly #abort = new AbortController()
  readonly #timeoutMs: number | undefined
  readonly #timer: NodeJS.Timeout | undefined
  #clientLeft = false
  #timedOut = false

  constructor({ raw }: FastifyReply, timeoutMs: number | undefined) {
    this.#timeoutMs = timeoutMs
    const leave = () => {
      clearTimeout(this.#timer)
      if (raw.writableFinished) return
      this.#clientLeft = true
      this.#abort.abort()
    }
    // Of the answer, which the client did not wait for; its connection may live on for other requests.
    raw.once('close', leave)
    // It left while its request was checked: 'close' was emitted before.
    if (raw.destroyed) leave()
    if (timeoutMs === undefined) return
    this.#timer = setTimeout(() => {
      this.#timedOut = true
      this.#abort.abort()
    }, timeoutMs)
  }

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  /** Throws HttpError 504 after a timeout, and 503 if the engine was closed before the completions finished. */
  check(completions: readonly Completion[]): void {
    if (this.#clientLeft || !completions.some((completion) => completion.finishReason === 'abort')) return
    if (this.#timedOut) {
      throw new HttpError(504, 'timeout', `The request took longer than the server's limit of ${this.#timeoutMs} ms.`, { code: 'timeout' })
    }
    throw new HttpError(503, 'server_error', 'The server was shut down before the answer was complete.', {
      code: 'shutting_down',
      retryAfterMs: 1000,
    })
  }

  release(): void {
    clearTimeout(this.#timer)
  }
}

interface StreamParts {
  readonly writer: AnswerWriter
  readonly generation: Generation<Completion[], IndexedChunk>
  readonly chunks: AsyncGenerator<IndexedChunk, void, undefined>
  /** Throws HttpError if the completions are cut short. */
  finish(completions: readonly Completion[]): void
  fail(error: unknown): HttpError
  release(): void
}

/** The events of one streamed answer. */
async function* events(parts: StreamParts, first: Promise<IteratorResult<IndexedChunk, void>>): AsyncGenerator<string, void, undefined> {
  const { writer, generation, chunks, finish, fail, release } = parts
  try {
    // Not before the first chunk, so that an error may still be told by the status.
    let next = await first
    const begun = writer.begin()
    if (begun !== '') yield begun
    for (; !next.done; next = await chunks.next()) {
      const written = writer.chunk(next.value)
      if (written !== '') yield written
    }
    const completions = await generation
    finish(completions)
    yield writer.end(completions)
  } catch (error) {
    // The status was sent: the error is an event.
    yield writer.error(fail(error))
  } finally {
    release()
    await chunks.return()
  }
}
