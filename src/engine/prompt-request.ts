// Requests that compute a prompt and generate nothing: its logits, or scores of given tokens. They know the coordinator, not the ranks.
import { RequestError } from '../errors.js'
import type { TokenScores } from '../evaluation/scoring.js'
import { onAbort } from './on-abort.js'
import type { Coordinator } from './ranks/coordinator.js'
import { Sequence, type SequenceAdapter, type SequenceInit, type SequenceSink } from './scheduling/sequence.js'

/** Computes the logits after every token: onRow gets each position's, [vocab], in a view that is reused. Rejects with what ends the sequence. */
export function everyLogits(
  coordinator: Coordinator,
  prompt: readonly number[],
  onRow: (position: number, row: Float32Array | Float64Array) => void,
  adapter?: SequenceAdapter,
): Promise<void> {
  return compute(coordinator, { prompt, everyLogits: true, adapter }, { onLogits: onRow }, undefined)
}

/** Scores the tokens of the prompt from position `from` on, and `next` after it. Rejects with what ends the sequence. */
export async function scoreTokens(
  coordinator: Coordinator,
  prompt: readonly number[],
  score: { readonly from: number; readonly next: number },
  signal: AbortSignal | undefined,
  adapter?: SequenceAdapter,
): Promise<TokenScores> {
  const { from } = score
  const count = prompt.length + 1 - from
  const logProbabilities = new Float64Array(count)
  const greedy = new Uint8Array(count)
  const onScore: SequenceSink['onScore'] = (position, logProbability, isGreedy) => {
    logProbabilities[position - from] = logProbability
    greedy[position - from] = Number(isGreedy)
  }
  await compute(coordinator, { prompt, everyLogits: false, score, adapter }, { onScore }, signal)
  return { logProbabilities, isGreedy: greedy.every((g) => g === 1) }
}

function compute(
  coordinator: Coordinator,
  wanted: Pick<SequenceInit, 'prompt' | 'everyLogits' | 'score' | 'adapter'>,
  heard: Partial<Pick<SequenceSink, 'onLogits' | 'onScore'>>,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (signal?.aborted) return Promise.reject(requestAborted())
  return new Promise((resolve, reject) => {
    let failed = false
    const sequence = new Sequence({
      ...wanted,
      maxTokens: 0,
      temperature: 0,
      seed: 0,
      endOfText: new Set(),
      priority: 0,
      sink: {
        onAdmitted: () => {},
        onToken: () => {},
        onLogprobs: () => {},
        onScore: () => {},
        ...heard,
        // What the caller's function throws must not reach the coordinator, which would fail other requests.
        onLogits: (position, row) => {
          if (failed) return
          try {
            heard.onLogits?.(position, row)
          } catch (error) {
            failed = true
            stopListening()
            reject(error)
            queueMicrotask(() => coordinator.abort(sequence))
          }
        },
        onFinish: (reason) => {
          stopListening()
          if (reason === 'abort') reject(requestAborted())
          else resolve()
        },
        onError: (error) => {
          stopListening()
          reject(error)
        },
      },
    })
    const stopListening = onAbort(signal, () => coordinator.abort(sequence))
    coordinator.submit(sequence)
  })
}

function requestAborted(): RequestError {
  return new RequestError('REQUEST_ABORTED', { what: 'the request was stopped by its signal', remedy: 'Start it again when it is wanted.' })
}
