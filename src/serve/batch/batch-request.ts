// One request of a batch: asked of a server in this process, as HTTP would be, so that its answer is the server's word for word.
import { createHash } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import type { BatchLine } from './batch-file.js'

/** A line of results, as OpenAI has it. */
export interface BatchResult {
  readonly id: string
  readonly custom_id: string
  readonly response: { readonly status_code: number; readonly request_id: string; readonly body: Readonly<Record<string, unknown>> } | null
  /** Where there is no response. */
  readonly error: { readonly code: string; readonly message: string } | null
}

/** Statuses after which the same request may succeed, here or elsewhere. */
const AGAIN = new Set([500, 503])
/** A full queue is asked again after so long, for as long as it is full. */
const FULL_MS = 500

/** Waits while the queue is full. undefined: not here; ask again later, or elsewhere. apiKey: the server's own. */
export async function runRequest(
  app: FastifyInstance,
  request: Pick<BatchLine, 'customId' | 'url' | 'body'>,
  apiKey: string | undefined,
  signal: AbortSignal,
): Promise<BatchResult | undefined> {
  const { customId, url, body } = request
  if (body.stream === true) return answered(customId, 400, invalid('stream is not supported in a batch.', 'stream'))
  const payload = { ...body, seed: body.seed ?? seedOf(request) }
  const headers = { host: 'localhost', ...(apiKey !== undefined && { authorization: `Bearer ${apiKey}` }) }
  while (!signal.aborted) {
    const { statusCode, body: text } = await app.inject({ method: 'POST', url, headers, payload })
    if (AGAIN.has(statusCode)) return undefined
    if (statusCode !== 429) return answered(customId, statusCode, JSON.parse(text) as Readonly<Record<string, unknown>>)
    await setTimeout(FULL_MS, undefined, { signal }).catch(() => {})
  }
  return undefined
}

/** A request that got no response. */
export function failedRequest(customId: string, code: string, message: string): BatchResult {
  return { id: resultId(customId), custom_id: customId, response: null, error: { code, message } }
}

function answered(customId: string, status: number, body: Readonly<Record<string, unknown>>): BatchResult {
  const id = resultId(customId)
  return { id, custom_id: customId, response: { status_code: status, request_id: id.replace('batch_', ''), body }, error: null }
}

function invalid(message: string, param: string): Readonly<Record<string, unknown>> {
  return { error: { message, type: 'invalid_request_error', param, code: 'unsupported_parameter' } }
}

function resultId(customId: string): string {
  return `batch_req_${createHash('sha256').update(customId).digest('hex').slice(0, 24)}`
}

/** A request without a seed gets one of its own that is always the same, so that whoever runs it, and how often, the text is one. */
function seedOf({ customId, url, body }: Pick<BatchLine, 'customId' | 'url' | 'body'>): number {
  return createHash('sha256')
    .update(JSON.stringify([customId, url, body]))
    .digest()
    .readUIntLE(0, 6)
}
