// The replicas of one group (one model version and determinism key) as an engine.
import type { IndexedChunk } from '../../engine/engine.js'
import type { EngineInfo, EngineStats } from '../../engine/engine-info.js'
import type { Completion, Generation } from '../../engine/generation.js'
import type { Prompt } from '../../engine/prompts.js'
import { EngineClosedError, ReplicaError } from '../../errors.js'
import type { GenerateManyParams } from '../../options/public-types.js'
import type { TokenPiece } from '../../tokenizer/token-pieces.js'
import type { MarkedText } from '../../tokenizer/tokenizer-interface.js'
import { unpackError } from '../replicas/protocol.js'
import { generateInReplica, preferredReplica, type ReplicaSource } from '../replicas/replicated-request.js'
import { sumStats } from '../replicas/sum-stats.js'
import type { ServedEngine } from '../served-model.js'
import type { NatsLink } from './connection.js'
import { decode, encode, type PackedPiece, subjects, tooLarge } from './messages.js'
import { disconnected, type NatsReplica } from './nats-replica.js'

/** How long a request waits for a replica of its model, and how often it looks for one, milliseconds. */
const WAIT_MS = 30_000
const LOOK_MS = 50
const TOKENIZE_MS = 10_000

export class GroupPool implements ServedEngine, ReplicaSource {
  readonly info: EngineInfo
  readonly #link: NatsLink
  readonly #group: string
  readonly #texts: readonly string[]
  readonly #pieces: ReadonlyMap<number, TokenPiece>
  readonly #replicas = new Map<string, NatsReplica>()
  readonly #end = new AbortController()
  #running = 0
  #lost = 0
  #closed = false

  /** texts: of each token alone. pieces: of those tokens whose bytes are not their text's. */
  constructor(link: NatsLink, group: string, info: EngineInfo, texts: readonly string[], pieces: readonly PackedPiece[]) {
    this.#link = link
    this.#group = group
    this.info = info
    this.#texts = texts
    this.#pieces = new Map(pieces.map(([id, bytes, special]) => [id, { bytes, ...(special !== null && { special }) }]))
  }

  get replicas(): number {
    return this.#replicas.size
  }

  /** Whether there is an active replica: one that is not draining. */
  get available(): boolean {
    return [...this.#replicas.values()].some((replica) => !replica.draining)
  }

  /** Replicas may always come back; only this frontend's own end is final. */
  get failure(): Error | undefined {
    return this.#end.signal.aborted ? frontendClosed() : undefined
  }

  add(replica: NatsReplica): void {
    this.#replicas.set(replica.id, replica)
  }

  remove(id: string): void {
    if (this.#replicas.delete(id)) this.#lost++
  }

  /** By a replica of the group. Rejects as an engine does, and with ClusterError or ReplicaError where none answers. */
  async tokenize(text: string | MarkedText, { bos = false }: { bos?: boolean } = {}): Promise<number[]> {
    const payload = encode('tokenize', { text, bos })
    if (payload.length > this.#link.maxPayload) throw tooLarge('the text', payload.length, this.#link.maxPayload)
    if (!this.#link.connected) throw disconnected(this.#link)
    const answer = await this.#link.nc.request(subjects.tokenize(this.#group), payload, { timeout: TOKENIZE_MS }).catch((cause: unknown) => {
      throw new ReplicaError('REPLICA_FAILED', {
        what: 'no replica of the model has tokenized the text',
        expected: `an answer within ${TOKENIZE_MS / 1000} s`,
        actual: cause instanceof Error ? cause.message : String(cause),
        remedy: 'Send the request again.',
        cause,
      })
    })
    const { ids, error } = decode('tokens', answer.data)
    if (error) throw unpackError(error)
    return [...(ids ?? [])]
  }

  /** Joins the bytes of the tokens: characters of several tokens are whole. */
  detokenize(ids: readonly number[]): string {
    return Buffer.concat(ids.map((id) => this.tokenPiece(id).bytes)).toString('utf8')
  }

  tokenPiece(id: number): TokenPiece {
    return this.#pieces.get(id) ?? { bytes: Buffer.from(this.#texts[id] ?? '') }
  }

  generateMany(prompts: readonly Prompt[], params: GenerateManyParams): Generation<Completion[], IndexedChunk> {
    if (this.#closed) throw frontendClosed()
    const signal = params.signal ? AbortSignal.any([params.signal, this.#end.signal]) : this.#end.signal
    const generation = generateInReplica(this, prompts, { ...params, signal })
    this.#running++
    const ended = () => {
      this.#running--
    }
    // Whoever awaits or iterates the generation hears of a failure.
    generation.finally(ended).catch(() => {})
    return generation
  }

  stats(): EngineStats {
    const all = [...this.#replicas.values()].flatMap(({ stats }) => (stats ? [stats] : []))
    return sumStats(all, this.#lost)
  }

  async choose(prompts: readonly Prompt[], full: ReadonlySet<string>, signal: AbortSignal): Promise<NatsReplica | undefined> {
    const start = performance.now()
    for (;;) {
      if (this.#end.signal.aborted) throw frontendClosed()
      if (signal.aborted) return undefined
      const accepting = [...this.#replicas.values()].filter((replica) => replica.acceptsRequests)
      const usable = accepting.filter(({ id }) => !full.has(id))
      if (usable.length > 0) return preferredReplica(prompts, usable)
      if (accepting.length > 0) return undefined
      if (this.replicas > 0 && !this.available) throw drainingError()
      if (!this.#link.connected && this.#link.sinceMs > this.#link.deadlineMs) throw disconnected(this.#link)
      if (performance.now() - start > WAIT_MS) {
        throw new ReplicaError('REPLICA_FAILED', {
          what: `no replica of the model with the determinism key ${this.info.determinismKey} accepts requests`,
          expected: `one within ${WAIT_MS / 1000} s`,
          actual: `${this.replicas} replicas, none of which answers`,
          remedy: 'Start one with tetrad serve --nats. A replica of another version of the model cannot replace it.',
        })
      }
      await new Promise((done) => setTimeout(done, LOOK_MS))
    }
  }

  async close({ drainMs = 0 }: { drainMs?: number } = {}): Promise<void> {
    this.#closed = true
    const until = performance.now() + drainMs
    while (this.#running > 0 && performance.now() < until) await new Promise((done) => setTimeout(done, 20))
    this.#end.abort()
  }
}

/** Another version, or a new replica, takes over within a second or two. */
function drainingError(): ReplicaError {
  return new ReplicaError('REPLICA_FAILED', {
    what: 'all replicas of this version of the model are shutting down',
    remedy: 'Send the request again.',
  })
}

function frontendClosed(): EngineClosedError {
  return new EngineClosedError('ENGINE_CLOSED', { what: 'the frontend is closed', remedy: 'Send the request to another frontend.' })
}
