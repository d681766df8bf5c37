// A batch on engines of this process.
import { setTimeout } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { BatchError } from '../../errors.js'
import { type BatchLine, readBatch } from './batch-file.js'
import type { BatchOutput } from './batch-output.js'
import { failedRequest, runRequest } from './batch-request.js'

/** Asked again after so long, and so often. */
const AGAIN_MS = 500
const MOST_ATTEMPTS = 20

/** concurrency: requests at once. Rejects with BatchError BATCH_ABORTED, or what the file or the output throw. */
export async function runLocally(
  app: FastifyInstance,
  path: string,
  output: BatchOutput,
  concurrency: number,
  onDone: () => void,
  signal: AbortSignal,
): Promise<void> {
  const lines = readBatch(path)
  const worker = async () => {
    for (;;) {
      if (signal.aborted) throw aborted(output.done)
      const { done, value } = await lines.next()
      if (done) return
      if (output.has(value.customId)) continue
      await output.add(await result(app, value, output, signal))
      onDone()
    }
  }
  await Promise.all(Array.from({ length: concurrency }, worker))
}

async function result(app: FastifyInstance, line: BatchLine, output: BatchOutput, signal: AbortSignal) {
  for (let attempt = 0; attempt < MOST_ATTEMPTS; attempt++) {
    const found = await runRequest(app, line, undefined, signal)
    // An answer that came to its end before it was cut short counts.
    if (signal.aborted) throw aborted(output.done)
    if (found) return found
    await setTimeout(AGAIN_MS, undefined, { signal }).catch(() => {})
  }
  return failedRequest(line.customId, 'server_error', `The engine did not answer it in ${MOST_ATTEMPTS} attempts.`)
}

export function aborted(done: number): BatchError {
  return new BatchError('BATCH_ABORTED', {
    what: 'the batch was stopped',
    actual: `${done} results are in the file`,
    remedy: 'Run the same command again to go on.',
  })
}
