// A batch on engines of this process.
import { setTimeout } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { BatchError } from '../../errors.js'
import type { ServedModel } from '../served-model.js'
import { type BatchLine, readBatch } from './batch-file.js'
import type { BatchOutput } from './batch-output.js'
import { type BatchResult, runRequest } from './batch-request.js'

/** Attempts at a request whose server fails, and the wait between two of them. The last attempt's answer is the line's result. */
const MAX_ATTEMPTS = 5
const RETRY_MS = 500
/** How long a full queue is waited for. Only other requests of this batch can fill it, so it gets free. */
const MAX_BUSY_MS = 600_000

export interface LocalBatch {
  /** The server over the models; nobody needs to listen. */
  readonly app: FastifyInstance
  readonly models: ReadonlyMap<string, ServedModel>
  /** The file of requests. */
  readonly path: string
  readonly output: BatchOutput
  /** Requests that run at once. */
  readonly concurrency: number
  readonly onDone: () => void
  readonly signal: AbortSignal
}

/**
 * Resolves when every line has a result. Rejects with BatchError BATCH_ABORTED, with what the file or the output throw, or with the failure of
 * an engine that can answer nothing more.
 */
export async function runLocally(batch: LocalBatch): Promise<void> {
  const { path, output, signal, onDone, concurrency } = batch
  const lines = readBatch(path)
  const worker = async () => {
    for (;;) {
      if (signal.aborted) throw aborted(output.done)
      const { done, value } = await lines.next()
      if (done) return
      if (output.has(value.customId)) continue
      await output.add(await run(batch, value))
      onDone()
    }
  }
  await Promise.all(Array.from({ length: concurrency }, worker))
}

async function run({ app, models, output, signal }: LocalBatch, line: BatchLine): Promise<BatchResult> {
  for (let attempt = 1; ; attempt++) {
    const { kind, result } = await runRequest(app, line, { apiKey: undefined, maxBusyMs: MAX_BUSY_MS, signal })
    // After Ctrl-C the engines are closed, so an answer may be cut short: it is run again by the next command.
    if (signal.aborted) throw aborted(output.done)
    if (kind !== 'failed' || attempt === MAX_ATTEMPTS) return result
    const failure = models.get(line.model)?.engine.failure
    if (failure) throw failure
    await setTimeout(RETRY_MS, undefined, { signal }).catch(() => {})
  }
}

export function aborted(done: number): BatchError {
  return new BatchError('BATCH_ABORTED', {
    what: 'the batch was stopped',
    actual: `${done} results are in the file`,
    remedy: 'Run the same command again to continue.',
  })
}
