// A request that runs in some replica, and in another one if that dies. All replicas of one source have one determinism key, so a replay
// produces the same tokens; what was delivered before is left out, and the client sees no gap and no repetition.
import { randomInt } from 'node:crypto'
import type { IndexedChunk } from '../../engine/engine.js'
import { type Completion, Generation, type GenerationControl } from '../../engine/generation.js'
import type { Prompt } from '../../engine/prompts.js'
import { OverloadedError, ReplicaError } from '../../errors.js'
import type { GenerateManyParams } from '../../options/public-types.js'
import { prefixOwner } from './prefix-owner.js'
import { ReplayFilter } from './replay-filter.js'

/** What a replica reports about a request. */
export interface RequestHandlers {
  onChunk(chunk: IndexedChunk): void
  onDone(completions: readonly Completion[]): void
  onError(error: Error): void
  /** The replica died while the request ran there. */
  onLost(): void
  /** The replica did not take the request; it never ran there. */
  onRefused(): void
}

/** Replicas that may die while one request runs in them, before the request is taken for the cause. */
const MAX_LOSSES = 5
/** How long available replicas may refuse a request, milliseconds. */
const MAX_REFUSED_MS = 30_000

export interface ReplicaHandle {
  readonly id: string
  /** Requests that run or wait there. */
  readonly load: number
  run(prompts: readonly Prompt[], params: GenerateManyParams, handlers: RequestHandlers): GenerationControl
}

export interface ReplicaSource {
  /**
   * The replica for a prompt, none of those in `full`. Resolves to undefined if all replicas are in `full`. Waits while there is no replica,
   * until the signal aborts, which resolves to undefined too. Rejects with a TetradError if there will be none.
   */
  choose(prompts: readonly Prompt[], full: ReadonlySet<string>, signal: AbortSignal): Promise<ReplicaHandle | undefined>
}

/** The owner of the prompt's prefix, unless another replica has much less to do. usable: at least one. */
export function preferredReplica<R extends ReplicaHandle>(prompts: readonly Prompt[], usable: readonly R[]): R {
  const owner = prefixOwner(
    prompts[0] ?? '',
    usable.map((replica) => replica.id),
  )
  const own = usable.find((replica) => replica.id === owner) as R
  const least = usable.reduce((a, b) => (b.load < a.load ? b : a))
  // Waiting behind many requests costs more than a cached prefix saves.
  return own.load > 2 * least.load + 2 ? least : own
}

export function generateInReplica(
  source: ReplicaSource,
  prompts: readonly Prompt[],
  params: GenerateManyParams,
): Generation<Completion[], IndexedChunk> {
  const { signal, ...sent } = params
  // A replay must draw the same random numbers.
  const request = new ReplicatedRequest(source, prompts, { ...sent, seed: sent.seed ?? randomInt(2 ** 47) })
  if (signal?.aborted) request.abort()
  const onAbort = () => request.abort()
  signal?.addEventListener('abort', onAbort, { once: true })
  // A listener on a long-lived signal would keep the request in memory.
  const run = (push: (chunk: IndexedChunk) => void) => request.run(push).finally(() => signal?.removeEventListener('abort', onAbort))
  return new Generation<Completion[], IndexedChunk>(run, request)
}

type Outcome = Completion[] | 'lost' | 'refused'

class ReplicatedRequest implements GenerationControl {
  readonly #source: ReplicaSource
  readonly #prompts: readonly Prompt[]
  readonly #params: GenerateManyParams
  readonly #abort = new AbortController()
  #running: GenerationControl | undefined
  #paused = false

  constructor(source: ReplicaSource, prompts: readonly Prompt[], params: GenerateManyParams) {
    this.#source = source
    this.#prompts = prompts
    this.#params = params
  }

  abort(): void {
    this.#abort.abort()
    this.#running?.abort()
  }

  pause(paused: boolean): void {
    this.#paused = paused
    this.#running?.pause(paused)
  }

  async run(push: (chunk: IndexedChunk) => void): Promise<Completion[]> {
    const { signal } = this.#abort
    const filter = new ReplayFilter(push)
    const full = new Set<string>()
    let overloaded: Error | undefined
    let refusals = 0
    let refusedSince: number | undefined
    for (let losses = 0; losses <= MAX_LOSSES; ) {
      const replica = await this.#source.choose(this.#prompts, full, signal)
      // Nobody waits for it any more: no replica begins it, or begins it again.
      if (signal.aborted) return this.#aborted()
      if (!replica) throw overloaded as Error
      try {
        const outcome = await this.#runIn(replica, filter)
        if (outcome === 'refused') {
          refusals++
          refusedSince ??= performance.now()
          if (performance.now() - refusedSince > MAX_REFUSED_MS) throw refused(refusals)
          continue
        }
        if (outcome !== 'lost') return outcome
        losses++
        refusedSince = undefined
      } catch (error) {
        if (!(error instanceof OverloadedError)) throw error
        overloaded = error
        full.add(replica.id)
      }
    }
    throw new ReplicaError('REPLICA_FAILED', {
      what: 'replicas died one after the other while this request ran in them',
      expected: `at most ${MAX_LOSSES} deaths`,
      actual: String(MAX_LOSSES + 1),
      remedy: 'Check the logs of the replicas. The request itself may be the cause.',
    })
  }

  #runIn(replica: ReplicaHandle, filter: ReplayFilter): Promise<Outcome> {
    filter.begin()
    return new Promise((resolve, reject) => {
      this.#running = replica.run(this.#prompts, this.#params, {
        onChunk: (chunk) => filter.take(chunk),
        onDone: (completions) => resolve([...completions]),
        onError: reject,
        onLost: () => resolve('lost'),
        onRefused: () => resolve('refused'),
      })
      if (this.#abort.signal.aborted) this.#running.abort()
      if (this.#paused) this.#running.pause(true)
    }).finally(() => {
      this.#running = undefined
    }) as Promise<Outcome>
  }

  /** What an engine resolves with for a request that was aborted before it began. */
  #aborted(): Completion[] {
    const { n = 1, seed = 0 } = this.#params
    return Array.from({ length: this.#prompts.length * n }, () => ({
      text: '',
      tokens: [],
      finishReason: 'abort' as const,
      usage: { promptTokens: 0, completionTokens: 0, cachedTokens: 0 },
      timings: { ttftMs: 0, decodeMs: 0, tokensPerSecond: 0 },
      seed,
    }))
  }
}

function refused(times: number): ReplicaError {
  return new ReplicaError('REPLICA_FAILED', {
    what: 'replicas are available, but none accepted the request',
    expected: `one that accepts it within ${MAX_REFUSED_MS / 1000} s`,
    actual: `${times} refusals`,
    remedy: 'Check the logs of the replicas, and whether this frontend may publish to tetrad.run.>.',
  })
}
