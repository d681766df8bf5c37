// Who may call the server: checks the Host header, the Origin header and the API key, and answers CORS preflights.
// The Host check stops DNS rebinding: a page of another site that makes its own name resolve to this machine.
import { createHash, timingSafeEqual } from 'node:crypto'
import { isIP } from 'node:net'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { HttpError } from './http-error.js'

export interface GuardOptions {
  readonly apiKey: string | undefined
  /** Host names (lower case, without port) that are allowed besides IP addresses. undefined: any name. */
  readonly hosts: ReadonlySet<string> | undefined
  /** Origins of pages that may call, besides the server's own. '*': any origin. */
  readonly origins: ReadonlySet<string>
}

/** Paths without an API key: they only say that the server is there. The page asks for the key itself. */
const PUBLIC_PATHS = new Set(['/health', '/ready', '/', '/page/app.js', '/page/style.css'])
/** Response headers that a page of another origin may read. */
const EXPOSED_HEADERS = 'retry-after, retry-after-ms'
/** Browsers repeat a preflight after this many seconds. Chromium caps it at two hours. */
const PREFLIGHT_SECONDS = 7200

const digest = (text: string) => createHash('sha256').update(text).digest()

/** Throws HttpError 401 or 403. Resolves to true if it has answered the request itself (a preflight). */
export function guard({ apiKey, hosts, origins }: GuardOptions): (request: FastifyRequest, reply: FastifyReply) => boolean {
  const expected = apiKey === undefined ? undefined : digest(apiKey)
  return (request, reply) => {
    const host = request.headers.host ?? ''
    checkHost(host, hosts)
    if (allowOrigin(request, reply, host, origins)) return true
    const path = request.url.split('?')[0] as string
    if (expected && !PUBLIC_PATHS.has(path)) checkKey(request.headers, expected)
    return false
  }
}

function checkHost(host: string, hosts: ReadonlySet<string> | undefined): void {
  const name = host.replace(/:\d+$/, '').toLowerCase()
  // An IP address cannot be made to resolve to another machine.
  if (!hosts || hosts.has(name) || isIP(name.replace(/^\[(.*)\]$/, '$1')) !== 0) return
  const shown = host.slice(0, 200)
  throw new HttpError(403, 'invalid_request_error', `Host ${JSON.stringify(shown)} is not allowed. Start the server with --allow-host ${shown}.`, {
    code: 'host_not_allowed',
  })
}

/** Sets the CORS headers for an allowed origin. Returns true after it has answered a preflight, which carries no API key. */
function allowOrigin(request: FastifyRequest, reply: FastifyReply, host: string, origins: ReadonlySet<string>): boolean {
  const { origin } = request.headers
  if (origins.size > 0) reply.header('vary', 'Origin')
  if (origin === undefined || origin === `http://${host}` || origin === `https://${host}`) return false
  if (!origins.has(origin) && !origins.has('*')) {
    const shown = origin.slice(0, 200)
    throw new HttpError(
      403,
      'invalid_request_error',
      `Origin ${JSON.stringify(shown)} is not allowed. Start the server with --allow-origin ${shown}.`,
      {
        code: 'origin_not_allowed',
      },
    )
  }
  reply.header('access-control-allow-origin', origin).header('access-control-expose-headers', EXPOSED_HEADERS)
  if (request.method !== 'OPTIONS' || request.headers['access-control-request-method'] === undefined) return false
  const wanted = request.headers['access-control-request-headers']
  reply
    .header('access-control-allow-methods', 'GET, POST, OPTIONS')
    // Clients send headers of their own (x-stainless-*), so every header that the browser names is allowed.
    .header('access-control-allow-headers', wanted ?? 'authorization, content-type')
    .header('access-control-max-age', String(PREFLIGHT_SECONDS))
  if (request.headers['access-control-request-private-network'] === 'true') reply.header('access-control-allow-private-network', 'true')
  void reply.status(204).send()
  return true
}

function checkKey(headers: FastifyRequest['headers'], expected: Buffer): void {
  // The scheme is case-insensitive (RFC 9110, 11.1). Anthropic's clients send a header of their own.
  const own = headers['x-api-key']
  const key = /^Bearer +(.+)$/i.exec(headers.authorization ?? '')?.[1] ?? (typeof own === 'string' ? own : undefined)
  // Digests have one length, so the comparison takes the same time for every key.
  if (key !== undefined && timingSafeEqual(digest(key), expected)) return
  throw new HttpError(401, 'authentication_error', 'The API key is missing or wrong. Send the header Authorization: Bearer KEY.', {
    code: 'invalid_api_key',
  })
}
