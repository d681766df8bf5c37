// Batch jobs and their results in JetStream. A job is in its stream until it is acknowledged. Each job has one result, whoever wrote it,
// because the server accepts only the first.
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
import { packMessage, unpackMessage } from '../../message-pack.js'
import type { BatchRequest, BatchResult } from '../batch/batch-request.js'
import type { NatsLink } from './connection.js'

const JOBS = 'TETRAD_JOBS'
const RESULTS = 'TETRAD_RESULTS'
/** Jobs and results that nobody fetches are deleted after this time. */
const MAX_AGE_MS = 7 * 24 * 3_600_000
/** A job whose worker is silent for this time goes to another, milliseconds. */
export const ACK_WAIT_MS = 10_000
const PUBLISH_MS = 5000

export interface Job extends BatchRequest {
  readonly batch: string
  readonly line: number
  /** Attempts that failed before the job was put back into the queue. Default 0. */
  readonly attempts?: number
}

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
    attempts: { type: 'integer', minimum: 0 },
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
  /** Exists while somebody fetches the batch's results. */
  open: (id: string) => `tetrad.results.${id}.open`,
}

export class JobStreams {
  readonly #client: JetStreamClient
  readonly #manager: JetStreamManager

  private constructor(client: JetStreamClient, manager: JetStreamManager) {
    this.#client = client
    this.#manager = manager
  }

  /** Creates the streams if they do not exist. Rejects with ClusterError NATS_NO_JETSTREAM. */
  static async open({ nc }: NatsLink): Promise<JobStreams> {
    try {
      const manager = await jetstreamManager(nc)
      await makeStream(manager, { name: JOBS, subjects: ['tetrad.jobs.*.*.*'], retention: RetentionPolicy.Workqueue })
      await makeStream(manager, { name: RESULTS, subjects: ['tetrad.results.*.*'], retention: RetentionPolicy.Limits })
      return new JobStreams(jetstream(nc), manager)
    } catch (cause) {
      throw new ClusterError('NATS_NO_JETSTREAM', {
        what: 'the NATS server has no streams for batch jobs',
        expected: `JetStream, with the streams ${JOBS} and ${RESULTS}, or the permission to create them`,
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
      inactive_threshold: nanos(MAX_AGE_MS),
    })
    return this.#client.consumers.get(JOBS, durable_name)
  }

  /** Marks the batch as open: somebody fetches its results, until `forget`. */
  async begin(batchId: string, maxPayload: number): Promise<void> {
    await this.#publishOnce(subjectOf.open(batchId), new Uint8Array(), maxPayload)
  }

  /** A consumer of the batch's messages from the first one on, and how many there are now. One message, without data, is the mark of `begin`. */
  async resultsOf(batchId: string): Promise<{ consumer: Consumer; stored: number }> {
    const consumer = await this.#client.consumers.get(RESULTS, { filter_subjects: subjectOf.results(batchId) })
    const { num_pending: stored } = await consumer.info()
    return { consumer, stored }
  }

  /** Resolves to false if the job is in the stream already. Rejects with NATS's errors, and RangeError for a job beyond maxPayload bytes. */
  async submit(group: string, job: Job, maxPayload: number): Promise<boolean> {
    return (await this.#publishOnce(subjectOf.job(group, job), packMessage(job), maxPayload)) !== undefined
  }

  /** Puts a job at the end of the queue. The caller then acknowledges the delivery that it has: between the two the job may run twice. */
  async requeue(group: string, job: Job): Promise<void> {
    await this.#client.publish(subjectOf.job(group, job), packMessage(job), { timeout: PUBLISH_MS })
  }

  /** Resolves to false if the job has a result already, or its batch is over. Rejects as submit does. */
  async answer(job: Job, result: BatchResult, maxPayload: number): Promise<boolean> {
    const sequence = await this.#publishOnce(subjectOf.result(job), packMessage({ line: job.line, result }), maxPayload)
    if (sequence === undefined) return false
    if ((await this.#manager.streams.getMessage(RESULTS, { last_by_subj: subjectOf.open(job.batch) })) !== null) return true
    await this.#manager.streams.deleteMessage(RESULTS, sequence, false)
    return false
  }

  /** How many jobs of a batch are not acknowledged. */
  async pending(group: string, batchId: string): Promise<number> {
    const { state } = await this.#manager.streams.info(JOBS, { subjects_filter: `tetrad.jobs.${group}.${batchId}.*` })
    return Object.keys(state.subjects ?? {}).length
  }

  async isAnswered(job: Job): Promise<boolean> {
    return (await this.#manager.streams.getMessage(RESULTS, { last_by_subj: subjectOf.result(job) })) !== null
  }

  /** Deletes the results of a batch, once somebody has them, and its jobs that are left. */
  async forget(group: string, batchId: string): Promise<void> {
    await this.#manager.streams.purge(JOBS, { filter: `tetrad.jobs.${group}.${batchId}.*` })
    await this.#manager.streams.purge(RESULTS, { filter: subjectOf.results(batchId) })
  }

  /** Resolves to the message's number in the stream, or undefined if its subject has a message already. */
  async #publishOnce(subject: string, bytes: Uint8Array, maxPayload: number): Promise<number | undefined> {
    // 256: room for the header that requires it to be the first.
    if (bytes.length + 256 > maxPayload) throw new RangeError(`${bytes.length} bytes, and the NATS server accepts ${maxPayload}`)
    try {
      return (await this.#client.publish(subject, bytes, { timeout: PUBLISH_MS, expect: { lastSubjectSequence: 0 } })).seq
    } catch (error) {
      if (error instanceof JetStreamApiError && error.code === JetStreamApiCodes.StreamWrongLastSequence) return undefined
      throw error
    }
  }
}

/** Throws RangeError, or what msgpackr throws. */
export function readJob(bytes: Uint8Array): Job {
  const job = unpackMessage(bytes)
  if (isJob(job)) return job
  throw new RangeError(`not a job: ${ajv.errorsText(isJob.errors)}`)
}

export function readResult(bytes: Uint8Array): Result {
  const result = unpackMessage(bytes)
  if (isResult(result)) return result
  throw new RangeError(`not a result: ${ajv.errorsText(isResult.errors)}`)
}

async function makeStream(manager: JetStreamManager, config: Pick<StreamConfig, 'name' | 'subjects' | 'retention'>): Promise<void> {
  try {
    // An operator may have created it, with other replicas or limits.
    await manager.streams.info(config.name)
  } catch (error) {
    if (!(error instanceof JetStreamApiError) || error.code !== JetStreamApiCodes.StreamNotFound) throw error
    await manager.streams.add({ ...config, max_age: nanos(MAX_AGE_MS) })
  }
}
