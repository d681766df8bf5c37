// A replica in the NATS cluster as a frontend sees it: its load, its requests, and whether it is alive.
import { ServiceError } from '@nats-io/services'
import { type Msg, NoRespondersError, TimeoutError } from '@nats-io/transport-node'
import type { EngineStats } from '../../engine/engine-info.js'
import type { GenerationControl } from '../../engine/generation.js'
import type { Prompt } from '../../engine/prompts.js'
import { ClusterError } from '../../errors.js'
import type { GenerateManyParams } from '../../options/public-types.js'
import type { ReplicaHandle, RequestHandlers } from '../replicas/replicated-request.js'
import { type NatsLink, serviceError } from './connection.js'
import type { Inbox } from './inbox.js'
import { IncomingStream } from './incoming-stream.js'
import { checked, decode, encode, type Load, SERVICE, subjects, tooLarge } from './messages.js'

/** How often statistics are asked for, which are the sign of life, and how long an answer is waited for. */
const BEAT_MS = 250
const BEAT_TIMEOUT_MS = 2000
/** Statistics requests that may be unanswered at once: one that reaches a replica just before its end gets no answer. */
const MAX_BEATS = 8
/** A replica is dead if it was silent for this time while the frontend was connected. */
export const SILENCE_MS = 10_000
/** If the NATS server knows no such replica, it is asked again after this time. */
const ASK_AGAIN_MS = 50
/** After a restart of the NATS server replicas have this time to reconnect. */
const REJOIN_MS = 5000
/** Time in which a replica must accept a request. */
const ACCEPT_MS = 5000
/** Pause before a refused request looks for a replica again. */
const RETRY_REFUSED_MS = 100

export class NatsReplica implements ReplicaHandle {
  readonly id: string
  readonly group: string
  readonly #link: NatsLink
  readonly #inbox: Inbox
  readonly #onEnd: (reason: string) => void
  readonly #log: (text: string) => void
  readonly #running = new Map<string, IncomingStream>()
  /** Subject where the replica reports which requests it has forgotten. */
  readonly #answers: string
  readonly #timer: NodeJS.Timeout
  #beats = 0
  #heardAt = performance.now()
  /** How often in a row it was not reachable. */
  #unreachable = 0
  #ended = false
  /** Its last statistics. */
  #load: Load | undefined
  /** The last problem with its statistics, so that each is logged once. */
  #problem = ''

  constructor(
    link: NatsLink,
    inbox: Inbox,
    id: { readonly group: string; readonly instance: string },
    onEnd: (reason: string) => void,
    log: (text: string) => void,
  ) {
    this.#link = link
    this.#inbox = inbox
    this.group = id.group
    this.id = id.instance
    this.#onEnd = onEnd
    this.#log = log
    this.#answers = inbox.open(id.instance, (bytes) => this.#forgotten(bytes))
    this.#timer = setInterval(() => this.#tick(), BEAT_MS)
    this.#tick()
  }

  get acceptsRequests(): boolean {
    return !this.#ended && this.#load !== undefined && !this.draining && this.#unreachable === 0
  }

  /** It finishes what it has, and takes nothing new. */
  get draining(): boolean {
    return this.#load?.draining ?? false
  }

