// Takes batch jobs of the models of this process, a few at once, and writes each result before the job is acknowledged: a job whose worker
// dies comes again, to somebody.
import { setTimeout } from 'node:timers/promises'
import type { Consumer, JsMsg } from '@nats-io/jetstream'
import type { FastifyInstance } from 'fastify'
import { failedRequest, runRequest } from '../batch/batch-request.js'
import type { NatsLink } from './connection.js'
import { ACK_WAIT_MS, type Job, JobStreams, readJob } from './job-streams.js'

const PULL_MS = 3000
const RETRY_MS = 1000
/** A server without streams is asked so often whether it has them now. */
const NO_STREAMS_MS = 5000
/** A job that comes for the so-manieth time has ended its workers, or found none that could answer. */
const MOST_DELIVERIES = 10

export interface JobServer {
  readonly app: FastifyInstance
  /** The app's own. */
  readonly apiKey: string | undefined
}

export class JobWorker {
  readonly #link: NatsLink
  #streams: Promise<JobStreams> | undefined
  readonly #group: string
  readonly #server: JobServer
  readonly #log: (text: string) => void
  readonly #loops: Promise<void>[]
  readonly #stop = new AbortController()
  #ended = false
  /** Why there are no streams, as it was last said. */
  #lack = ''

  /** jobs: at once. */
  constructor(link: NatsLink, group: string, server: JobServer, jobs: number, log: (text: string) => void) {
    this.#link = link
    this.#group = group
    this.#server = server
    this.#log = log
    this.#loops = Array.from({ length: jobs }, () => this.#work())
  }

  /** No new jobs are taken. */
  drain(): void {
    this.#stop.abort()
  }

  /** The engines are closed: what was cut short comes again elsewhere. */
  async close(): Promise<void> {
    this.drain()
    this.#ended = true
    await Promise.all(this.#loops)
  }

  async #work(): Promise<void> {
    let consumer: Consumer | undefined
    while (!this.#stop.signal.aborted) {
      try {
        const streams = await this.#open()
        if (!streams) {
          await this.#pause(NO_STREAMS_MS)
          continue
        }
        consumer ??= await streams.jobsOf(this.#group)
        // Stopped, it ends also while the server is away.
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
        if (this.#link.connected) this.#log(`batch jobs: ${error instanceof Error ? error.message : String(error)}`)
        consumer = undefined
        await this.#pause(RETRY_MS)
      }
    }
  }

  async #pause(ms: number): Promise<void> {
    await setTimeout(ms, undefined, { signal: this.#stop.signal }).catch(() => {})
  }

  /** For all loops at once. undefined: the server keeps none now. */
  async #open(): Promise<JobStreams | undefined> {
    this.#streams ??= JobStreams.open(this.#link)
    const opening = this.#streams
    try {
      const streams = await opening
      if (this.#lack !== '') this.#log('batch jobs are taken now')
      this.#lack = ''
      return streams
    } catch (error) {
      if (this.#streams === opening) this.#streams = undefined
      const { message } = error as Error
      if (this.#lack !== message) this.#log(`no batch jobs are taken: ${message}`)
      this.#lack = message
      return undefined
    }
  }

  async #take(streams: JobStreams, message: JsMsg): Promise<void> {
    let job: Job
    try {
      job = readJob(message.data)
    } catch (error) {
      this.#log(`a batch job is none: ${(error as Error).message}`)
      message.term()
      return
    }
    // Until the server hears of the end.
    const alive = setInterval(() => {
      if (this.#link.connected) message.working()
    }, ACK_WAIT_MS / 3)
    try {
      if (message.info.deliveryCount > 1 && (await streams.isAnswered(job))) message.ack()
      else if (await this.#answer(streams, job, message.info.deliveryCount)) message.ack()
      else message.nak(RETRY_MS)
    } finally {
      clearInterval(alive)
    }
  }

  /** false: not now, or not here. */
  async #answer(streams: JobStreams, job: Job, deliveries: number): Promise<boolean> {
    const { app, apiKey } = this.#server
    const result =
      deliveries > MOST_DELIVERIES
        ? failedRequest(job.customId, 'server_error', `It was given to workers ${MOST_DELIVERIES} times, and none of them answered.`)
        : await runRequest(app, job, apiKey, this.#stop.signal)
    if (!result || this.#ended) return false
    const most = this.#link.maxPayload
    try {
      await streams.answer(job, result, most)
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
      await streams.answer(job, failedRequest(job.customId, 'response_too_large', `The answer has ${error.message}.`), most)
    }
    return true
  }
}
