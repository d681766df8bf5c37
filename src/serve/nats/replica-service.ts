// A model of this process as a NATS service: requests arrive from frontends anywhere in the cluster, and completions go back as frames that
// survive a restart of the NATS server.
import type { Service, ServiceMsg } from '@nats-io/services'
import type { Msg } from '@nats-io/transport-node'
import type { Completion } from '../../engine/generation.js'
import { EngineClosedError, RankError, ReplicaError, TetradError } from '../../errors.js'
import { VERSION } from '../../version.js'
import { packError } from '../replicas/protocol.js'
import type { ServedModel } from '../served-model.js'
import type { NatsLink } from './connection.js'
import { FrameSender } from './frames.js'
import { PROTOCOL } from './message-schemas.js'
import {
  type CompletionEnd,
  type Description,
  decode,
  encode,
  type Frame,
  type Load,
  type Metadata,
  type PackedPiece,
  type RunRequest,
  SERVICE,
  subjects,
  type Tokens,
  tooLarge,
} from './messages.js'

/** A frontend that was silent for this time, while this replica was connected, is gone. */
const ABANDONED_MS = 20_000
/** The same, whether this replica was connected or not. */
const LOST_MS = 60_000
const SWEEP_MS = 1000
/** How long the last frames may take to be acknowledged when the service ends. */
const SETTLE_MS = 3000
/** Maximum size of the texts and pieces in one description. */
const DESCRIBE_BYTES = 1 << 18

interface Running {
  readonly sender: FrameSender
  readonly abort: AbortController
  heardAt: number
  ended: boolean
}

export class ReplicaService {
  readonly #link: NatsLink
  readonly #model: ServedModel
  readonly #group: string
  readonly #log: (text: string) => void
  readonly #service: Service
  /** Id of the service in the cluster. */
  readonly instance: string
  readonly #running = new Map<string, Running>()
  readonly #sweep: NodeJS.Timeout
  #draining = false
  #closed = false

  /** group: the model's fingerprint. A subscription that is not permitted ends the service, which is logged. */
  static async start(link: NatsLink, model: ServedModel, group: string, log: (text: string) => void): Promise<ReplicaService> {
    const metadata: Metadata = { protocol: PROTOCOL, model: model.id, group, determinism_key: model.engine.info.determinismKey }
    let made: ReplicaService | undefined
    const service = await link.services.add({
      name: SERVICE,
      version: VERSION,
      description: `${model.id}, ${model.engine.info.ranks} ranks`,
      metadata: { ...metadata },
      // Endpoints name their queue group themselves; the default would be one group for all of them.
      queue: '',
      statsHandler: async ({ subject }) => (made && subject === subjects.runAt(group, made.instance) ? made.#load() : null),
    })
    made = new ReplicaService(link, model, group, log, service)
    return made
  }

  private constructor(link: NatsLink, model: ServedModel, group: string, log: (text: string) => void, service: Service) {
    this.#link = link
    this.#model = model
    this.#group = group
    this.#log = log
    this.#service = service
    this.instance = service.ping().id
    const run = (error: Error | null, message: ServiceMsg) => {
      if (!error) this.#accept(message)
    }
    service.addEndpoint('run', { subject: subjects.run(group), queue: group, handler: run })
    service.addEndpoint('run-here', { subject: subjects.runAt(group, this.instance), handler: run })
    service.addEndpoint('tokenize', {
      subject: subjects.tokenize(group),
      queue: group,
      handler: (error, message) => {
        if (!error) void this.#tokenize(message)
      },
    })
    service.addEndpoint('describe', {
      subject: subjects.describe(group),
      queue: group,
      handler: (error, message) => {
        if (!error) this.#answer(message, () => this.#describe(decode('describe', message.data).from))
      },
    })
    link.nc.subscribe(subjects.control(this.instance), {
      callback: (error, message) => {
        if (!error) this.#control(message)
      },
    })
    void service.stopped.then((error) => {
      if (error && !this.#closed) log(`the NATS service of ${model.id} ended: ${error.message}`)
    })
    this.#sweep = setInterval(() => this.#abandon(), SWEEP_MS)
    this.#sweep.unref()
  }

  get group(): string {
    return this.#group
  }

  /** Refuses new requests from now on, and tells frontends so. Running requests go on. */
  drain(): void {
    this.#draining = true
  }

  /** Call it after the engine has ended its requests. Waits for the last frames to arrive, and leaves the cluster. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#draining = true
    this.#closed = true
    const until = performance.now() + SETTLE_MS
    while (this.#running.size > 0 && performance.now() < until && this.#link.connected) await new Promise((done) => setTimeout(done, 20))
    clearInterval(this.#sweep)
    for (const { sender, abort } of this.#running.values()) {
      abort.abort()
      sender.close()
    }
    await this.#service.stop()
  }

  /** An engine that failed for good answers nothing more, so frontends must not choose it. */
  get #refuses(): boolean {
    return this.#draining || this.#model.engine.failure !== undefined
  }

  #load(): Load {
    return { draining: this.#refuses, stats: this.#model.engine.stats() }
  }

  /** Answers with a message, or with the service's error headers. */
  #answer(message: ServiceMsg, make: () => Uint8Array): void {
    try {
      message.respond(make())
    } catch (error) {
      // The message was not a valid request, which is the sender's fault.
      message.respondError(400, oneLine(error))
    }
  }

