// One request of a batch. It is sent to a server in this process, without a socket, so that its answer is the server's word for word.
import { createHash } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'

/** A line of results, as in OpenAI's batch API. */
export interface BatchResult {
  /** Made of the request: a changed request has another id. */
  readonly id: string
  readonly custom_id: string
  readonly response: { readonly status_code: number; readonly request_id: string; readonly body: Readonly<Record<string, unknown>> } | null
  /** Set if there is no response. */
  readonly error: { readonly code: string; readonly message: string } | null
}

export interface BatchRequest {
  readonly customId: string
  readonly url: string
  readonly body: Readonly<Record<string, unknown>>
}

/** URLs that a request of a batch may have. */
export const BATCH_URLS: ReadonlySet<string> = new Set(['/v1/completions', '/v1/chat/completions'])

export interface BatchAnswer {
  /**
   * answered: sending the request again gives the same. failed: it may succeed later or elsewhere. busy: the queue was full all the time.
   */
  readonly kind: 'answered' | 'failed' | 'busy'
  /** The last answer, also of a failed attempt. */
  readonly result: BatchResult
}

export interface RunOptions {
  /** The server's API key. */
  readonly apiKey: string | undefined
  /** How long a full queue is waited for, milliseconds. */
  readonly maxBusyMs: number
  /** Ends the waiting. */
  readonly signal: AbortSignal
}

/** Wait before a full queue is tried again, if the server does not say. */
const BUSY_MS = 500

/** Never rejects for what the server answers. */
export async function runRequest(app: FastifyInstance, request: BatchRequest, { apiKey, maxBusyMs, signal }: RunOptions): Promise<BatchAnswer> {
  const { url, body } = request
  if (!BATCH_URLS.has(url)) return answered(request, 404, refusal(`The URL ${JSON.stringify(url)} is not supported in a batch.`, 'url', 'not_found'))
  if (body.stream === true) return answered(request, 400, refusal('stream is not supported in a batch.', 'stream', 'unsupported_parameter'))
  const payload = { ...body, seed: body.seed ?? seedOf(request) }
  const headers = { host: 'localhost', ...(apiKey !== undefined && { authorization: `Bearer ${apiKey}` }) }
  const until = performance.now() + maxBusyMs
  for (;;) {
    const response = await app.inject({ method: 'POST', url, headers, payload })
    const { statusCode, body: text } = response
    const answer = answered(request, statusCode, JSON.parse(text) as Readonly<Record<string, unknown>>)
    if (statusCode !== 429) return isTemporary(statusCode, answer.result) ? { ...answer, kind: 'failed' } : answer
    const waitMs = Number(response.headers['retry-after-ms'] ?? BUSY_MS)
    if (signal.aborted || performance.now() + waitMs > until) return { ...answer, kind: 'busy' }
    await setTimeout(waitMs, undefined, { signal }).catch(() => {})
  }
}

/** Whether the same request may succeed later. Logits that are not finite come from the model, and will not change. */
function isTemporary(status: number, { response }: BatchResult): boolean {
  if (status === 503) return true
  const { code } = (response?.body.error ?? {}) as { code?: string | null }
  return status === 500 && code !== 'non_finite_logits'
}

/** The result of a request without a response. */
export function failedRequest(request: BatchRequest, code: string, message: string): BatchResult {
  return { id: resultId(request), custom_id: request.customId, response: null, error: { code, message } }
}

/** The result of a request whose model nobody serves, as the server would write it. */
export function unservedModel(request: BatchRequest, model: string): BatchResult {
  return answered(request, 404, refusal(`The model ${JSON.stringify(model)} is not served here.`, 'model', 'model_not_found')).result
}

function answered(request: BatchRequest, status: number, body: Readonly<Record<string, unknown>>): BatchAnswer {
  const id = resultId(request)
  const response = { status_code: status, request_id: id.replace('batch_', ''), body }
  return { kind: 'answered', result: { id, custom_id: request.customId, response, error: null } }
}

function refusal(message: string, param: string, code: string): Readonly<Record<string, unknown>> {
  return { error: { message, type: 'invalid_request_error', param, code } }
}

const digest = (request: BatchRequest) =>
  createHash('sha256')
    .update(JSON.stringify([request.customId, request.url, request.body]))
    .digest()

/** Id of a request's result. */
export function resultId(request: BatchRequest): string {
  return `batch_req_${digest(request).toString('hex').slice(0, 24)}`
}

/** The seed of a request without one: always the same, so that its text does not depend on who runs it, and how often. */
function seedOf(request: BatchRequest): number {
  return digest(request).readUIntLE(0, 6)
}
