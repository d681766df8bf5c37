// Where batch jobs and their results lie in JetStream. A job is in its stream until it is acknowledged; a result is there once, whoever
// wrote it, because the server takes the first only.
import {
  AckPolicy,
  type Consumer,
  JetStreamApiCodes,
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager,
  jetstream,
  jetstreamManager,
  RetentionPolicy,
  type StreamConfig,
} from '@nats-io/jetstream'
import { nanos } from '@nats-io/transport-node'
import { Ajv, type Schema } from 'ajv'
import { ClusterError } from '../../errors.js'
import type { BatchLine } from '../batch/batch-file.js'
import type { BatchResult } from '../batch/batch-request.js'
import { packMessage, unpackMessage } from '../replicas/message-pack.js'
import type { NatsLink } from './connection.js'

const JOBS = 'TETRAD_JOBS'
const RESULTS = 'TETRAD_RESULTS'
/** What nobody fetches is forgotten. */
const MOST_AGE_MS = 7 * 24 * 3_600_000
/** A job whose worker says nothing for so long goes to another. */
export const ACK_WAIT_MS = 10_000
const PUBLISH_MS = 5000

export type Job = Pick<BatchLine, 'customId' | 'url' | 'body'> & { readonly batch: string; readonly line: number }

interface Result {
  readonly line: number
  readonly result: BatchResult
}

const ajv = new Ajv()
const batch = { type: 'string', pattern: '^[0-9a-f]{24}$' }
const line = { type: 'integer', minimum: 1 }
const isJob = ajv.compile<Job>({
  type: 'object',
  properties: {
    batch,
    line,
    customId: { type: 'string', minLength: 1, maxLength: 512 },
    url: { enum: ['/v1/completions', '/v1/chat/completions'] },
    body: { type: 'object' },
  },
  required: ['batch', 'line', 'customId', 'url', 'body'],
  additionalProperties: false,
} satisfies Schema)
const isResult = ajv.compile<Result>({
  type: 'object',
  properties: {
    line,
    result: {
      type: 'object',
      properties: {
        id: { type: 'string' },
        custom_id: { type: 'string' },
        response: {
          anyOf: [
            { type: 'null' },
            {
              type: 'object',
              properties: { status_code: { type: 'integer' }, request_id: { type: 'string' }, body: { type: 'object' } },
              required: ['status_code', 'request_id', 'body'],
              additionalProperties: false,
            },
          ],
        },
        error: {
          anyOf: [
            { type: 'null' },
            {
              type: 'object',
              properties: { code: { type: 'string' }, message: { type: 'string' } },
              required: ['code', 'message'],
              additionalProperties: false,
            },
          ],
        },
      },
      required: ['id', 'custom_id', 'response', 'error'],
      additionalProperties: false,
    },
  },
  required: ['line', 'result'],
  additionalProperties: false,
} satisfies Schema)

const subjectOf = {
  job: (group: string, { batch: id, line: number }: Pick<Job, 'batch' | 'line'>) => `tetrad.jobs.${group}.${id}.${number}`,
  jobs: (group: string) => `tetrad.jobs.${group}.*.*`,
  result: ({ batch: id, line: number }: Pick<Job, 'batch' | 'line'>) => `tetrad.results.${id}.${number}`,
  results: (id: string) => `tetrad.results.${id}.*`,
  /** Somebody fetches the batch's results. */
  open: (id: string) => `tetrad.results.${id}.open`,
}

export class JobStreams {
  readonly #client: JetStreamClient
  readonly #manager: JetStreamManager

  private constructor(client: JetStreamClient, manager: JetStreamManager) {
    this.#client = client
    this.#manager = manager
  }

  /** Makes the streams where they are not there yet. Throws ClusterError NATS_NO_JETSTREAM. */
  static async open({ nc }: NatsLink): Promise<JobStreams> {
    try {
      const manager = await jetstreamManager(nc)
      await makeStream(manager, { name: JOBS, subjects: ['tetrad.jobs.*.*.*'], retention: RetentionPolicy.Workqueue })
      await makeStream(manager, { name: RESULTS, subjects: ['tetrad.results.*.*'], retention: RetentionPolicy.Limits })
      return new JobStreams(jetstream(nc), manager)
    } catch (cause) {
      throw new ClusterError('NATS_NO_JETSTREAM', {
        what: 'the NATS server keeps no streams for batch jobs',
        expected: `JetStream, with the streams ${JOBS} and ${RESULTS}, or leave to make them`,
        actual: (cause as Error).message,
        remedy: 'Start nats-server with -js, or allow JetStream for the account.',
        cause,
      })
    }
  }