  async #tokenize(message: ServiceMsg): Promise<void> {
    try {
      const { text, bos } = decode('tokenize', message.data)
      const tokens: Tokens = await this.#model.engine.tokenize(text, { bos }).then(
        (ids) => ({ ids }),
        (error: unknown) => ({ error: packError(error) }),
      )
      const bytes = encode('tokens', tokens)
      const max = this.#link.maxPayload
      message.respond(bytes.length <= max ? bytes : encode('tokens', { error: packError(tooLarge('the list of tokens', bytes.length, max)) }))
    } catch (error) {
      message.respondError(400, oneLine(error))
    }
  }

  #describe(from: number): Uint8Array {
    const { engine, template } = this.#model
    const texts: string[] = []
    const pieces: PackedPiece[] = []
    // The facts of an engine are small; a UTF-16 unit is at most 3 bytes of UTF-8.
    const max = Math.min(DESCRIBE_BYTES, this.#link.maxPayload / 2)
    for (let size = 0, token = from; token < engine.info.vocab && size < max; token++) {
      const text = engine.info.hasTokenizer ? engine.detokenize([token]) : ''
      const { bytes, special } = engine.tokenPiece(token)
      texts.push(text)
      size += text.length * 3 + 2
      if (special === undefined && Buffer.from(text).equals(bytes)) continue
      pieces.push([token, bytes, special ?? null])
      size += bytes.length + (special?.length ?? 0) * 3 + 12
    }
    const description: Description = { info: engine.info, template: template.source ?? null, texts, pieces }
    return encode('description', description)
  }

  #accept(message: ServiceMsg): void {
    if (this.#refuses) {
      message.respondError(503, 'draining')
      return
    }
    this.#answer(message, () => {
      const request = decode('run', message.data)
      // A request that arrives twice is already running.
      if (!this.#running.has(request.id)) this.#run(request).catch((error: unknown) => this.#log(`request ${request.id}: ${oneLine(error)}`))
      return encode('accepted', { instance: this.instance })
    })
  }

  async #run({ id, inbox, prompts, params }: RunRequest): Promise<void> {
    const sender = new FrameSender((bytes) => this.#link.publish(inbox, bytes))
    const abort = new AbortController()
    const running: Running = { sender, abort, heardAt: performance.now(), ended: false }
    this.#running.set(id, running)
    const give = (frame: (seq: number) => Frame) => sender.give((seq) => this.#fitting(seq, frame(seq)))
    try {
      const generation = this.#model.engine.generateMany(prompts, { ...params, signal: abort.signal })
      // Not read while the frontend gives no credit: then the engine pauses the request.
      for await (const chunk of generation) {
        if (!(await give((seq) => ({ seq, type: 'chunk', chunk })))) return
      }
      const completions = (await generation).map(endOf)
      // Only the end of this process aborts a request that nobody aborted: the frontend has other replicas.
      if (!abort.signal.aborted && completions.some(({ finishReason }) => finishReason === 'abort')) throw shutDown()
      await give((seq) => ({ seq, type: 'done', completions }))
    } catch (error) {
      if (!(error instanceof TetradError)) this.#log(`request ${id} failed: ${oneLine(error)}`)
      // The engine cannot be used any more.
      if (error instanceof EngineClosedError || error instanceof RankError || error instanceof ReplicaError) this.drain()
      await give((seq) => ({ seq, type: 'error', error: packError(error) }))
    } finally {
      running.ended = true
      this.#forgetSettled(id, running)
    }
  }

  /** A frame's bytes; an error in their place if the server would not accept them. */
  #fitting(seq: number, frame: Frame): Uint8Array {
    const bytes = encode('frame', frame)
    const max = this.#link.maxPayload
    return bytes.length <= max ? bytes : encode('frame', { seq, type: 'error', error: packError(tooLarge('the answer', bytes.length, max)) })
  }

  #control(message: Msg): void {
    try {
      const { requests, aborts } = decode('control', message.data)
      const forgotten = requests.map(([id]) => id).filter((id) => !this.#running.has(id))
      if (forgotten.length > 0) message.respond(encode('forgotten', { ids: forgotten }))
      for (const [id, received, credit] of requests) {
        const running = this.#running.get(id)
        if (!running) continue
        running.heardAt = performance.now()
        running.sender.control(received, credit)
        this.#forgetSettled(id, running)
      }
      for (const id of aborts) this.#running.get(id)?.abort.abort()
    } catch (error) {
      this.#log(`ignoring an invalid control message: ${oneLine(error)}`)
    }
  }

  #forgetSettled(id: string, { ended, sender }: Running): void {
    if (ended && sender.settled) this.#running.delete(id)
  }

  /** Ends requests whose frontend is gone. */
  #abandon(): void {
    const now = performance.now()
    for (const [id, { heardAt, abort, sender }] of this.#running) {
      const silentMs = now - heardAt
      if (silentMs < LOST_MS && !(silentMs > ABANDONED_MS && this.#link.connected && this.#link.sinceMs > ABANDONED_MS)) continue
      abort.abort()
      sender.close()
      this.#running.delete(id)
    }
  }
}

function endOf({ text: _text, tokens: _tokens, logprobs: _logprobs, ...end }: Completion): CompletionEnd {
  return end
}

function shutDown(): EngineClosedError {
  return new EngineClosedError('ENGINE_CLOSED', {
    what: 'the replica was shut down before the answer was complete',
    remedy: 'Send the request again.',
  })
}

function oneLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/\s+/g, ' ').slice(0, 300)
}
