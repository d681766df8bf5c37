// The requests of one call: n for each prompt. Knows requests; admits nothing.
import type { ResolvedGenerateParams } from '../options/generate-params.js'
import type { Chunk, Completion, GenerationControl } from './generation.js'
import { Request, type RequestContext } from './request.js'

/** The requests of one call, which come once its prompts are token ids. An abort may come before. */
export class CallRequests implements GenerationControl {
  readonly all: Request[] = []
  #aborted = false

  abort(): void {
    this.#aborted = true
    for (const request of this.all) request.abort()
  }

  pause(paused: boolean): void {
    for (const request of this.all) request.pause(paused)
  }

  /** Ends requests of a call that was aborted before it had any. */
  catchUp(): void {
    if (this.#aborted) this.abort()
  }
}

/** How many requests of the call may run and wait at a time, and how many places the engine has now. */
export interface Places {
  readonly most: number
  free(): number
}

/**
 * Starts them, adding each to `requests`, and resolves with all completions, prompt by prompt; rejects with the first failure, once all that
 * were started have ended. A call with more requests than places starts the others as its own end.
 * push: chunks with the index of their completion.
 */
export async function startRequests(
  context: RequestContext,
  prompts: readonly (readonly number[])[],
  params: ResolvedGenerateParams,
  places: Places,
  requests: CallRequests,
  push: (index: number, chunk: Chunk) => void,
): Promise<Completion[]> {
  const { n } = params
  const groups = prompts.map((prompt, i) => {
    const group: Request[] = []
    // The others find the prompt computed once the first has begun.
    const startOthers = () => {
      for (const request of group.slice(1)) request.start()
    }
    for (let choice = 0; choice < n; choice++) {
      const onChunk = (chunk: Chunk) => push(i * n + choice, chunk)
      group.push(new Request(context, prompt, params, onChunk, choice, choice === 0 ? startOthers : undefined))
    }
    requests.all.push(...group)
    return group
  })
  let next = 0
  let started = 0
  const startNext = () => {
    const group = groups[next++]
    if (!group) return
    started += n
    group[0]?.start()
    void Promise.all(group.map((request) => request.completion)).then(
      () => {
        started -= n
        // It gives its places to the next prompt, whoever else waits for one; more are taken only where they are free.
        startNext()
        fill()
      },
      (error: Error) => {
        // The call has failed: what has not begun would be wasted.
        for (const rest of groups.splice(next)) for (const request of rest) request.cancel(error)
      },
    )
  }
  const fill = () => {
    while (next < groups.length && started + n <= places.most && (started === 0 || places.most >= groups.length * n || places.free() >= n))
      startNext()
  }
  fill()
  requests.catchUp()
  const settled = await Promise.allSettled(requests.all.map((request) => request.completion))
  return settled.map((result) => {
    if (result.status === 'rejected') throw result.reason
    return result.value
  })
}