  /** Jobs of a group, each for one worker. */
  async jobsOf(group: string): Promise<Consumer> {
    const durable_name = `tetrad-${group}`
    await this.#manager.consumers.add(JOBS, {
      durable_name,
      filter_subject: subjectOf.jobs(group),
      ack_policy: AckPolicy.Explicit,
      ack_wait: nanos(ACK_WAIT_MS),
      max_deliver: -1,
      max_ack_pending: 10_000,
      inactive_threshold: nanos(MOST_AGE_MS),
    })
    return this.#client.consumers.get(JOBS, durable_name)
  }

  /** Says that somebody fetches the results of a batch, until `forget`. */
  async begin(batchId: string, maxPayload: number): Promise<void> {
    await this.#publishOnce(subjectOf.open(batchId), new Uint8Array(), maxPayload)
  }

  /** Messages of a batch from the first on, which are results but for one without data, and how many there are now. */
  async resultsOf(batchId: string): Promise<{ consumer: Consumer; stored: number }> {
    const consumer = await this.#client.consumers.get(RESULTS, { filter_subjects: subjectOf.results(batchId) })
    const { num_pending: stored } = await consumer.info()
    return { consumer, stored }
  }

  /** Unless it is there already. false: it is. Rejects with what NATS does, and RangeError for a job beyond maxPayload bytes. */
  async submit(group: string, job: Job, maxPayload: number): Promise<boolean> {
    return (await this.#publishOnce(subjectOf.job(group, job), packMessage(job), maxPayload)) !== undefined
  }

  /** Unless there is one, or the batch is over: another worker's result was fetched then. false: so it was. Rejects as submit does. */
  async answer(job: Job, result: BatchResult, maxPayload: number): Promise<boolean> {
    const sequence = await this.#publishOnce(subjectOf.result(job), packMessage({ line: job.line, result }), maxPayload)
    if (sequence === undefined) return false
    if ((await this.#manager.streams.getMessage(RESULTS, { last_by_subj: subjectOf.open(job.batch) })) !== null) return true
    await this.#manager.streams.deleteMessage(RESULTS, sequence, false)
    return false
  }

  /** Jobs of a batch that nobody has acknowledged. */
  async pending(group: string, batchId: string): Promise<number> {
    const { state } = await this.#manager.streams.info(JOBS, { subjects_filter: `tetrad.jobs.${group}.${batchId}.*` })
    return Object.keys(state.subjects ?? {}).length
  }

  async isAnswered(job: Job): Promise<boolean> {
    return (await this.#manager.streams.getMessage(RESULTS, { last_by_subj: subjectOf.result(job) })) !== null
  }

  /** All results of a batch, once somebody has them, and jobs that nobody will ask for. */
  async forget(group: string, batchId: string): Promise<void> {
    await this.#manager.streams.purge(JOBS, { filter: `tetrad.jobs.${group}.${batchId}.*` })
    await this.#manager.streams.purge(RESULTS, { filter: subjectOf.results(batchId) })
  }

  /** The message's number in the stream; undefined: there is one already. */
  async #publishOnce(subject: string, bytes: Uint8Array, maxPayload: number): Promise<number | undefined> {
    // Room for the header that asks for it to be the first.
    if (bytes.length + 256 > maxPayload) throw new RangeError(`${bytes.length} bytes, and the server takes ${maxPayload}`)
    try {
      return (await this.#client.publish(subject, bytes, { timeout: PUBLISH_MS, expect: { lastSubjectSequence: 0 } })).seq
    } catch (error) {
      if (error instanceof JetStreamApiError && error.code === JetStreamApiCodes.StreamWrongLastSequence) return undefined
      throw error
    }
  }
}

/** Throws RangeError and what MessagePack throws. */
export function readJob(bytes: Uint8Array): Job {
  const job = unpackMessage(bytes)
  if (isJob(job)) return job
  throw new RangeError(`no job: ${ajv.errorsText(isJob.errors)}`)
}

export function readResult(bytes: Uint8Array): Result {
  const result = unpackMessage(bytes)
  if (isResult(result)) return result
  throw new RangeError(`no result: ${ajv.errorsText(isResult.errors)}`)
}

async function makeStream(manager: JetStreamManager, config: Pick<StreamConfig, 'name' | 'subjects' | 'retention'>): Promise<void> {
  try {
    // Of whoever runs the cluster, with replicas or limits of their choice.
    await manager.streams.info(config.name)
  } catch (error) {
    if (!(error instanceof JetStreamApiError) || error.code !== JetStreamApiCodes.StreamNotFound) throw error
    await manager.streams.add({ ...config, max_age: nanos(MOST_AGE_MS) })
  }
}
