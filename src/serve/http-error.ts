// Errors as OpenAI's clients expect them: { error: { message, type, param, code } } under an HTTP status.
import { OptionError, OverloadedError, TetradError } from '../errors.js'
import { inServerTerms } from './client-terms.js'

export interface HttpErrorDetails {
  /** The field of the body that is wrong. */
  readonly param?: string
  readonly code?: string
  readonly retryAfterMs?: number
  readonly cause?: unknown
}

export class HttpError extends Error {
  override readonly name = 'HttpError'
  readonly status: number
  readonly type: string
  readonly param: string | null
  readonly code: string | null
  /** Milliseconds after which the request may be sent again. */
  readonly retryAfterMs: number | undefined

  constructor(status: number, type: string, message: string, details: HttpErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.status = status
    this.type = type
    this.param = details.param ?? null
    this.code = details.code ?? null
    this.retryAfterMs = details.retryAfterMs
  }

  get body(): object {
    const { message, type, param, code } = this
    return { error: { message, type, param, code } }
  }

  /** Whole seconds for every client, and milliseconds, which OpenAI's and Vercel's clients prefer. */
  get headers(): Record<string, string> {
    const ms = this.retryAfterMs
    return ms === undefined ? {} : { 'retry-after': String(Math.max(1, Math.ceil(ms / 1000))), 'retry-after-ms': String(ms) }
  }
}

export function badRequest(message: string, param?: string, code?: string): HttpError {
  return new HttpError(400, 'invalid_request_error', message, { ...(param !== undefined && { param }), ...(code !== undefined && { code }) })
}

/** Messages for errors of the framework, whose own texts and codes (fst_err_...) mean nothing to a client. */
const FRAMEWORK_ERRORS: Readonly<Record<string, readonly [code: string, message: string]>> = {
  FST_ERR_CTP_INVALID_JSON_BODY: ['invalid_json', 'The body is not valid JSON.'],
  FST_ERR_CTP_EMPTY_JSON_BODY: ['invalid_json', 'The body is empty. Send a JSON object.'],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: [
    'unsupported_media_type',
    'The content type is not supported. Send JSON with the header content-type: application/json.',
  ],
  FST_ERR_CTP_BODY_TOO_LARGE: ['request_too_large', 'The body is larger than the server accepts.'],
}

/** What the engine or the framework threw, as the client is told. An error that nobody foresaw is a 500 without details. */
export function httpError(error: unknown): HttpError {
  if (error instanceof HttpError) return error
  if (error instanceof OverloadedError) return overloaded(error, error.retryAfterMs)
  if (error instanceof TetradError) return ofEngine(error)
  const { statusCode, code, message } = error as { statusCode?: number; code?: string; message?: string }
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    const [known, text] = FRAMEWORK_ERRORS[code ?? ''] ?? [code?.toLowerCase(), message]
    return new HttpError(statusCode, 'invalid_request_error', text ?? 'The request is invalid.', known === undefined ? {} : { code: known })
  }
  return new HttpError(500, 'server_error', 'The server failed. Its log has the reason.', { cause: error })
}

/** The queue is full. */
export function overloaded(error: OverloadedError, retryAfterMs: number): HttpError {
  const message = `The queue is full${error.expected ? ` (${error.expected})` : ''}. Send the request again in about ${retryAfterMs} ms.`
  return new HttpError(429, 'overloaded', message, { code: 'overloaded', retryAfterMs, cause: error })
}

function ofEngine(error: TetradError): HttpError {
  const code = error.code.toLowerCase()
  const message = inServerTerms(error.message)
  switch (error.code) {
    case 'PROMPT_TOO_LONG':
      return new HttpError(400, 'invalid_request_error', message, { param: 'prompt', code: 'context_length_exceeded', cause: error })
    case 'PROMPT_EMPTY':
    case 'TOKEN_INVALID':
    case 'TOKENIZER_MISSING':
      return new HttpError(400, 'invalid_request_error', message, { param: 'prompt', code, cause: error })
    case 'OPTION_INVALID':
    case 'OPTION_UNKNOWN': {
      const param = error instanceof OptionError ? error.option : undefined
      return new HttpError(400, 'invalid_request_error', message, { ...(param !== undefined && { param }), code, cause: error })
    }
    case 'ADAPTER_NOT_FOUND':
      return new HttpError(404, 'invalid_request_error', message, { param: 'lora', code, cause: error })
    case 'ADAPTER_UNSUPPORTED':
      return new HttpError(400, 'invalid_request_error', message, { param: 'lora', code, cause: error })
    case 'REQUEST_TOO_LARGE':
      return new HttpError(400, 'invalid_request_error', message, { param: 'n', code, cause: error })
    case 'TEMPLATE_FAILED':
    case 'MESSAGES_INVALID':
      return new HttpError(400, 'invalid_request_error', message, { param: 'messages', code, cause: error })
    case 'CONSTRAINT_FAILED':
      return new HttpError(400, 'invalid_request_error', message, { code, cause: error })
    case 'MESSAGE_TOO_LARGE':
      return new HttpError(413, 'invalid_request_error', message, { code, cause: error })
    // A fault of the model: sending the request again gives the same error.
    case 'NON_FINITE_LOGITS':
      return new HttpError(500, 'server_error', message, { code, cause: error })
    case 'TIMEOUT':
      return new HttpError(504, 'timeout', message, { code, cause: error })
    default:
      return new HttpError(503, 'server_error', message, { code, retryAfterMs: 1000, cause: error })
  }
}
