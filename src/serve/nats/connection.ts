// A connection to a NATS cluster that is kept: it reconnects for ever, and knows since when it is connected or not.
import { readFile } from 'node:fs/promises'
import { ServiceError, Svcm } from '@nats-io/services'
import { type ConnectionOptions, connect, credsAuthenticator, type Msg, type NatsConnection } from '@nats-io/transport-node'
import { ClusterError } from '../../errors.js'

export interface NatsOptions {
  /** nats://[user:password@ or token@]host[:4222], tls:// for TLS; several of one cluster with commas. */
  readonly url: string
  /** File of credentials (.creds: a JWT and the seed of its key). */
  readonly creds?: string | undefined
  /** Files: certificates of authorities, and this client's own certificate and key. */
  readonly ca?: string | undefined
  readonly cert?: string | undefined
  readonly key?: string | undefined
  /** Milliseconds without a connection after which requests fail. Default 30000. */
  readonly deadlineMs?: number | undefined
}

const RECONNECT_WAIT_MS = 250
/** A link that was cut is noticed after two pings without an answer. */
const PING_MS = 4000
const CONNECT_MS = 5000
const DEADLINE_MS = 30_000

export class NatsLink {
  readonly nc: NatsConnection
  readonly services: Svcm
  /** Milliseconds without a connection after which requests fail. */
  readonly deadlineMs: number
  #connected = true
  #since = performance.now()
  #maxPayload = 2 ** 20

  private constructor(nc: NatsConnection, deadlineMs: number, log: (text: string) => void) {
    this.nc = nc
    this.deadlineMs = deadlineMs
    // Its types are those of the core that it was built with, which asks the same of a connection.
    this.services = new Svcm(nc as unknown as ConstructorParameters<typeof Svcm>[0])
    this.#maxPayload = this.maxPayload
    void this.#follow(log)
  }

  /** Throws ClusterError NATS_UNREACHABLE. log: told of what happens to the connection. */
  static async open(options: NatsOptions, name: string, log: (text: string) => void): Promise<NatsLink> {
    try {
      return new NatsLink(await connect(await connectionOptions(options, name)), options.deadlineMs ?? DEADLINE_MS, log)
    } catch (cause) {
      const actual = cause instanceof Error ? cause.message : String(cause)
      throw new ClusterError('NATS_UNREACHABLE', {
        what: `no connection to the NATS server at ${withoutSecrets(options.url)}`,
        expected: 'a server that lets this client in',
        actual,
        remedy: 'Check the address, that nats-server runs there, and the credentials and certificates.',
        cause,
      })
    }
  }

  get connected(): boolean {
    return this.#connected && !this.nc.isClosed()
  }

  /** Milliseconds for which it has been connected, or not. */
  get sinceMs(): number {
    return performance.now() - this.#since
  }

  /** Most bytes of a message that the server takes. */
  get maxPayload(): number {
    // Unknown while it is away: what it said last.
    this.#maxPayload = this.nc.info?.max_payload ?? this.#maxPayload
    return this.#maxPayload
  }

  /** Not while the connection is down: the client would keep it all. false: it was not sent. */
  publish(subject: string, payload: Uint8Array, reply?: string): boolean {
    if (!this.connected || this.nc.isDraining()) return false
    this.nc.publish(subject, payload, reply === undefined ? {} : { reply })
    return true
  }

  /** Sends what is left to send, and closes. */
  async close(): Promise<void> {
    if (this.nc.isClosed()) return
    if (this.#connected) await this.nc.drain().catch(() => this.nc.close())
    else await this.nc.close()
  }

  async #follow(log: (text: string) => void): Promise<void> {
    for await (const status of this.nc.status()) {
      switch (status.type) {
        case 'disconnect':
          this.#change(false)
          log(`the connection to NATS (${status.server}) is lost`)
          break
        case 'reconnect':
          this.#change(true)
          log(`connected to NATS again (${status.server})`)
          break
        case 'error':
          log(`NATS: ${status.error.message}`)
      }
    }
    this.#change(false)
  }

  #change(connected: boolean): void {
    if (this.#connected !== connected) this.#since = performance.now()
    this.#connected = connected
  }
}

async function connectionOptions({ url, creds, ca, cert, key }: NatsOptions, name: string): Promise<ConnectionOptions> {
  const addresses = url.split(',').map((part) => new URL(part.includes('://') ? part : `nats://${part}`))
  const [{ username, password }] = addresses as [URL]
  if (addresses.some((other) => other.username !== '' && (other.username !== username || other.password !== password)))
    throw new Error('its servers have different users: a client has one for all of them')
  const unknown = addresses.find(({ protocol }) => protocol !== 'nats:' && protocol !== 'tls:')
  if (unknown) throw new Error(`${unknown.protocol}// is neither nats:// nor tls://`)
  const tls = addresses.some(({ protocol }) => protocol === 'tls:') || ca !== undefined || cert !== undefined || key !== undefined
  const user = decodeURIComponent(username)
  return {
    servers: addresses.map(({ host }) => host),
    name,
    maxReconnectAttempts: -1,
    // A server that refuses for a while (its accounts are being changed, say) is asked again.
    ignoreAuthErrorAbort: true,
    reconnectTimeWait: RECONNECT_WAIT_MS,
    pingInterval: PING_MS,
    timeout: CONNECT_MS,
    ...(user !== '' && (password === '' ? { token: user } : { user, pass: decodeURIComponent(password) })),
    ...(creds !== undefined && { authenticator: credsAuthenticator(await readFile(creds)) }),
    ...(tls && { tls: { ...(ca && { caFile: ca }), ...(cert && { certFile: cert }), ...(key && { keyFile: key }) } }),
  }
}

/** The error that a service answered with, if it did. */
export function serviceError(message: Msg): ServiceError | null {
  return ServiceError.toServiceError(message as unknown as Parameters<typeof ServiceError.toServiceError>[0])
}

/** An address without its user, password or token. */
function withoutSecrets(url: string): string {
  return url.replace(/(^|,|\/\/)[^@/,]*@/g, '$1')
}