  /** Requests there, those of other frontends included. What was sent after its last statistics is known only here. */
  get load(): number {
    const { running = 0, queued = 0 } = this.#load?.stats ?? {}
    return Math.max(this.#running.size, running + queued)
  }

  get stats(): EngineStats | undefined {
    return this.#load?.stats
  }

  run(prompts: readonly Prompt[], params: GenerateManyParams, handlers: RequestHandlers): GenerationControl {
    const stream = new IncomingStream(handlers, () => this.#report([stream]))
    this.#running.set(stream.id, stream)
    const inbox = this.#inbox.open(stream.id, (bytes) => this.#frame(stream, bytes))
    const payload = encode('run', { id: stream.id, inbox, prompts, params })
    if (payload.length > this.#link.maxPayload) {
      this.#withdraw(stream)
      handlers.onError(tooLarge('the request', payload.length, this.#link.maxPayload))
    } else {
      void this.#submit(stream, payload)
    }
    return {
      abort: () => {
        stream.aborted = true
        // The last frame is awaited, whether somebody reads or not.
        stream.paused = false
        this.#report([stream])
      },
      pause: (paused) => {
        stream.paused = paused && !stream.aborted
        if (!paused) this.#report([stream])
      },
    }
  }

  /** Gives the replica up: its requests are lost, and run elsewhere. */
  end(reason: string): void {
    if (this.#ended) return
    this.#ended = true
    clearInterval(this.#timer)
    this.#inbox.close(this.id)
    this.#onEnd(reason)
    for (const stream of [...this.#running.values()]) {
      this.#withdraw(stream)
      stream.handlers.onLost()
    }
  }

  async #submit(stream: IncomingStream, payload: Uint8Array): Promise<void> {
    try {
      const answer = await this.#link.nc.request(subjects.runAt(this.group, this.id), payload, { timeout: ACCEPT_MS })
      const refusal = serviceError(answer)
      if (refusal) throw refusal
      decode('accepted', answer.data)
      stream.accepted = true
    } catch (error) {
      // It ended meanwhile; or the answer was lost, and the frames show that it runs.
      if (!this.#running.has(stream.id) || stream.begun) return
      if (error instanceof ServiceError && error.code === 400) {
        this.#withdraw(stream)
        stream.handlers.onError(new Error(`the replica refused the message: ${error.message}`))
        return
      }
      if (error instanceof ServiceError && error.code === 503 && this.#load) this.#load = { ...this.#load, draining: true }
      // A replica that is late is busy, not dead: others are asked until its next statistics arrive.
      else this.#unreachable++
      // It may have begun all the same.
      stream.aborted = true
      this.#report([stream])
      this.#withdraw(stream)
      setTimeout(() => stream.handlers.onRefused(), RETRY_REFUSED_MS)
    }
  }

  #frame(stream: IncomingStream, bytes: Uint8Array): void {
    this.#heardAt = performance.now()
    try {
      if (stream.take(decode('frame', bytes))) {
        this.#report([stream])
        this.#withdraw(stream)
      }
    } catch {
      // Not sent by a replica: ignored.
    }
  }

  /** Requests that the replica gave up while the connection was away are lost. */
  #forgotten(bytes: Uint8Array): void {
    try {
      for (const id of decode('forgotten', bytes).ids) {
        const stream = this.#running.get(id)
        // A request that was just sent may not have arrived yet.
        if (!stream || !(stream.accepted || stream.begun)) continue
        this.#withdraw(stream)
        stream.handlers.onLost()
      }
    } catch {
      // Not sent by a replica: ignored.
    }
  }

  /** Sent again at every tick, since a message may be lost. */
  #report(streams: Iterable<IncomingStream>): void {
    const list = [...streams]
    if (list.length === 0) return
    const requests = list.map((stream) => stream.entry())
    const aborts = list.filter(({ aborted }) => aborted).map(({ id }) => id)
    this.#link.publish(subjects.control(this.id), encode('control', { requests, aborts }), this.#answers)
  }

  #withdraw({ id }: IncomingStream): void {
    this.#running.delete(id)
    this.#inbox.close(id)
  }

  #tick(): void {
    if (this.#ended) return
    const { connected, sinceMs } = this.#link
    if (connected) {
      this.#report(this.#running.values())
      if (this.#beats < MAX_BEATS) void this.#beat()
      if (performance.now() - this.#heardAt > SILENCE_MS && sinceMs > SILENCE_MS) this.end(`it was silent for ${SILENCE_MS / 1000} s`)
    } else if (sinceMs > this.#link.deadlineMs) {
      for (const stream of [...this.#running.values()]) {
        this.#withdraw(stream)
        stream.handlers.onError(disconnected(this.#link))
      }
    }
  }

  async #beat(): Promise<void> {
    this.#beats++
    try {
      const answer = await this.#link.nc.request(`$SRV.STATS.${SERVICE}.${this.id}`, undefined, { timeout: BEAT_TIMEOUT_MS })
      // It answered, whatever it says.
      this.#heardAt = performance.now()
      this.#load = loadOf(answer)
      this.#unreachable = 0
      this.#problem = ''
    } catch (error) {
      if (error instanceof TimeoutError) return
      if (isUnknown(error)) this.#missing()
      else this.#complain(error)
    } finally {
      this.#beats--
    }
  }

  /** The NATS server knows no such replica. */
  #missing(): void {
    if (++this.#unreachable === 1) setTimeout(() => this.#tick(), ASK_AGAIN_MS)
    else if (this.#link.connected && this.#link.sinceMs > REJOIN_MS) this.end('it left the cluster')
  }

  /** Statistics that cannot be read would otherwise keep a replica unused without a word. */
  #complain(error: unknown): void {
    const message = error instanceof Error ? error.message : String(error)
    if (this.#ended || message === this.#problem) return
    this.#problem = message
    this.#log(`replica ${this.id}: its statistics cannot be used: ${message}`)
  }
}

function loadOf(message: Msg): Load {
  const { endpoints } = message.json() as { endpoints?: readonly { name?: string; data?: unknown }[] }
  return checked('load', endpoints?.find(({ name }) => name === 'run-here')?.data)
}

/** The NATS server reports that nobody listens there. */
function isUnknown(error: unknown): boolean {
  return error instanceof NoRespondersError || (error instanceof Error && error.cause instanceof NoRespondersError)
}

export function disconnected({ deadlineMs }: NatsLink): ClusterError {
  return new ClusterError('NATS_LOST', {
    what: 'the connection to NATS is lost',
    expected: `a connection again within ${deadlineMs / 1000} s`,
    remedy: 'Send the request again when the NATS servers are back.',
  })
}
