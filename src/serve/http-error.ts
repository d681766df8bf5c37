// Errors as OpenAI's clients expect them: { error: { message, type, param, code } } under an HTTP status.
import { OverloadedError, TetradError } from '../errors.js'

export class HttpError extends Error {
  override readonly name = 'HttpError'
  readonly status: number
  readonly type: string
  readonly param: string | null
  readonly code: string | null
  /** Seconds after which to try again. */
  readonly retryAfter: number | undefined

  constructor(status: number, type: string, message: string, more: { param?: string; code?: string; retryAfter?: number; cause?: unknown } = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause })
    this.status = status
    this.type = type
    this.param = more.param ?? null
    this.code = more.code ?? null
    this.retryAfter = more.retryAfter
  }

  get body(): object {
    const { message, type, param, code } = this
    return { error: { message, type, param, code } }
  }
}

export function badRequest(message: string, param?: string, code?: string): HttpError {
  return new HttpError(400, 'invalid_request_error', message, { ...(param !== undefined && { param }), ...(code !== undefined && { code }) })
}

/** What the engine or the framework threw, as the client is told. Whatever nobody foresaw is a 500 without its details. */
export function httpError(error: unknown): HttpError {
  if (error instanceof HttpError) return error
  if (error instanceof OverloadedError) {
    return new HttpError(429, 'overloaded', error.message, {
      code: 'overloaded',
      retryAfter: Math.max(1, Math.ceil(error.retryAfterMs / 1000)),
      cause: error,
    })
  }
  if (error instanceof TetradError) return ofEngine(error)
  const { statusCode, code, message } = error as { statusCode?: number; code?: string; message?: string }
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new HttpError(statusCode, 'invalid_request_error', message ?? 'the request is wrong', {
      ...(code !== undefined && { code: code.toLowerCase() }),
    })
  }
  return new HttpError(500, 'server_error', 'The server failed; its log says why.', { cause: error })
}

function ofEngine(error: TetradError): HttpError {
  const code = error.code.toLowerCase()
  switch (error.code) {
    case 'PROMPT_TOO_LONG':
      return new HttpError(400, 'invalid_request_error', error.message, { code: 'context_length_exceeded', cause: error })
    case 'OPTION_INVALID':
    case 'OPTION_UNKNOWN':
    case 'PROMPT_EMPTY':
    case 'TOKEN_INVALID':
    case 'TOKENIZER_MISSING':
    case 'REQUEST_TOO_LARGE':
    case 'MESSAGES_INVALID':
      return new HttpError(400, 'invalid_request_error', error.message, { code, cause: error })
    case 'MESSAGE_TOO_LARGE':
      return new HttpError(413, 'invalid_request_error', error.message, { code, cause: error })
    // The model's own: asking again gives the same.
    case 'NON_FINITE_LOGITS':
      return new HttpError(500, 'server_error', error.message, { code, cause: error })
    case 'TIMEOUT':
      return new HttpError(504, 'timeout', error.message, { code, cause: error })
    default:
      return new HttpError(503, 'server_error', error.message, { code, retryAfter: 1, cause: error })
  }
}
