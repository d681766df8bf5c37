// A batch as jobs of a NATS cluster: whoever is there takes them, and this process, or the next one with the same file, fetches the results.
import { createHash } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import { BatchError, TetradError } from '../../errors.js'
import { type BatchFacts, readBatch } from '../batch/batch-file.js'
import type { BatchOutput } from '../batch/batch-output.js'
import { failedRequest } from '../batch/batch-request.js'
import { aborted } from '../batch/run-locally.js'
import type { NatsLink } from './connection.js'
import { JobStreams, readResult } from './job-streams.js'

/** Jobs that are being written at once. */
const SUBMITTING = 64
const RETRY_MS = 1000
/** After so long without a result, jobs that are in no stream any more are submitted again. */
const STALLED_MS = 30_000
/** Results asked for at once. */
const PULL = 256
const WATCH_MS = 200
/** A server that is there and refuses is asked so often. */
const MOST_ATTEMPTS = 10

export interface ClusterBatch {
  readonly link: NatsLink
  readonly path: string
  readonly facts: BatchFacts
  readonly output: BatchOutput
  /** Of each model, by name. */
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
  const named = [...new Set(groups.values())]
  await again(batch, () => streams.begin(id, link.maxPayload))
  // First what is there from an earlier run, then the jobs that are missing.
  await fetch(streams, id, batch, false)
  await submit(streams, id, batch)
  while (output.done < facts.lines.size) {
    if (signal.aborted) throw aborted(output.done)
    await fetch(streams, id, batch, true)
    if (signal.aborted) continue
    const counts = await Promise.all(named.map((group) => again(batch, () => streams.pending(group, id))))
    const pending = counts.reduce((sum, count) => sum + count, 0)
    const missing = facts.lines.size - output.done
    if (missing > 0) await checkVersions(batch)
    if (missing > 0) log(`no result for ${STALLED_MS / 1000} s: of ${missing} requests ${pending} wait for a replica that takes jobs, or run in one`)
    // After a week without its end NATS has forgotten that it began.
    await again(batch, () => streams.begin(id, link.maxPayload))
    if (pending < missing) await submit(streams, id, batch)
  }
  await output.sync()
  for (const group of named) await again(batch, () => streams.forget(group, id))
}

/** Takes results until all are there, or (not waiting) those that are stored; or returns when nothing comes any more. */
async function fetch(streams: JobStreams, id: string, batch: ClusterBatch, waiting: boolean): Promise<void> {
  const { link, facts, output, signal } = batch
  const numbers = new Map([...facts.lines].map(([customId, line]) => [line, customId]))
  const { consumer, stored } = await again(batch, () => streams.resultsOf(id))
  if (!waiting && stored === 0) return
  const messages = await again(batch, () => consumer.consume({ max_messages: PULL }))
  let taken = 0
  let heard = performance.now()
  const isOver = () => output.done === facts.lines.size || signal.aborted || (!waiting && taken >= stored)
  const isStalled = () => link.connected && performance.now() - Math.max(heard, performance.now() - link.sinceMs) > STALLED_MS
  const watch = setInterval(() => {
    if (isOver() || isStalled()) messages.stop()
  }, WATCH_MS)
  try {
    for await (const message of messages) {
      taken++
      heard = performance.now()
      if (message.data.length === 0) continue
      await take(message.data, numbers, batch)
      if (isOver()) break
    }
  } finally {
    clearInterval(watch)
    messages.stop()
  }
}

/** What is no result of this batch is left out. */
async function take(data: Uint8Array, numbers: ReadonlyMap<number, string>, { output, onDone, log }: ClusterBatch): Promise<void> {
  try {
    const { line, result } = readResult(data)
    if (numbers.get(line) !== result.custom_id) throw new RangeError(`line ${line} is not ${JSON.stringify(result.custom_id)}`)
    const before = output.done
    await output.add(result)
    if (output.done > before) onDone()
  } catch (error) {
    if (error instanceof TetradError) throw error
    log(`a result is none of this batch: ${(error as Error).message}`)
  }
}

/** Nobody is left who gives the answers of this batch, but others who would give theirs. */
async function checkVersions({ path, groups, groupNow, output }: ClusterBatch): Promise<void> {
  for await (const { customId, model } of readBatch(path)) {
    if (output.has(customId)) continue
    const group = groups.get(model)
    const now = groupNow(model)
    if (now === undefined || now === group) continue
    throw new BatchError('BATCH_OUTPUT_MISMATCH', {
      what: `the replicas of ${model} are of another version now`,
      expected: group ?? model,
      actual: now,
      remedy: `Start replicas of the first version and run the command again (it has ${output.done} results), or name another file for the results.`,
    })
  }
}

/** Every request that has no result, unless its job is there already. */
async function submit(streams: JobStreams, id: string, batch: ClusterBatch): Promise<void> {
  const { link, path, output, groups, onDone, signal } = batch
  const lines = readBatch(path)
  const submitter = async () => {
    for (;;) {
      if (signal.aborted) return
      const { done, value: line } = await lines.next()
      if (done) return
      const { customId, url, body, number, model } = line
      if (output.has(customId)) continue
      const job = { batch: id, line: number, customId, url, body }
      try {
        await again(batch, () => streams.submit(groups.get(model) as string, job, link.maxPayload))
      } catch (error) {
        if (!(error instanceof RangeError)) throw error
        await output.add(failedRequest(customId, 'request_too_large', `The request has ${error.message}.`))
        onDone()
      }
    }
  }
  await Promise.all(Array.from({ length: SUBMITTING }, submitter))
}

/** While the server is away it is asked again. */
async function again<T>({ signal, output, link }: ClusterBatch, ask: () => Promise<T>): Promise<T> {
  for (let attempts = 1; ; ) {
    try {
      return await ask()
    } catch (error) {
      if (signal.aborted) throw aborted(output.done)
      if (error instanceof RangeError || link.nc.isClosed() || (link.connected && attempts++ >= MOST_ATTEMPTS)) throw error
      await setTimeout(RETRY_MS, undefined, { signal }).catch(() => {})
    }
  }
}
