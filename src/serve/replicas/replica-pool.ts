// Several processes with the same model as one engine. A request goes to the replica whose cache has its prefix, or to the least busy one; a
// request whose replica dies is replayed in another.
import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import type { IndexedChunk } from '../../engine/engine.js'
import type { EngineInfo, EngineStats } from '../../engine/engine-info.js'
import type { Completion, Generation } from '../../engine/generation.js'
import { type Prompt, PromptReader } from '../../engine/prompts.js'
import { EngineClosedError, ReplicaError } from '../../errors.js'
import type { EngineOptions, GenerateManyParams } from '../../options/public-types.js'
import { type TokenPiece, TokenPieces } from '../../tokenizer/token-pieces.js'
import { loadTokenizer, type Tokenizer } from '../../tokenizer/tokenizer.js'
import type { MarkedText } from '../../tokenizer/tokenizer-interface.js'
import type { ServedEngine } from '../served-model.js'
import { Replica } from './replica.js'
import { ReplicaSocket } from './replica-socket.js'
import { generateInReplica, preferredReplica, type ReplicaSource } from './replicated-request.js'
import { sumStats } from './sum-stats.js'

/** Deaths within the window after which no replica is started any more. */
const MAX_DEATHS = 10
const DEATH_WINDOW_MS = 60_000
/** Starts in a row that may fail, however long each of them takes. */
const MAX_FAILED_STARTS = 5
/** Time in which a new process must connect, milliseconds. */
const HELLO_MS = 30_000

interface Started {
  readonly replica: Replica
  readonly info: EngineInfo
}

/** Starts replicas of one model; tells of each that died. */
interface Starter {
  start(index: number): Promise<Started>
  /** Set by the pool. */
  onEnd: (replica: Replica, reason: string) => void
}

export class ReplicaPool implements ServedEngine, ReplicaSource {
  readonly info: EngineInfo
  /** Each replica has them. */
  readonly adapters: readonly { readonly name: string }[]
  readonly #prompts: PromptReader
  readonly #pieces: TokenPieces
  readonly #slots: (Replica | undefined)[]
  readonly #starter: Starter
  readonly #socket: ReplicaSocket
  readonly #log: (text: string) => void
  readonly #deaths: number[] = []
  readonly #waiting = new Set<() => void>()
  #failedStarts = 0
  #restarts = 0
  #gaveUp = false
  #closed = false

  private constructor(
    replicas: readonly Started[],
    tokenizer: Tokenizer | undefined,
    starter: Starter,
    socket: ReplicaSocket,
    log: (text: string) => void,
    adapters: readonly string[],
  ) {
    this.adapters = adapters.map((name) => ({ name }))
    const [first] = replicas as [Started]
    this.info = first.info
    this.#prompts = new PromptReader(tokenizer, first.info)
    this.#pieces = new TokenPieces(tokenizer)
    this.#slots = replicas.map(({ replica }) => replica)
    this.#starter = starter
    this.#socket = socket
    this.#log = log
    starter.onEnd = (replica, reason) => this.#died(replica, reason)
  }

  /** Starts `count` processes that load `dir`. Rejects with what Engine.load would. log: told of each replica that died. */
  static async load(dir: string, options: EngineOptions, count: number, log: (text: string) => void = () => {}): Promise<ReplicaPool> {
    const socket = await ReplicaSocket.open()
    const { signal: _, onProgress: __, ...sent } = options
    const starter: Starter = {
      onEnd: () => {},
      start: async (index) => {
        const { replica, connected } = spawnReplica(socket, index, (dead, reason) => starter.onEnd(dead, reason))
        try {
          return { replica, info: await replica.attach(await connected, { type: 'load', dir, options: sent }) }
        } catch (error) {
          await replica.close(0)
          throw error
        }
      },
    }
    const results = await Promise.allSettled(Array.from({ length: count }, (_unused, index) => starter.start(index)))
    const replicas = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
    try {
      for (const result of results) if (result.status === 'rejected') throw result.reason
      const [first] = replicas as [Started]
      const tokenizer = first.info.hasTokenizer ? await loadTokenizer(dir, first.info.vocab) : undefined
      return new ReplicaPool(replicas, tokenizer, starter, socket, log, Object.keys(options.adapters ?? {}))
    } catch (error) {
      await Promise.all(replicas.map(({ replica }) => replica.close(0)))
      await socket.close()
      throw error
    }
  }

  /** In this process, by the same files. */
  tokenize(text: string | MarkedText, { bos = false }: { bos?: boolean } = {}): Promise<number[]> {
    return this.#prompts.tokenize(text, bos)
  }

  detokenize(ids: readonly number[]): string {
    return this.#prompts.textOf(ids)
  }

