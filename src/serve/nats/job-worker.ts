// Takes batch jobs of one model of this process, a few at once. The result is written before the job is acknowledged, so a job whose worker
// dies is delivered again, to another worker.
import { setTimeout } from 'node:timers/promises'
import type { Consumer, JsMsg } from '@nats-io/jetstream'
import type { FastifyInstance } from 'fastify'
import { type BatchResult, failedRequest, runRequest } from '../batch/batch-request.js'
import type { ServedEngine } from '../served-model.js'
import type { NatsLink } from './connection.js'
import { ACK_WAIT_MS, type Job, JobStreams, readJob } from './job-streams.js'

const PULL_MS = 3000
const RETRY_MS = 1000
/** How often a server without JetStream is asked whether it has it now. */
const NO_STREAMS_MS = 5000
/** Attempts after which a job ends with its error: it probably crashes workers, or fails everywhere. A full queue is not an attempt. */
const MAX_ATTEMPTS = 10
/** How long a job whose engine has a full queue stays with this worker, milliseconds. Then it goes to the end of the queue. */
const MAX_BUSY_MS = 5000

export interface JobServer {
  readonly app: FastifyInstance
  /** The API key of the app. */
  readonly apiKey: string | undefined
}

export interface JobWorkerOptions {
  readonly link: NatsLink
  readonly group: string
  readonly engine: Pick<ServedEngine, 'failure'>
  readonly server: JobServer
  /** Jobs that run at once. */
  readonly jobs: number
  readonly log: (text: string) => void
}

export class JobWorker {
  readonly #options: JobWorkerOptions
  #streams: Promise<JobStreams> | undefined
  readonly #loops: Promise<void>[]
  readonly #stop = new AbortController()
  #closed = false
  /** Why there are no streams, as last logged. */
  #noStreamsReason = ''

  constructor(options: JobWorkerOptions) {
    this.#options = options
    this.#loops = Array.from({ length: options.jobs }, () => this.#work())
  }

  /** Takes no new jobs from now on. */
  drain(): void {
    this.#stop.abort()
  }

  /** Call it after the engines are closed: jobs that were cut short are delivered again elsewhere. */
  async close(): Promise<void> {
    this.drain()
    this.#closed = true
    await Promise.all(this.#loops)
  }

  async #work(): Promise<void> {
    const { link, group, log } = this.#options
    let consumer: Consumer | undefined
    while (!this.#stop.signal.aborted) {
      try {
        // It would take every job and answer none.
        if (this.#hasFailed()) return
        const streams = await this.#open()
        if (!streams) {
          await this.#pause(NO_STREAMS_MS)
          continue
        }
        consumer ??= await streams.jobsOf(group)
        // Stopping ends it also while the server is away.
        const messages = await consumer.fetch({ max_messages: 1, expires: PULL_MS })
        const stop = () => messages.stop()
        this.#stop.signal.addEventListener('abort', stop, { once: true })
        try {
          for await (const message of messages) await this.#take(streams, message)
        } finally {
          this.#stop.signal.removeEventListener('abort', stop)
        }
      } catch (error) {
        if (this.#stop.signal.aborted) return
        if (link.connected) log(`batch jobs: ${error instanceof Error ? error.message : String(error)}`)
        consumer = undefined
        await this.#pause(RETRY_MS)
      }
    }
  }

  #hasFailed(): boolean {
    const { engine, log, group } = this.#options
    const { failure } = engine
    if (!failure) return false
    if (!this.#stop.signal.aborted) log(`no more batch jobs of ${group} are taken: ${failure.message}`)
    this.drain()
    return true
  }

  async #pause(ms: number): Promise<void> {
    await setTimeout(ms, undefined, { signal: this.#stop.signal }).catch(() => {})
  }

  /** Opens the streams once for all loops. Resolves to undefined while the server has none. */
  async #open(): Promise<JobStreams | undefined> {
    const { link, log } = this.#options
    this.#streams ??= JobStreams.open(link)
    const opening = this.#streams
    try {
      const streams = await opening
      if (this.#noStreamsReason !== '') log('batch jobs are taken now')
      this.#noStreamsReason = ''
      return streams
    } catch (error) {
      if (this.#streams === opening) this.#streams = undefined
      const { message } = error as Error
      if (this.#noStreamsReason !== message) log(`no batch jobs are taken: ${message}`)
      this.#noStreamsReason = message
      return undefined
    }
  }

  async #take(streams: JobStreams, message: JsMsg): Promise<void> {
    const { link, group, log } = this.#options
    let job: Job
    try {
      job = readJob(message.data)
    } catch (error) {
      log(`discarding a malformed batch job: ${(error as Error).message}`)
      message.term()
      return
    }
    // Until it is acknowledged the server must hear that somebody works on it.
    const alive = setInterval(() => {
      if (link.connected) message.working()
    }, ACK_WAIT_MS / 3)
    try {
      // Deliveries that were not acknowledged are attempts whose worker died, or failed and gave the job back.
      const attempt = (job.attempts ?? 0) + message.info.deliveryCount
      if (message.info.deliveryCount > 1 && (await streams.isAnswered(job))) {
        message.ack()
        return
      }
      const outcome = await this.#answer(streams, job, attempt)
      if (outcome === 'answered') message.ack()
      else if (outcome === 'failed') message.nak(RETRY_MS)
      else {
        await streams.requeue(group, { ...job, attempts: attempt - 1 })
        message.ack()
      }
    } finally {
      clearInterval(alive)
    }
  }

  async #answer(streams: JobStreams, job: Job, attempt: number): Promise<'answered' | 'failed' | 'busy'> {
    const { app, apiKey } = this.#options.server
    if (attempt > MAX_ATTEMPTS) {
      const message = `${MAX_ATTEMPTS} workers took the request, and none of them answered it.`
      await this.#write(streams, job, failedRequest(job, 'server_error', message))
      return 'answered'
    }
    const answer = await runRequest(app, job, { apiKey, maxBusyMs: MAX_BUSY_MS, signal: this.#stop.signal })
    if (this.#closed) return 'failed'
    if (answer.kind === 'busy') return 'busy'
    // A worker whose engine failed is no attempt at the job's last chance: another worker may answer it.
    if (answer.kind === 'failed' && (attempt < MAX_ATTEMPTS || this.#hasFailed())) return 'failed'
    await this.#write(streams, job, answer.result)
    return 'answered'
  }

  async #write(streams: JobStreams, job: Job, result: BatchResult): Promise<void> {
    const max = this.#options.link.maxPayload
    try {
      await streams.answer(job, result, max)
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
      await streams.answer(job, failedRequest(job, 'response_too_large', `The answer is too large: ${error.message}.`), max)
    }
  }
}
