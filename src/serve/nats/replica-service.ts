// A model of this process as a NATS service: requests come from fronts anywhere in the cluster, and completions go back as frames that
// outlive a restart of the NATS server.
import type { Service, ServiceMsg } from '@nats-io/services'
import type { Msg } from '@nats-io/transport-node'
import type { Completion } from '../../engine/generation.js'
import { EngineClosedError, RankError, ReplicaError, TetradError } from '../../errors.js'
import { VERSION } from '../../version.js'
import type { ServedModel } from '../completions.js'
import { packError } from '../replicas/protocol.js'
import type { NatsLink } from './connection.js'
import { FrameSender } from './frames.js'
import {
  type CompletionEnd,
  decode,
  encode,
  type Frame,
  type Load,
  type Metadata,
  PROTOCOL,
  type RunRequest,
  SERVICE,
  subjects,
  tooLarge,
} from './messages.js'

/** A front that says nothing for so long, while this replica is connected, is gone; and after the second, whether connected or not. */
const ABANDONED_MS = 20_000
const LOST_MS = 60_000
const SWEEP_MS = 1000
/** How long the last frames may take to be acknowledged when the service ends. */
const SETTLE_MS = 3000
/** Of the texts in an answer to describe. */
const DESCRIBE_BYTES = 1 << 18

interface Running {
  readonly sender: FrameSender
  readonly abort: AbortController
  heard: number
  ended: boolean
}

export class ReplicaService {
  readonly #link: NatsLink
  readonly #model: ServedModel
  readonly #group: string
  readonly #log: (text: string) => void
  readonly #service: Service
  /** Its id in the cluster. */
  readonly instance: string
  readonly #running = new Map<string, Running>()
  readonly #sweep: NodeJS.Timeout
  #draining = false
  #closed = false

  /** group: of the model's fingerprint. A subscription that is not allowed ends the service, which the log says. */
  static async start(link: NatsLink, model: ServedModel, group: string, log: (text: string) => void): Promise<ReplicaService> {
    const metadata: Metadata = { protocol: PROTOCOL, model: model.id, group, determinism_key: model.engine.info.determinismKey }
    let made: ReplicaService | undefined
    const service = await link.services.add({
      name: SERVICE,
      version: VERSION,
      description: `${model.id}, ${model.engine.info.ranks} ranks`,
      metadata: { ...metadata },
      // Endpoints are in no queue group but where they say so.
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

  /** New requests are refused from now on, and fronts are told; those that run go on. */
  drain(): void {
    this.#draining = true
  }

  /** Once the engine has ended its requests: waits for the last frames to arrive, and leaves the cluster. */
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

  #load(): Load {
    return { draining: this.#draining, stats: this.#model.engine.stats() }
  }

  /** Answers with a message, or with the service's error headers. */
  #answer(message: ServiceMsg, of: () => Uint8Array): void {
    try {
      message.respond(of())
    } catch (error) {
      // What came is no message of ours: that is the sender's fault, whatever was thrown.
      message.respondError(400, oneLine(error))
    }
  }

  #describe(from: number): Uint8Array {
    const { engine, template } = this.#model
    const texts: string[] = []
    // The facts of an engine are small; a text is 3 bytes a character at most.
    const most = Math.min(DESCRIBE_BYTES, this.#link.maxPayload / 2)
    for (let bytes = 0, token = from; token < engine.info.vocab && bytes < most; token++) {
      const text = engine.info.hasTokenizer ? engine.detokenize([token]) : ''
      texts.push(text)
      bytes += text.length * 3 + 2
    }
    return encode('description', { info: engine.info, template: template.source ?? null, texts })
  }

  #accept(message: ServiceMsg): void {
    if (this.#draining) {
      message.respondError(503, 'draining')
      return
    }
    this.#answer(message, () => {
      const request = decode('run', message.data)
      // Asked twice: it runs already.
      if (!this.#running.has(request.id)) this.#run(request).catch((error: unknown) => this.#log(`request ${request.id}: ${oneLine(error)}`))
      return encode('accepted', { instance: this.instance })
    })
  }

  async #run({ id, inbox, prompts, params }: RunRequest): Promise<void> {
    const sender = new FrameSender((bytes) => this.#link.publish(inbox, bytes))
    const abort = new AbortController()
    const running: Running = { sender, abort, heard: performance.now(), ended: false }
    this.#running.set(id, running)
    const give = (frame: (seq: number) => Frame) => sender.give((seq) => this.#fitting(seq, frame(seq)))
    try {
      const generation = this.#model.engine.generateMany(prompts, { ...params, signal: abort.signal })
      // Not read while the front has enough: the engine pauses the request then.
      for await (const chunk of generation) {
        if (!(await give((seq) => ({ seq, type: 'chunk', chunk })))) return
      }
      const completions = (await generation).map(endOf)
      // Nobody asked for that but the end of this process: the front has other replicas.
      if (!abort.signal.aborted && completions.some(({ finishReason }) => finishReason === 'abort')) throw ended()
      await give((seq) => ({ seq, type: 'done', completions }))
    } catch (error) {
      if (!(error instanceof TetradError)) this.#log(`request ${id} failed: ${oneLine(error)}`)
      // Its engine is of no more use.
      if (error instanceof EngineClosedError || error instanceof RankError || error instanceof ReplicaError) this.drain()
      await give((seq) => ({ seq, type: 'error', error: packError(error) }))
    } finally {
      running.ended = true
      this.#forgetSettled(id, running)
    }
  }

  /** A frame's bytes; an error in its place if the server would not take them. */
  #fitting(seq: number, frame: Frame): Uint8Array {
    const bytes = encode('frame', frame)
    const most = this.#link.maxPayload
    return bytes.length <= most ? bytes : encode('frame', { seq, type: 'error', error: packError(tooLarge('an answer', bytes.length, most)) })
  }

  #control(message: Msg): void {
    try {
      const { requests, aborts } = decode('control', message.data)
      const forgotten = requests.map(([id]) => id).filter((id) => !this.#running.has(id))
      if (forgotten.length > 0) message.respond(encode('forgotten', { ids: forgotten }))
      for (const [id, received, credit] of requests) {
        const running = this.#running.get(id)
        if (!running) continue
        running.heard = performance.now()
        running.sender.control(received, credit)
        this.#forgetSettled(id, running)
      }
      for (const id of aborts) this.#running.get(id)?.abort.abort()
    } catch (error) {
      this.#log(`a control message is wrong: ${oneLine(error)}`)
    }
  }

  #forgetSettled(id: string, { ended, sender }: Running): void {
    if (ended && sender.settled) this.#running.delete(id)
  }

  #abandon(): void {
    const now = performance.now()
    for (const [id, { heard, abort, sender }] of this.#running) {
      const silent = now - heard
      if (silent < LOST_MS && !(silent > ABANDONED_MS && this.#link.connected && this.#link.sinceMs > ABANDONED_MS)) continue
      abort.abort()
      sender.close()
      this.#running.delete(id)
    }
  }
}

function endOf({ finishReason, stoppedBy, promptLogprobs, usage, timings, seed }: Completion): CompletionEnd {
  return { finishReason, usage, timings, seed, ...(stoppedBy !== undefined && { stoppedBy }), ...(promptLogprobs && { promptLogprobs }) }
}

function ended(): EngineClosedError {
  return new EngineClosedError('ENGINE_CLOSED', { what: 'the replica ended before the answer did', remedy: 'Send the request again.' })
}

function oneLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/\s+/g, ' ').slice(0, 300)
}
