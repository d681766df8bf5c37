// A replica elsewhere in a NATS cluster, as a front has it: its load, its requests, and whether it is alive.

import { ServiceError } from '@nats-io/services'
import { type Msg, NoRespondersError, TimeoutError } from '@nats-io/transport-node'
import type { EngineStats } from '../../engine/engine-info.js'
import type { Completion, GenerationControl, TokenLogprobs } from '../../engine/generation.js'
import type { Prompt } from '../../engine/prompts.js'
import { ClusterError, EngineClosedError, RankError, ReplicaError } from '../../errors.js'
import type { GenerateManyParams } from '../../options/public-types.js'
import { unpackError } from '../replicas/protocol.js'
import type { Remote, RemoteReplica } from '../replicas/remote-request.js'
import { type NatsLink, serviceError } from './connection.js'
import { type ControlEntry, FrameReceiver, WINDOW } from './frames.js'
import type { Inbox } from './inbox.js'
import { type CompletionEnd, checked, decode, encode, type Frame, type Load, SERVICE, subjects, tooLarge } from './messages.js'

/** Statistics are asked for so often; they are the sign of life. */
const BEAT_MS = 250
const BEAT_TIMEOUT_MS = 2000
/** Questions without an answer yet: one that came to a replica just before its end gets none. */
const MOST_BEATS = 8
/** Without an answer for so long, while the front is connected, a replica is dead. */
export const SILENCE_MS = 10_000
/** The server knows of no such replica: dead, if it says so again after so long, and the replica had so long to reconnect after a restart. */
const ASK_AGAIN_MS = 50
const REJOIN_MS = 5000
const ACCEPT_MS = 5000
/** Before a request that was refused looks for a replica again. */
const AGAIN_MS = 100

export class NatsReplica implements RemoteReplica {
  readonly id: string
  readonly group: string
  readonly #link: NatsLink
  readonly #inbox: Inbox
  readonly #onEnd: (replica: NatsReplica, reason: string) => void
  readonly #running = new Map<string, Incoming>()
  /** Where the replica says what it has forgotten. */
  readonly #answers: string
  readonly #timer: NodeJS.Timeout
  #beats = 0
  #heard = performance.now()
  #unknown = 0
  #ended = false
  /** As its statistics said last. */
  #load: Load | undefined

  constructor(link: NatsLink, inbox: Inbox, group: string, instance: string, onEnd: (replica: NatsReplica, reason: string) => void) {
    this.#link = link
    this.#inbox = inbox
    this.group = group
    this.id = instance
    this.#onEnd = onEnd
    this.#answers = inbox.open(instance, (bytes) => this.#forgotten(bytes))
    this.#timer = setInterval(() => this.#tick(), BEAT_MS)
    this.#tick()
  }

  /** Whether it takes requests. */
  get open(): boolean {
    return !this.#ended && this.#load !== undefined && !this.draining && this.#unknown === 0
  }

  /** It takes nothing new, as it says. */
  get draining(): boolean {
    return this.#load?.draining ?? false
  }

