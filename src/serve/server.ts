// The HTTP server over engines: OpenAI's endpoints, health, metrics. It owns neither the engines nor the process.
import fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import { addCompletions, modelOf, type ServedModel } from './completions.js'
import { guard } from './guard.js'
import { badRequest, HttpError, httpError } from './http-error.js'
import { addLivePage } from './live.js'
import { ServerMetrics } from './metrics.js'
import { withoutNulls } from './request-schema.js'

export interface ServerOptions {
  /** Asked for as Authorization: Bearer KEY. Default: none. */
  readonly apiKey?: string | undefined
  /** Names under which the server may be asked for, besides addresses, without port. Default: localhost; none: any name. */
  readonly hosts?: readonly string[] | undefined
  /** Origins of pages that may ask, besides its own. Default: none. */
  readonly origins?: readonly string[]
  /** Most bytes of a body. Default 8 MiB. */
  readonly bodyLimit?: number
  /** Milliseconds in which a request must have arrived. Default 30000. */
  readonly requestTimeoutMs?: number
  /** Milliseconds that a request may take from its arrival to the end of its answer; then it gets 504. Default: no limit. */
  readonly timeoutMs?: number | undefined
  /** Milliseconds after which a stream whose client reads nothing is cut. Default 60000. */
  readonly stalledMs?: number
  /** Fastify's logger (pino). Default: none. */
  readonly logger?: FastifyServerOptions['logger']
}

const LOOPBACK = ['localhost']

export interface TetradServer {
  readonly app: FastifyInstance
  /** /ready says 503 from now on, and new requests are refused; those that run go on. */
  drain(): void
}

/** models: may change while the server runs. */
export function createServer(models: ReadonlyMap<string, ServedModel>, options: ServerOptions = {}): TetradServer {
  const { bodyLimit = 8 << 20, requestTimeoutMs = 30_000, stalledMs = 60_000 } = options
  const app = fastify({
    logger: options.logger ?? false,
    bodyLimit,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: 5_000,
    http: { maxHeaderSize: 16_384, headersTimeout: requestTimeoutMs },
    // Names are checked, not dropped; types are not guessed.
    ajv: { customOptions: { removeAdditional: false, coerceTypes: false, useDefaults: false, allErrors: false, allowUnionTypes: true } },
    forceCloseConnections: 'idle',
    return503OnClosing: true,
  })
  // JSON or nothing: a page of another site could send plain text without being asked.
  app.removeContentTypeParser('text/plain')
  const metrics = new ServerMetrics(models)
  const check = guard({
    apiKey: options.apiKey,
    hosts: options.hosts?.length === 0 ? undefined : new Set((options.hosts ?? LOOPBACK).map((h) => h.toLowerCase())),
    origins: new Set(options.origins),
  })
  let draining = false
  app.addHook('onRequest', async (request) => {
    check(request)
    if (draining && request.method === 'POST')
      throw new HttpError(503, 'server_error', 'The server is shutting down.', { code: 'shutting_down', retryAfter: 1 })
  })
  app.addHook('preValidation', async (request) => {
    request.body = withoutNulls(request.body)
  })
  app.addHook('onSend', async (_request, reply) => {
    // A connection that is kept would hold up the end.
    if (draining) reply.header('connection', 'close')
  })
  app.setErrorHandler((error, request, reply) => {
    const known = validationError(error) ?? httpError(error)
    if (known.status >= 500) request.log.error({ err: known.cause ?? known }, 'request failed')
    else request.log.info({ status: known.status, code: known.code }, 'request refused')
    if (known.retryAfter !== undefined) reply.header('retry-after', String(known.retryAfter))
    void reply.status(known.status).send(known.body)
  })
  app.setNotFoundHandler((request, reply) => {
    const error = new HttpError(404, 'invalid_request_error', `There is no ${request.method} ${request.url.split('?')[0]?.slice(0, 200)} here.`, {
      code: 'not_found',
    })
    void reply.status(404).send(error.body)
  })
  addCompletions(app, models, metrics, { stalledMs, timeoutMs: options.timeoutMs })
  addLivePage(app, models)
  app.get('/v1/models', async () => ({
    object: 'list',
    data: [...models.values()].map(describe),
  }))
  app.get<{ Params: { id: string } }>('/v1/models/:id', async ({ params }) => describe(modelOf(models, params.id)))
  app.get('/health', async () => ({ status: 'ok' }))
  app.get('/ready', async (_request, reply) => {
    if (draining) return reply.status(503).send({ status: 'draining' })
    if (models.size === 0) return reply.status(503).send({ status: 'no models' })
    return { status: 'ready', models: [...models.keys()] }
  })
  app.get('/metrics', async (_request, reply) => reply.header('content-type', metrics.contentType).send(await metrics.text()))
  return {
    app,
    drain: () => {
      draining = true
    },
  }
}

function describe({ id, created, engine }: ServedModel): object {
  const { contextTokens, determinismKey, variant, ranks, backend } = engine.info
  return { id, object: 'model', created, owned_by: 'tetrad', max_model_len: contextTokens, variant, ranks, backend, determinism_key: determinismKey }
}

interface Validation {
  readonly keyword: string
  readonly instancePath: string
  readonly params: Readonly<Record<string, unknown>>
  readonly message?: string
}

/** What the schema found, as the name of a field and what is wrong with it. */
function validationError(error: unknown): HttpError | undefined {
  const [first] = (error as { validation?: readonly Validation[] }).validation ?? []
  if (!first) return undefined
  const path = first.instancePath.slice(1).replaceAll('/', '.')
  if (first.keyword === 'additionalProperties') {
    const name = [path, String(first.params.additionalProperty)].filter(Boolean).join('.')
    return badRequest(`${name} is not supported.`, name, 'unsupported_parameter')
  }
  if (first.keyword === 'required') {
    const name = [path, String(first.params.missingProperty)].filter(Boolean).join('.')
    return badRequest(`${name} is missing.`, name, 'missing_required_parameter')
  }
  return badRequest(`${path === '' ? 'The body' : path} ${first.message ?? 'is wrong'}.`, path, 'invalid_value')
}
