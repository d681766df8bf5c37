// A connection to a NATS cluster that reconnects without limit, and knows since when it has been connected or not.
import { readFile } from 'node:fs/promises'
import { ServiceError, Svcm } from '@nats-io/services'
import { type ConnectionOptions, connect, credsAuthenticator, type Msg, type NatsConnection } from '@nats-io/transport-node'
import { ClusterError } from '../../errors.js'

export interface NatsOptions {
  /** nats://[user:password@ or token@]host[:4222], or tls:// for TLS. Several servers of one cluster are separated by commas. */
  readonly url: string
  /** Path of a credentials file (.creds: a JWT and the seed of its key). */
  readonly creds?: string | undefined
  /** Paths of the certificates of authorities, and of this client's own certificate and key. */
  readonly ca?: string | undefined
  readonly cert?: string | undefined
  readonly key?: string | undefined
  /** Milliseconds without a connection after which requests fail. Default 30000. */
  readonly deadlineMs?: number | undefined
}

const RECONNECT_WAIT_MS = 250
/** A cut link is noticed after two pings without an answer. */
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
    // The package brings its own copy of the core's types, which require the same of a connection.
    this.services = new Svcm(nc as unknown as ConstructorParameters<typeof Svcm>[0])
    this.#maxPayload = this.maxPayload
    void this.#follow(log)
  }

  /** Rejects with ClusterError NATS_UNREACHABLE. log: told when the connection is lost and restored. */
  static async open(options: NatsOptions, name: string, log: (text: string) => void): Promise<NatsLink> {
    try {
      return new NatsLink(await connect(await connectionOptions(options, name)), options.deadlineMs ?? DEADLINE_MS, log)
    } catch (cause) {
      const actual = cause instanceof Error ? cause.message : String(cause)
      throw new ClusterError('NATS_UNREACHABLE', {
        what: `no connection to the NATS server at ${withoutSecrets(options.url)}`,
        expected: 'a server that accepts this client',
        actual,
        remedy: 'Check the address, that nats-server runs there, and the credentials and certificates.',
        cause,
      })
    }
  }

  get connected(): boolean {
    return this.#connected && !this.nc.isClosed()
  }

  /** Milliseconds since it was connected, or disconnected, last. */
  get sinceMs(): number {
    return performance.now() - this.#since
  }

  /** Maximum size of a message that the server accepts, bytes. */
  get maxPayload(): number {
    // Unknown while the server is away: its last value then.
    this.#maxPayload = this.nc.info?.max_payload ?? this.#maxPayload
    return this.#maxPayload
  }

  /** Returns false without sending while the connection is down: the client library would queue without limit. */
  publish(subject: string, payload: Uint8Array, reply?: string): boolean {
    if (!this.connected || this.nc.isDraining()) return false
    this.nc.publish(subject, payload, reply === undefined ? {} : { reply })
    return true
  }

  /** Sends what is queued, and closes. */
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
          log(`lost the connection to NATS (${status.server})`)
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
    throw new Error('its servers have different users, but a client can have only one')
  const unknown = addresses.find(({ protocol }) => protocol !== 'nats:' && protocol !== 'tls:')
  if (unknown) throw new Error(`${unknown.protocol}// is neither nats:// nor tls://`)
  const tls = addresses.some(({ protocol }) => protocol === 'tls:') || ca !== undefined || cert !== undefined || key !== undefined
  const user = decodeURIComponent(username)
  return {
    servers: addresses.map(({ host }) => host),
    name,
    maxReconnectAttempts: -1,
    // A server may refuse for a while, for example while its accounts are changed.
    ignoreAuthErrorAbort: true,
    reconnectTimeWait: RECONNECT_WAIT_MS,
    pingInterval: PING_MS,
    timeout: CONNECT_MS,
    ...(user !== '' && (password === '' ? { token: user } : { user, pass: decodeURIComponent(password) })),
    ...(creds !== undefined && { authenticator: credsAuthenticator(await readFile(creds)) }),
    ...(tls && { tls: { ...(ca && { caFile: ca }), ...(cert && { certFile: cert }), ...(key && { keyFile: key }) } }),
  }
}

/** The error that a service answered with; null if it answered with a result. */
export function serviceError(message: Msg): ServiceError | null {
  return ServiceError.toServiceError(message as unknown as Parameters<typeof ServiceError.toServiceError>[0])
}

/** An address without its user, password or token. */
function withoutSecrets(url: string): string {
  return url.replace(/(^|,|\/\/)[^@/,]*@/g, '$1')
}
