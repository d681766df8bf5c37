// The HTTP server over engines: OpenAI's endpoints, health, metrics. It owns neither the engines nor the process.
import fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import { adapterModels, addAdapters } from './adapters.js'
import type { AnswerSettings } from './answer.js'
import { anthropicError } from './anthropic/message-writer.js'
import { addMessages } from './anthropic/messages.js'
import { addCompletions, modelOf } from './completions.js'
import { guard } from './guard.js'
import { dropLargeBodies, endUnusedConnections } from './http-connections.js'
import { HttpError, httpError } from './http-error.js'
import { addLivePage } from './live.js'
import { ServerMetrics } from './metrics.js'
import { withoutNeutralFields } from './neutral-fields.js'
import { withoutNulls } from './request-schema.js'
import { addResponses } from './responses/responses.js'
import type { ServedModel } from './served-model.js'
import { ServiceTimes } from './service-times.js'
import { addTokenize } from './tokenize.js'
import { validationError } from './validation-error.js'

export interface ServerOptions {
  /** Clients must send it as Authorization: Bearer KEY. Default: no key. */
  readonly apiKey?: string | undefined
  /** Host names, without port, that are allowed besides IP addresses. Default: localhost. An empty list allows any name. */
  readonly hosts?: readonly string[] | undefined
  /** Origins of pages that may call the server, besides its own; '*' for any. Default: none. */
  readonly origins?: readonly string[]
  /** Maximum size of a body, bytes. Default 8 MiB. */
  readonly bodyLimit?: number
  /** Milliseconds in which a request must have arrived, else 408. Default 30000. */
  readonly arrivalTimeoutMs?: number
  /** Milliseconds from a request to the end of its answer, else 504. Default: no limit. */
  readonly requestTimeoutMs?: number | undefined
  /** Milliseconds after which a stream is cut whose client reads nothing of what was sent. Default 60000. */
  readonly stalledMs?: number
  /** Milliseconds without an event after which a stream gets a comment line; 0: never. Default 15000. */
  readonly commentMs?: number
  /** Milliseconds that an idle connection is kept open. Default 75000: longer than most load balancers keep theirs. */
  readonly keepAliveTimeoutMs?: number
  /** Clients may load adapters from directories of this machine, and unload them. Default: false. */
  readonly adapterUpdates?: boolean
  /** Fastify's logger (pino). Default: none. */
  readonly logger?: FastifyServerOptions['logger']
}

export interface TetradServer {
  readonly app: FastifyInstance
  /** From now on /ready answers 503 and new requests are refused; running requests go on. */
  drain(): void
}

/** Those whose fields that ask for nothing are known by one list. */
const ENDPOINTS: Readonly<Record<string, 'completions' | 'chat'>> = { '/v1/completions': 'completions', '/v1/chat/completions': 'chat' }

/** models: may change while the server runs. */
export function createServer(models: ReadonlyMap<string, ServedModel>, options: ServerOptions = {}): TetradServer {
  const { bodyLimit = 8 << 20, arrivalTimeoutMs = 30_000, keepAliveTimeoutMs = 75_000 } = options
  const app = fastify({
    logger: options.logger ?? false,
    bodyLimit,
    requestTimeout: arrivalTimeoutMs,
    keepAliveTimeout: keepAliveTimeoutMs,
    http: { maxHeaderSize: 16_384, headersTimeout: arrivalTimeoutMs },
    // Unknown fields are refused, not dropped; types are not converted.
    ajv: { customOptions: { removeAdditional: false, coerceTypes: false, useDefaults: false, allErrors: false, allowUnionTypes: true } },
    forceCloseConnections: 'idle',
    return503OnClosing: true,
  })
  // Only JSON: a page of another site can send plain text without a preflight.
  app.removeContentTypeParser('text/plain')
  const metrics = new ServerMetrics(models)
  let draining = false
  addChecks(app, options, () => draining)
  endUnusedConnections(app)
  dropLargeBodies(app, 4 * bodyLimit)
  addErrorHandlers(app)
  const times = new WeakMap<ServedModel['engine'], ServiceTimes>()
  const answers: AnswerSettings = {
    metrics,
    serviceTimes: ({ engine }) => {
      const known = times.get(engine) ?? new ServiceTimes()
      times.set(engine, known)
      return known
    },
    stalledMs: options.stalledMs ?? 60_000,
    commentMs: options.commentMs ?? 15_000,
    requestTimeoutMs: options.requestTimeoutMs,
  }
  addCompletions(app, models, answers)
  addResponses(app, models, answers)
  addMessages(app, models, answers)
  addTokenize(app, models)
  addAdapters(app, models, options.adapterUpdates ?? false)
  addLivePage(app, models)
  app.get('/v1/models', async () => ({ object: 'list', data: [...models.values(), ...adapterModels(models)].map(describe) }))
  // A wildcard: names may have slashes, sent as they are or as %2F.
  app.get<{ Params: { '*': string } }>('/v1/models/*', async ({ params }) => describe(modelOf(models, params['*'])))
  addHealth(app, models, () => draining)
  app.get('/metrics', async (_request, reply) => reply.header('content-type', metrics.contentType).send(await metrics.text()))
  return {
    app,
    drain: () => {
      draining = true
    },
  }
}

