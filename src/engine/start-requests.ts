// The requests of one call: one for each prompt, or n of them. Knows requests; admits nothing.
import type { SamplingParams } from '../options/generate-params.js'
import type { Chunk, Completion } from './generation.js'
import { Request, type RequestContext } from './request.js'

/**
 * Starts them, adding each to `requests`, and resolves with all completions, prompt by prompt; rejects with the first failure, once all have
 * ended. push: chunks with the index of their completion.
 */
export async function startRequests(
  context: RequestContext,
  prompts: readonly (readonly number[])[],
  params: SamplingParams,
  requests: Request[],
  push: (index: number, chunk: Chunk) => void,
): Promise<Completion[]> {
  const { n = 1 } = params
  for (const [i, prompt] of prompts.entries()) {
    const first = requests.length
    // The others find the prompt computed once the first has begun.
    const startOthers = () => {
      for (const request of requests.slice(first + 1, first + n)) request.start()
    }
    for (let choice = 0; choice < n; choice++) {
      const onChunk = (chunk: Chunk) => push(i * n + choice, chunk)
      requests.push(new Request(context, prompt, params, onChunk, choice, choice === 0 ? startOthers : undefined))
    }
  }
  for (let i = 0; i < requests.length; i += n) requests[i]?.start()
  const settled = await Promise.allSettled(requests.map((request) => request.completion))
  return settled.map((result) => {
    if (result.status === 'rejected') throw result.reason
    return result.value
  })
}
