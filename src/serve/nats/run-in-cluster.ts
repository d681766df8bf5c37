// A batch as jobs of a NATS cluster: any replica of the model takes them, and this process, or a later one with the same file, fetches the
// results.
import { createHash } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import { BatchError, TetradError } from '../../errors.js'
import { type BatchFacts, type BatchLine, readBatch } from '../batch/batch-file.js'
import type { BatchOutput } from '../batch/batch-output.js'
import { BATCH_URLS, type BatchResult, failedRequest, runRequest, unservedModel } from '../batch/batch-request.js'
import { aborted } from '../batch/run-locally.js'
import type { NatsLink } from './connection.js'
import { JobStreams, readResult } from './job-streams.js'

/** Jobs that are submitted at once. */
const MAX_SUBMITTING = 64
const RETRY_MS = 1000
/** After this time without a result, jobs that are in no stream any more are submitted again. */
const STALLED_MS = 30_000
/** Results that are requested at once. */
const MAX_PULL = 256
const WATCH_MS = 200
/** Attempts at a request to a NATS server that is connected and refuses. */
const MAX_ATTEMPTS = 10

export interface ClusterBatch {
  readonly link: NatsLink
  readonly path: string
  readonly facts: BatchFacts
  readonly output: BatchOutput
  /** The group of each served model, by name. */
  readonly groups: ReadonlyMap<string, string>
  /** The group that a model's name stands for now. */
  readonly groupNow: (model: string) => string | undefined
  readonly onDone: () => void
  readonly log: (text: string) => void
  readonly signal: AbortSignal
}

/** Rejects with BatchError BATCH_ABORTED or BATCH_OUTPUT_MISMATCH, ClusterError NATS_NO_JETSTREAM, or what the file or the output throw. */
export async function runInCluster(batch: ClusterBatch): Promise<void> {
  const { link, facts, output, groups, signal, log } = batch
  const streams = await JobStreams.open(link)
  const id = createHash('sha256')
    .update(JSON.stringify([facts.digest, [...groups].sort()]))
    .digest('hex')
    .slice(0, 24)
  const used = [...new Set(groups.values())]
  await retryUntilConnected(batch, () => streams.begin(id, link.maxPayload))
  // First the results of an earlier run, then the jobs that are missing.
  await fetch(streams, id, batch, false)
  await submit(streams, id, batch)
  while (output.done < facts.lines.size) {
    if (signal.aborted) throw aborted(output.done)
    await fetch(streams, id, batch, true)
    if (signal.aborted) continue
    const counts = await Promise.all(used.map((group) => retryUntilConnected(batch, () => streams.pending(group, id))))
    const pending = counts.reduce((sum, count) => sum + count, 0)
    const missing = facts.lines.size - output.done
    if (missing > 0) await checkVersions(batch)
    if (missing > 0) log(`no result for ${STALLED_MS / 1000} s: ${pending} of ${missing} requests wait for a replica, or run in one`)
    // NATS deletes the mark after a week.
    await retryUntilConnected(batch, () => streams.begin(id, link.maxPayload))
    if (pending < missing) await submit(streams, id, batch)
  }
  await output.sync()
  for (const group of used) await retryUntilConnected(batch, () => streams.forget(group, id))
}

/** Fetches results until all are there, or none arrives any more. waiting: false: only those that are stored. */
async function fetch(streams: JobStreams, id: string, batch: ClusterBatch, waiting: boolean): Promise<void> {
  const { link, facts, output, signal } = batch
  const idOfLine = new Map([...facts.lines].map(([customId, { number }]) => [number, customId]))
  const { consumer, stored } = await retryUntilConnected(batch, () => streams.resultsOf(id))
  if (!waiting && stored === 0) return
  const messages = await retryUntilConnected(batch, () => consumer.consume({ max_messages: MAX_PULL }))
  let taken = 0
  let heardAt = performance.now()
  const isOver = () => output.done === facts.lines.size || signal.aborted || (!waiting && taken >= stored)
  const isStalled = () => link.connected && performance.now() - Math.max(heardAt, performance.now() - link.sinceMs) > STALLED_MS
  const watch = setInterval(() => {
    if (isOver() || isStalled()) messages.stop()
  }, WATCH_MS)
  try {
    for await (const message of messages) {
      taken++
      heardAt = performance.now()
      if (message.data.length === 0) continue
      await take(message.data, idOfLine, batch)
      if (isOver()) break
    }
  } finally {
    clearInterval(watch)
    messages.stop()
  }
}