function addChecks(app: FastifyInstance, { apiKey, hosts = ['localhost'], origins }: ServerOptions, isDraining: () => boolean): void {
  const check = guard({
    apiKey,
    hosts: hosts.length === 0 ? undefined : new Set(hosts.map((host) => host.toLowerCase())),
    origins: new Set(origins),
  })
  app.addHook('onRequest', async (request, reply) => {
    if (check(request, reply)) return reply
    if (isDraining() && request.method === 'POST')
      throw new HttpError(503, 'server_error', 'The server is shutting down.', { code: 'shutting_down', retryAfterMs: 1000 })
  })
  app.addHook('preClose', async () => {
    // Connections whose answer ends from now on close at once: the server waits for them.
    app.server.keepAliveTimeout = 1
  })
  app.addHook('preValidation', async (request) => {
    const endpoint = ENDPOINTS[request.routeOptions.url ?? '']
    const body = withoutNulls(request.body)
    request.body = endpoint ? withoutNeutralFields(endpoint, body) : body
  })
  app.addHook('onSend', async (_request, reply) => {
    // An open connection would delay the shutdown.
    if (isDraining()) reply.header('connection', 'close')
  })
}

function addErrorHandlers(app: FastifyInstance): void {
  app.setErrorHandler((error, request, reply) => {
    const known = validationError(error, request.body) ?? httpError(error)
    if (known.status >= 500) request.log.error({ err: known.cause ?? known }, 'request failed')
    else request.log.info({ status: known.status, code: known.code }, 'request refused')
    const body = request.url.startsWith('/v1/messages') ? anthropicError(known) : known.body
    void reply.status(known.status).headers(known.headers).send(body)
  })
  app.setNotFoundHandler((request, reply) => {
    const message = `There is no ${request.method} ${request.url.split('?')[0]?.slice(0, 200)} here.`
    void reply.status(404).send(new HttpError(404, 'invalid_request_error', message, { code: 'not_found' }).body)
  })
}

/**
 * /health: 503 once an engine has failed for good, so that whoever supervises the process restarts it.
 * /ready: 503 then, and while draining or while no model can answer, so that load balancers send requests elsewhere.
 */
function addHealth(app: FastifyInstance, models: ReadonlyMap<string, ServedModel>, isDraining: () => boolean): void {
  const failed = () => [...models.values()].filter(({ engine }) => engine.failure !== undefined).map(({ id }) => id)
  app.get('/health', async (_request, reply) => {
    const broken = failed()
    return broken.length > 0 ? reply.status(503).send({ status: 'failed', models: broken }) : { status: 'ok' }
  })
  app.get('/ready', async (_request, reply) => {
    const broken = failed()
    if (broken.length > 0) return reply.status(503).send({ status: 'failed', models: broken })
    if (isDraining()) return reply.status(503).send({ status: 'draining' })
    const available = [...models.values()].filter(({ engine }) => engine.available !== false).map(({ id }) => id)
    return available.length > 0 ? { status: 'ready', models: available } : reply.status(503).send({ status: 'no models' })
  })
}

function describe({ id, created, engine, parent }: ServedModel): object {
  const { contextTokens, determinismKey, determinismDigest, variant, ranks, backend } = engine.info
  return {
    id,
    object: 'model',
    created,
    ...(parent !== undefined && { root: parent, parent }),
    owned_by: 'tetrad',
    max_model_len: contextTokens,
    variant,
    ranks,
    backend,
    determinism_key: determinismKey,
    determinism_digest: determinismDigest,
  }
}
