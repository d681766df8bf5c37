// A request that runs in some replica, and in another one when that dies: all replicas of one source have one determinism key, so a replay
// has the same tokens; those that were delivered are left out, and the client sees no gap and none twice.
import { randomInt } from 'node:crypto'
import type { IndexedChunk } from '../../engine/engine.js'
import { type Completion, Generation, type GenerationControl } from '../../engine/generation.js'
import type { Prompt } from '../../engine/prompts.js'
import { OverloadedError, ReplicaError } from '../../errors.js'
import type { GenerateManyParams } from '../../options/public-types.js'
import { Delivery } from './delivery.js'
import { prefixOwner } from './prefix-owner.js'

/** What becomes of a request in a replica. */
export interface Remote {
  onChunk(chunk: IndexedChunk): void
  onDone(completions: readonly Completion[]): void
  onError(error: Error): void
  /** The replica died with the request in it. */
  onLost(): void
  /** It never ran there. */
  onRefused(): void
}

/** Replicas that may die with one request in them, before it is taken for the cause. */
const MOST_LOSSES = 5
/** How long replicas that are there may refuse it. */
const REFUSED_MS = 30_000

export interface RemoteReplica {
  readonly id: string
  /** Requests that it has. */
  readonly load: number
  run(prompts: readonly Prompt[], params: GenerateManyParams, remote: Remote): GenerationControl
}

export interface ReplicaSource {
  /** The replica for a prompt, not one of `full`; undefined: all are full. Waits while there is none. Throws a TetradError. */
  choose(prompts: readonly Prompt[], full: ReadonlySet<string>): Promise<RemoteReplica | undefined>
}

/** Of those given, which are not none: the prompt's owner, unless much less waits elsewhere. */
export function preferred<R extends RemoteReplica>(prompts: readonly Prompt[], usable: readonly R[]): R {
  const owner = prefixOwner(
    prompts[0] ?? '',
    usable.map((replica) => replica.id),
  )
  const own = usable.find((replica) => replica.id === owner) as R
  const least = usable.reduce((a, b) => (b.load < a.load ? b : a))
  // A cached prefix saves less than waiting behind many others costs.
  return own.load > 2 * least.load + 2 ? least : own
}

export function generateRemotely(
  source: ReplicaSource,
  prompts: readonly Prompt[],
  params: GenerateManyParams,
): Generation<Completion[], IndexedChunk> {
  const { signal, ...sent } = params
  // A replay must draw the same numbers.
  const request = new RemoteRequest(source, prompts, { ...sent, seed: sent.seed ?? randomInt(2 ** 47) })
  if (signal?.aborted) request.abort()
  const onAbort = () => request.abort()
  signal?.addEventListener('abort', onAbort, { once: true })
  // A signal that lives on would keep the request.
  const run = (push: (chunk: IndexedChunk) => void) => request.run(push).finally(() => signal?.removeEventListener('abort', onAbort))
  return new Generation<Completion[], IndexedChunk>(run, request)
}

class RemoteRequest implements GenerationControl {
  readonly #source: ReplicaSource
  readonly #prompts: readonly Prompt[]
  readonly #params: GenerateManyParams
  #running: GenerationControl | undefined
  #aborted = false
  #paused = false

  constructor(source: ReplicaSource, prompts: readonly Prompt[], params: GenerateManyParams) {
    this.#source = source
    this.#prompts = prompts
    this.#params = params
  }

  abort(): void {
    this.#aborted = true
    this.#running?.abort()
  }

  pause(paused: boolean): void {
    this.#paused = paused
    this.#running?.pause(paused)
  }

  async run(push: (chunk: IndexedChunk) => void): Promise<Completion[]> {
    const delivery = new Delivery(push)
    const full = new Set<string>()
    let overloaded: Error | undefined
    let refusedSince: number | undefined
    for (let losses = 0; losses <= MOST_LOSSES; ) {
      const replica = await this.#source.choose(this.#prompts, full)
      if (!replica) throw overloaded as Error
      try {
        const completions = await this.#runOn(replica, delivery)
        if (completions === 'refused') {
          refusedSince ??= performance.now()
          if (performance.now() - refusedSince > REFUSED_MS) throw refused()
          continue
        }
        if (completions !== 'lost') return completions
        losses++
        refusedSince = undefined
      } catch (error) {
        if (!(error instanceof OverloadedError)) throw error
        overloaded = error
        full.add(replica.id)
      }
    }
    throw new ReplicaError('REPLICA_FAILED', {
      what: 'replicas died with this request in them, one after the other',
      expected: `at most ${MOST_LOSSES}`,
      actual: String(MOST_LOSSES + 1),
      remedy: 'See their logs; the request may be what ends them.',
    })
  }

  #runOn(replica: RemoteReplica, delivery: Delivery): Promise<Completion[] | 'lost' | 'refused'> {
    delivery.begin()
    return new Promise((resolve, reject) => {
      this.#running = replica.run(this.#prompts, this.#params, {
        onChunk: (chunk) => delivery.take(chunk),
        onDone: (completions) => resolve([...completions]),
        onError: reject,
        onLost: () => resolve('lost'),
        onRefused: () => resolve('refused'),
      })
      if (this.#aborted) this.#running.abort()
      if (this.#paused) this.#running.pause(true)
    })
  }
}

function refused(): ReplicaError {
  return new ReplicaError('REPLICA_FAILED', {
    what: 'replicas are there, and none took the request',
    expected: `one that does, within ${REFUSED_MS / 1000} s`,
    remedy: 'See their logs, and whether this front may publish to tetrad.run.>.',
  })
}
