// Who may ask: the API key, the Host header (a page of another site that resolves its name to this machine is refused), the Origin.
import { createHash, timingSafeEqual } from 'node:crypto'
import { isIP } from 'node:net'
import type { FastifyRequest } from 'fastify'
import { HttpError } from './http-error.js'

export interface GuardOptions {
  readonly apiKey: string | undefined
  /** Names under which the server may be asked for, besides addresses, without port; undefined: any. */
  readonly hosts: ReadonlySet<string> | undefined
  /** Origins of pages that may ask, besides the server's own. */
  readonly origins: ReadonlySet<string>
}

/** Paths that say no more than that the server is there, and the page, which asks for the key itself. */
const OPEN = new Set(['/health', '/ready', '/', '/page/app.js', '/page/style.css'])

const digest = (text: string) => createHash('sha256').update(text).digest()

/** Throws HttpError 401 or 403. */
export function guard({ apiKey, hosts, origins }: GuardOptions): (request: FastifyRequest) => void {
  const expected = apiKey === undefined ? undefined : digest(apiKey)
  return (request) => {
    const host = request.headers.host ?? ''
    const name = host.replace(/:\d+$/, '').toLowerCase()
    // Nobody can make an address stand for another machine.
    if (hosts && !hosts.has(name) && isIP(name.replace(/^\[(.*)\]$/, '$1')) === 0) {
      throw new HttpError(
        403,
        'invalid_request_error',
        `This server is not asked for as ${JSON.stringify(host.slice(0, 200))}; allow it with --allow-host.`,
        { code: 'host_not_allowed' },
      )
    }
    const { origin } = request.headers
    if (origin !== undefined && origin !== `http://${host}` && origin !== `https://${host}` && !origins.has(origin)) {
      throw new HttpError(
        403,
        'invalid_request_error',
        `Pages of ${JSON.stringify(origin.slice(0, 200))} may not ask this server; allow it with --allow-origin.`,
        { code: 'origin_not_allowed' },
      )
    }
    const path = request.url.split('?')[0] as string
    if (!expected || OPEN.has(path)) return
    const given = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1]
    // Digests have one length, and comparing them takes one time.
    if (given === undefined || !timingSafeEqual(digest(given), expected)) {
      throw new HttpError(401, 'authentication_error', 'The API key is missing or wrong: send it as Authorization: Bearer KEY.', {
        code: 'invalid_api_key',
      })
    }
  }
}