  /** As it says itself, other fronts' requests included; what was sent since it said so is known here only. */
  get load(): number {
    const { running = 0, queued = 0 } = this.#load?.stats ?? {}
    return Math.max(this.#running.size, running + queued)
  }

  get stats(): EngineStats | undefined {
    return this.#load?.stats
  }

  run(prompts: readonly Prompt[], params: GenerateManyParams, remote: Remote): GenerationControl {
    const incoming = new Incoming(remote, () => this.#report([incoming]))
    this.#running.set(incoming.id, incoming)
    const inbox = this.#inbox.open(incoming.id, (bytes) => this.#frame(incoming, bytes))
    const payload = encode('run', { id: incoming.id, inbox, prompts, params })
    if (payload.length > this.#link.maxPayload) {
      this.#withdraw(incoming)
      remote.onError(tooLarge('a request', payload.length, this.#link.maxPayload))
    } else {
      void this.#ask(incoming, payload)
    }
    return {
      abort: () => {
        incoming.aborted = true
        // Its last frame is awaited, whether somebody reads or not.
        incoming.paused = false
        this.#report([incoming])
      },
      pause: (paused) => {
        incoming.paused = paused && !incoming.aborted
        if (!paused) this.#report([incoming])
      },
    }
  }

  /** It is given up: its requests are lost. */
  end(reason: string): void {
    if (this.#ended) return
    this.#ended = true
    clearInterval(this.#timer)
    this.#inbox.close(this.id)
    this.#onEnd(this, reason)
    for (const incoming of [...this.#running.values()]) {
      this.#withdraw(incoming)
      incoming.remote.onLost()
    }
  }

  async #ask(incoming: Incoming, payload: Uint8Array): Promise<void> {
    try {
      const answer = await this.#link.nc.request(subjects.runAt(this.group, this.id), payload, { timeout: ACCEPT_MS })
      const refused = serviceError(answer)
      if (refused) throw refused
      decode('accepted', answer.data)
      incoming.accepted = true
    } catch (error) {
      // Ended meanwhile; or its answer was lost, and its frames say that it runs.
      if (!this.#running.has(incoming.id) || incoming.begun) return
      if (error instanceof ServiceError && error.code === 400) {
        this.#withdraw(incoming)
        incoming.remote.onError(new Error(`the replica refused the message: ${error.message}`))
        return
      }
      if (error instanceof ServiceError && error.code === 503 && this.#load) this.#load = { ...this.#load, draining: true }
      else this.#unknown++
      // It may have begun all the same.
      incoming.aborted = true
      this.#report([incoming])
      this.#withdraw(incoming)
      setTimeout(() => incoming.remote.onRefused(), AGAIN_MS)
    }
  }

  #frame(incoming: Incoming, bytes: Uint8Array): void {
    this.#heard = performance.now()
    try {
      if (incoming.take(decode('frame', bytes))) {
        this.#report([incoming])
        this.#withdraw(incoming)
      }
    } catch {
      // Not of a replica: it is as if nothing had come.
    }
  }

  /** Requests that were given up there, while the connection was away: they are lost. */
  #forgotten(bytes: Uint8Array): void {
    try {
      for (const id of decode('forgotten', bytes).ids) {
        const incoming = this.#running.get(id)
        // One that was just sent may not be there yet.
        if (!incoming || !(incoming.accepted || incoming.begun)) continue
        this.#withdraw(incoming)
        incoming.remote.onLost()
      }
    } catch {
      // Not of a replica.
    }
  }

  /** Said again and again: a message may be lost. */
  #report(of: Iterable<Incoming>): void {
    const list = [...of]
    if (list.length === 0) return
    const requests = list.map((incoming) => incoming.entry())
    const aborts = list.filter(({ aborted }) => aborted).map(({ id }) => id)
    this.#link.publish(subjects.control(this.id), encode('control', { requests, aborts }), this.#answers)
  }

  #withdraw({ id }: Incoming): void {
    this.#running.delete(id)
    this.#inbox.close(id)
  }

  #tick(): void {
    if (this.#ended) return
    const { connected, sinceMs } = this.#link
    if (connected) {
      this.#report(this.#running.values())
      if (this.#beats < MOST_BEATS) void this.#beat()
      if (performance.now() - this.#heard > SILENCE_MS && sinceMs > SILENCE_MS) this.end(`it said nothing for ${SILENCE_MS / 1000} s`)
    } else if (sinceMs > this.#link.deadlineMs) {
      for (const incoming of [...this.#running.values()]) {
        this.#withdraw(incoming)
        incoming.remote.onError(disconnected(this.#link))
      }
    }
  }

  async #beat(): Promise<void> {
    this.#beats++
    try {
      const answer = await this.#link.nc.request(`$SRV.STATS.${SERVICE}.${this.id}`, undefined, { timeout: BEAT_TIMEOUT_MS })
      this.#load = loadOf(answer)
      this.#heard = performance.now()
      this.#unknown = 0
    } catch (error) {
      if (error instanceof TimeoutError) return
      if (!isUnknown(error)) return
      if (++this.#unknown === 1) setTimeout(() => this.#tick(), ASK_AGAIN_MS)
      else if (this.#link.connected && this.#link.sinceMs > REJOIN_MS) this.end('it left the cluster')
    } finally {
      this.#beats--
    }
  }
}

/** A request's frames, and what they make. */
class Incoming {
  readonly id = crypto.randomUUID()
  readonly remote: Remote
  paused = false
  aborted = false
  accepted = false
  readonly #frames = new FrameReceiver()
  readonly #report: () => void
  readonly #parts = new Map<number, { text: string; tokens: number[]; logprobs: TokenLogprobs[] | undefined }>()
  #reported = 0

  constructor(remote: Remote, report: () => void) {
    this.remote = remote
    this.#report = report
  }

  /** Whether a frame has come. */
  get begun(): boolean {
    return this.#frames.received > 0
  }

  /** For a control message. */
  entry(): ControlEntry {
    const [received, credit] = this.#frames.report(this.paused)
    this.#reported = received
    return [this.id, received, credit]
  }

  /** true: that was the last one. */
  take(frame: Frame): boolean {
    for (const next of this.#frames.take(frame)) {
      if (next.type === 'error') {
        const error = unpackError(next.error)
        // The replica's ranks failed for good, or it ends: others may do better.
        if (error instanceof RankError || error instanceof EngineClosedError || error instanceof ReplicaError) this.remote.onLost()
        else this.remote.onError(error)
        return true
      }
      if (next.type === 'done') {
        this.remote.onDone(next.completions.map((end, index) => this.#completion(end, index)))
        return true
      }
      const { index, text, tokens, logprobs } = next.chunk
      const part = this.#parts.get(index) ?? { text: '', tokens: [], logprobs: undefined }
      part.text += text
      part.tokens.push(...tokens)
      if (logprobs) {
        part.logprobs ??= []
        part.logprobs.push(...logprobs)
      }
      this.#parts.set(index, part)
      this.remote.onChunk(next.chunk)
    }
    if (!this.paused && this.#frames.received - this.#reported >= WINDOW / 4) this.#report()
    return false
  }

  #completion(end: CompletionEnd, index: number): Completion {
    const { text = '', tokens = [], logprobs } = this.#parts.get(index) ?? {}
    return { text, tokens, ...(logprobs && { logprobs }), ...end }
  }
}

function loadOf(message: Msg): Load {
  const { endpoints } = message.json() as { endpoints?: readonly { name?: string; data?: unknown }[] }
  return checked('load', endpoints?.find(({ name }) => name === 'run-here')?.data)
}

/** The server says that nobody listens there. */
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