  tokenPiece(id: number): TokenPiece {
    return this.#pieces.piece(id)
  }

  /** Process ids, for tests. */
  get pids(): (number | undefined)[] {
    return this.#slots.map((replica) => replica?.pid)
  }

  get failure(): Error | undefined {
    if (this.#closed) return closed()
    return this.#alive().length === 0 && this.#isExhausted() ? this.#exhausted() : undefined
  }

  get available(): boolean {
    return this.#alive().length > 0
  }

  generateMany(prompts: readonly Prompt[], params: GenerateManyParams): Generation<Completion[], IndexedChunk> {
    return generateInReplica(this, prompts, params)
  }

  /** Sums over the replicas. */
  stats(): EngineStats {
    const all = this.#alive().flatMap(({ stats }) => (stats ? [stats] : []))
    return sumStats(all, this.#restarts)
  }

  async close({ drainMs = 0 }: { drainMs?: number } = {}): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    for (const wake of [...this.#waiting]) wake()
    await Promise.all(this.#slots.map((replica) => replica?.close(drainMs)))
    await this.#socket.close()
  }

  /** Waits while all replicas are being started. Rejects with ReplicaError once none is started any more, or EngineClosedError. */
  async choose(prompts: readonly Prompt[], full: ReadonlySet<string>, signal: AbortSignal): Promise<Replica | undefined> {
    for (;;) {
      if (signal.aborted) return undefined
      if (this.#closed) throw closed()
      const alive = this.#alive()
      const usable = alive.filter((replica) => !full.has(replica.id))
      if (usable.length > 0) return preferredReplica(prompts, usable)
      if (alive.length > 0) return undefined
      if (this.#isExhausted()) throw this.#exhausted()
      await this.#nextChange(signal)
    }
  }

  #alive(): Replica[] {
    return this.#slots.filter((replica): replica is Replica => replica?.alive === true)
  }

  /** Resolves when a replica was started, or could not be, and when the signal aborts. */
  async #nextChange(signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      const wake = () => {
        this.#waiting.delete(wake)
        signal.removeEventListener('abort', wake)
        resolve()
      }
      this.#waiting.add(wake)
      signal.addEventListener('abort', wake, { once: true })
    })
  }

  /** Too many deaths: nothing is started any more. */
  #isExhausted(): boolean {
    const since = performance.now() - DEATH_WINDOW_MS
    while ((this.#deaths[0] ?? Number.POSITIVE_INFINITY) < since) this.#deaths.shift()
    this.#gaveUp ||= this.#deaths.length > MAX_DEATHS || this.#failedStarts > MAX_FAILED_STARTS
    return this.#gaveUp
  }

  #exhausted(): ReplicaError {
    return new ReplicaError('REPLICA_FAILED', {
      what: 'no replica is left',
      expected: `at most ${MAX_DEATHS} deaths in ${DEATH_WINDOW_MS / 1000} s and ${MAX_FAILED_STARTS} failed starts in a row`,
      actual: `${this.#deaths.length} deaths, ${this.#failedStarts} failed starts`,
      remedy: 'Check the log for why they ended, and start the server again.',
    })
  }

  #died(replica: Replica, reason: string): void {
    if (this.#slots[replica.index] === replica) this.#slots[replica.index] = undefined
    if (this.#closed) return
    this.#deaths.push(performance.now())
    this.#log(`replica ${replica.index} is lost: ${reason}`)
    void this.#replace(replica.index)
  }

  async #replace(index: number): Promise<void> {
    try {
      if (this.#isExhausted()) return
      const { replica } = await this.#starter.start(index)
      this.#failedStarts = 0
      if (this.#closed) await replica.close(0)
      else this.#slots[index] = replica
      this.#restarts++
    } catch {
      // Its death was logged, and started the next attempt.
      this.#failedStarts++
    } finally {
      for (const wake of [...this.#waiting]) wake()
    }
  }
}

/** A new process, and its connection. `connected` rejects if the process ends first or is late. */
function spawnReplica(
  socket: ReplicaSocket,
  index: number,
  onEnd: (replica: Replica, reason: string) => void,
): { replica: Replica; connected: Promise<Socket> } {
  const key = randomBytes(16).toString('hex')
  const { arrived, cancel } = socket.expect(key, HELLO_MS)
  const replica = new Replica(index, socket.path, key, (dead, reason) => {
    cancel(new Error(`a replica could not be started: ${reason}`))
    onEnd(dead, reason)
  })
  return { replica, connected: arrived }
}

function closed(): EngineClosedError {
  return new EngineClosedError('ENGINE_CLOSED', { what: 'the replicas are closed', remedy: 'Start the server again.' })
}
