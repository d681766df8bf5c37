// One request that scores given tokens. Knows the coordinator, not the ranks.
import { RequestError } from '../errors.js'
import type { TokenScores } from '../eval/scoring.js'
import type { Coordinator } from './coordinator.js'
import { onAbort } from './on-abort.js'
import { Sequence } from './sequence.js'

/** Scores the tokens of the prompt from position `from` on, and `next` after it. Rejects with what ends the sequence. */
export async function scoreTokens(
  coordinator: Coordinator,
  prompt: readonly number[],
  score: { readonly from: number; readonly next: number },
  signal: AbortSignal | undefined,
): Promise<TokenScores> {
  if (signal?.aborted) throw requestAborted()
  const { from } = score
  const count = prompt.length + 1 - from
  const logProbabilities = new Float64Array(count)
  const greedy = new Uint8Array(count)
  await new Promise<void>((resolve, reject) => {
    const sequence = new Sequence({
      prompt,
      maxTokens: 0,
      temperature: 0,
      seed: 0,
      endOfText: new Set(),
      everyLogits: false,
      score,
      priority: 0,
      sink: {
        onAdmitted: () => {},
        onToken: () => {},
        onLogits: () => {},
        onLogprobs: () => {},
        onScore: (position, logProbability, isGreedy) => {
          logProbabilities[position - from] = logProbability
          greedy[position - from] = Number(isGreedy)
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
  return { logProbabilities, isGreedy: greedy.every((g) => g === 1) }
}

function requestAborted(): RequestError {
  return new RequestError('REQUEST_ABORTED', { what: 'the request was stopped by its signal', remedy: 'Start it again when it is wanted.' })
}