/** Adds a result, and ignores messages that are not results of this batch. */
async function take(data: Uint8Array, idOfLine: ReadonlyMap<number, string>, batch: ClusterBatch): Promise<void> {
  try {
    const { line, result } = readResult(data)
    if (idOfLine.get(line) !== result.custom_id) throw new RangeError(`line ${line} is not ${JSON.stringify(result.custom_id)}`)
    await add(result, batch)
  } catch (error) {
    if (error instanceof TetradError) throw error
    batch.log(`ignoring a message that is not a result of this batch: ${(error as Error).message}`)
  }
}

async function add(result: BatchResult, { output, onDone }: ClusterBatch): Promise<void> {
  const before = output.done
  await output.add(result)
  if (output.done > before) onDone()
}

/** Rejects if the version that this batch began with has no replica left, but another version has. */
async function checkVersions({ path, groups, groupNow, output }: ClusterBatch): Promise<void> {
  for await (const { customId, model } of readBatch(path)) {
    if (output.has(customId)) continue
    const group = groups.get(model)
    const now = groupNow(model)
    if (now === undefined || now === group) continue
    throw new BatchError('BATCH_OUTPUT_MISMATCH', {
      what: `the replicas of ${model} run another version now`,
      expected: group ?? model,
      actual: now,
      remedy: `Start replicas of the first version and run the command again (it has ${output.done} results), or name another file for the results.`,
    })
  }
}

/** Submits every request that has no result, unless its job is in the stream. Requests that no replica can answer get their result here. */
async function submit(streams: JobStreams, id: string, batch: ClusterBatch): Promise<void> {
  const lines = readBatch(batch.path)
  const submitter = async () => {
    for (;;) {
      if (batch.signal.aborted) return
      const { done, value: line } = await lines.next()
      if (done) return
      if (!batch.output.has(line.customId)) await submitLine(streams, id, batch, line)
    }
  }
  await Promise.all(Array.from({ length: MAX_SUBMITTING }, submitter))
}

async function submitLine(streams: JobStreams, id: string, batch: ClusterBatch, line: BatchLine): Promise<void> {
  const { link, groups } = batch
  const { customId, url, body, number, model } = line
  const group = groups.get(model)
  if (!BATCH_URLS.has(url) || group === undefined) {
    await add(await refusedLine(line), batch)
    return
  }
  const job = { batch: id, line: number, customId, url, body }
  try {
    await retryUntilConnected(batch, () => streams.submit(group, job, link.maxPayload))
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    await add(failedRequest(line, 'request_too_large', `The request is too large: ${error.message}.`), batch)
  }
}

/** The same result that a batch on this machine would have: from a server without models. */
async function refusedLine(line: BatchLine): Promise<BatchResult> {
  if (BATCH_URLS.has(line.url) && line.model !== '') return unservedModel(line, line.model)
  const { createServer } = await import('../server.js')
  const { app } = createServer(new Map())
  try {
    return (await runRequest(app, line, { apiKey: undefined, maxBusyMs: 0, signal: AbortSignal.abort() })).result
  } finally {
    await app.close()
  }
}

/** Repeats a request to NATS while the server is away. */
async function retryUntilConnected<T>({ signal, output, link }: ClusterBatch, ask: () => Promise<T>): Promise<T> {
  for (let attempts = 1; ; ) {
    try {
      return await ask()
    } catch (error) {
      if (signal.aborted) throw aborted(output.done)
      if (error instanceof RangeError || link.nc.isClosed() || (link.connected && attempts++ >= MAX_ATTEMPTS)) throw error
      await setTimeout(RETRY_MS, undefined, { signal }).catch(() => {})
    }
  }
}
