// Several processes with the same model behind one: requests go where their prefix was before or where least runs, and a request whose
// replica dies is replayed on another. Replicas have one determinism key, so the replay has the same tokens: those that were delivered
// are left out, and the client sees no gap and none twice.
import { randomBytes, randomInt } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { EngineOptions } from '../config/engine-options.js'
import type { Engine, IndexedChunk } from '../engine/engine.js'
import type { EngineInfo, EngineStats } from '../engine/engine-info.js'
import { type Completion, Generation } from '../engine/generation.js'
import type { Prompt } from '../engine/prompts.js'
import { EngineClosedError, OverloadedError, ReplicaError } from '../errors.js'
import type { ManyParams } from '../sampling/params.js'
import { loadTokenizer, type Tokenizer } from '../tokenizer/tokenizer.js'
import { Delivery } from './delivery.js'
import { prefixOwner } from './prefix-owner.js'
import { FrameDecoder, type ToFront } from './protocol.js'
import { Replica } from './replica.js'

/** What the server needs of an engine; a pool of replicas is one as well. */
export type ServedEngine = Pick<Engine, 'detokenize' | 'info'> & {
  generate(prompts: readonly Prompt[], params: ManyParams): Generation<Completion[], IndexedChunk>
  stats(): EngineStats
  close(options?: { drainMs?: number }): Promise<void>
}

/** Deaths within the window after which nothing is started anew. */
const MOST_DEATHS = 10
const WINDOW_MS = 60_000
const HELLO_MS = 30_000

export class ReplicaPool implements ServedEngine {
  readonly info: EngineInfo
  readonly #tokenizer: Tokenizer | undefined
  readonly #slots: (Replica | undefined)[]
  readonly #start: (index: number) => Promise<{ replica: Replica; info: EngineInfo }>
  readonly #cleanUp: () => Promise<void>
  readonly #onDeath: (text: string) => void
  readonly #deaths: number[] = []
  readonly #waiting = new Set<() => void>()
  #next = 1
  #restarts = 0
  #closed = false

  private constructor(parts: {
    info: EngineInfo
    tokenizer: Tokenizer | undefined
    slots: (Replica | undefined)[]
    start: (index: number) => Promise<{ replica: Replica; info: EngineInfo }>
    cleanUp: () => Promise<void>
    onDeath: (text: string) => void
    ended: { handler: (replica: Replica, reason: string) => void }
  }) {
    this.info = parts.info
    this.#tokenizer = parts.tokenizer
    this.#slots = parts.slots
    this.#start = parts.start
    this.#cleanUp = parts.cleanUp
    this.#onDeath = parts.onDeath
    parts.ended.handler = (replica, reason) => this.#died(replica, reason)
  }

  /** Starts `count` processes that load `dir`. Throws what Engine.load would. onDeath: told of each replica that died. */
  static async load(dir: string, options: EngineOptions, count: number, onDeath: (text: string) => void = () => {}): Promise<ReplicaPool> {
    const folder = await mkdtemp(join(tmpdir(), 'tetrad-replicas-'))
    const path = join(folder, 'socket')
    const expected = new Map<string, (socket: Socket) => void>()
    const server = await listen(path, expected)
    const ended = { handler: (_replica: Replica, _reason: string) => {} }
    const { signal: _, onProgress: __, ...sent } = options
    const start = async (index: number) => {
      const key = randomBytes(16).toString('hex')
      let replica: Replica | undefined
      const arrived = new Promise<Socket>((resolve, reject) => {
        const late = setTimeout(() => reject(new Error(`a replica did not connect within ${HELLO_MS} ms`)), HELLO_MS)
        expected.set(key, (socket) => {
          clearTimeout(late)
          resolve(socket)
        })
        replica = new Replica(index, path, key, (dead, reason) => {
          clearTimeout(late)
          reject(new Error(`a replica could not be started: ${reason}`))
          ended.handler(dead, reason)
        })
      }).finally(() => expected.delete(key))
      const made = replica as unknown as Replica
      try {
        return { replica: made, info: await made.attach(await arrived, { type: 'load', dir, options: sent }) }
      } catch (error) {
        await made.close(0)
        throw error
      }
    }
    const cleanUp = async () => {
      await new Promise<void>((resolve) => server.close(() => resolve()))
      await rm(folder, { recursive: true, force: true })
    }
    const begun = await Promise.allSettled(Array.from({ length: count }, (_unused, index) => start(index)))
    const failed = begun.find((result) => result.status === 'rejected')
    const replicas = begun.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
    if (failed) {
      await Promise.all(replicas.map(({ replica }) => replica.close(0)))
      await cleanUp()
      throw failed.reason
    }
    const [first] = replicas as [{ replica: Replica; info: EngineInfo }]
    const tokenizer = await loadTokenizer(dir, first.info.vocab)
    return new ReplicaPool({ info: first.info, tokenizer, slots: replicas.map(({ replica }) => replica), start, cleanUp, onDeath, ended })
  }

  detokenize(ids: readonly number[]): string {
    return this.#tokenizer?.decode(ids) ?? ''
  }

  /** Process ids, for tests. */
  get pids(): (number | undefined)[] {
    return this.#slots.map((replica) => replica?.pid)
  }

  generate(prompts: readonly Prompt[], params: ManyParams): Generation<Completion[], IndexedChunk> {
    const { signal, ...sent } = params
    // A replay must draw the same numbers.
    const seeded = { ...sent, seed: sent.seed ?? randomInt(2 ** 47) }
    const request = new RemoteRequest(this, prompts, seeded)
    if (signal?.aborted) request.abort()
    signal?.addEventListener('abort', () => request.abort(), { once: true })
    return new Generation<Completion[], IndexedChunk>((push) => request.run(push), request)
  }

  /** Sums over the replicas; ranks one after the other. */
  stats(): EngineStats {
    const all = this.#slots.flatMap((replica) => (replica?.alive && replica.stats ? [replica.stats] : []))
    const sum = (of: (stats: EngineStats) => number) => all.reduce((total, stats) => total + of(stats), 0)
    const [first] = all
    const empty = { boundsMs: [], counts: [], count: 0, sumMs: 0 }
    return {
      queued: sum((s) => s.queued),
      running: sum((s) => s.running),
      finished: sum((s) => s.finished),
      promptTokens: sum((s) => s.promptTokens),
      cachedTokens: sum((s) => s.cachedTokens),
      generatedTokens: sum((s) => s.generatedTokens),
      tokensPerSecond: sum((s) => s.tokensPerSecond),
      // Of the first: histograms of a pool are the server's own (/metrics).
      ttft: first?.ttft ?? empty,
      timePerToken: first?.timePerToken ?? empty,
      requestTime: first?.requestTime ?? empty,
      scheduling: first?.scheduling ?? empty,
      pages: { all: sum((s) => s.pages.all), inUse: sum((s) => s.pages.inUse), cached: sum((s) => s.pages.cached) },
      preemptions: sum((s) => s.preemptions),
      restarts: sum((s) => s.restarts) + this.#restarts,
      ranks: all.flatMap((s) => s.ranks),
    }
  }

  async close({ drainMs = 0 }: { drainMs?: number } = {}): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    for (const wake of this.#waiting) wake()
    await Promise.all(this.#slots.map((replica) => replica?.close(drainMs)))
    await this.#cleanUp()
  }

  /** The replica for a prompt, not one of `full`. Waits while all are being started anew. Throws ReplicaError or EngineClosedError. */
  async choose(prompts: readonly Prompt[], full: ReadonlySet<number>): Promise<Replica | undefined> {
    for (;;) {
      if (this.#closed) throw closed()
      const alive = this.#slots.filter((replica): replica is Replica => replica?.alive === true)
      const usable = alive.filter((replica) => !full.has(replica.index))
      if (alive.length > 0 && usable.length === 0) return undefined
      if (usable.length > 0) {
        const owner = prefixOwner(
          prompts[0] ?? '',
          usable.map((replica) => replica.index),
        )
        const preferred = usable.find((replica) => replica.index === owner) as Replica
        const least = usable.reduce((a, b) => (b.load < a.load ? b : a))
        // A cached prefix saves less than waiting behind many others costs.
        return preferred.load > 2 * least.load + 2 ? least : preferred
      }
      if (this.#exhausted()) {
        throw new ReplicaError('REPLICA_FAILED', {
          what: 'no replica is left',
          expected: `at most ${MOST_DEATHS} deaths in ${WINDOW_MS / 1000} s`,
          actual: String(this.#deaths.length),
          remedy: 'See the log for why they ended; start the server again.',
        })
      }
      await new Promise<void>((resolve) => {
        const wake = () => {
          this.#waiting.delete(wake)
          resolve()
        }
        this.#waiting.add(wake)
      })
    }
  }

  newId(): number {
    return this.#next++
  }

  #exhausted(): boolean {
    const since = performance.now() - WINDOW_MS
    while ((this.#deaths[0] ?? Number.POSITIVE_INFINITY) < since) this.#deaths.shift()
    return this.#deaths.length > MOST_DEATHS
  }

  #died(replica: Replica, reason: string): void {
    if (this.#slots[replica.index] === replica) this.#slots[replica.index] = undefined
    if (this.#closed) return
    this.#deaths.push(performance.now())
    this.#onDeath(`replica ${replica.index} is lost: ${reason}`)
    void this.#replace(replica.index)
  }

  async #replace(index: number): Promise<void> {
    try {
      if (this.#exhausted()) return
      const { replica } = await this.#start(index)
      if (this.#closed) await replica.close(0)
      else this.#slots[index] = replica
      this.#restarts++
    } catch {
      // Its death was told, and begins the next attempt.
    } finally {
      for (const wake of [...this.#waiting]) wake()
    }
  }
}

/** One request, wherever it runs. */
class RemoteRequest {
  readonly #pool: ReplicaPool
  readonly #prompts: readonly Prompt[]
  readonly #params: ManyParams
  #where: { replica: Replica; id: number } | undefined
  #aborted = false
  #paused = false

  constructor(pool: ReplicaPool, prompts: readonly Prompt[], params: ManyParams) {
    this.#pool = pool
    this.#prompts = prompts
    this.#params = params
  }

  abort(): void {
    this.#aborted = true
    this.#where?.replica.abort(this.#where.id)
  }

  pause(paused: boolean): void {
    this.#paused = paused
    this.#where?.replica.pause(this.#where.id, paused)
  }

  async run(push: (chunk: IndexedChunk) => void): Promise<Completion[]> {
    const delivery = new Delivery(push)
    const full = new Set<number>()
    let overloaded: Error | undefined
    for (;;) {
      const replica = await this.#pool.choose(this.#prompts, full)
      if (!replica) throw overloaded as Error
      try {
        const completions = await this.#runOn(replica, delivery)
        if (completions) return completions
      } catch (error) {
        if (!(error instanceof OverloadedError)) throw error
        overloaded = error
        full.add(replica.index)
      }
    }
  }

  /** undefined: the replica died. */
  #runOn(replica: Replica, delivery: Delivery): Promise<Completion[] | undefined> {
    delivery.begin()
    const id = this.#pool.newId()
    return new Promise((resolve, reject) => {
      this.#where = { replica, id }
      replica.run(id, this.#prompts, this.#params, {
        onChunk: (chunk) => delivery.take(chunk),
        onDone: (completions) => resolve([...completions]),
        onError: reject,
        onLost: () => resolve(undefined),
      })
      if (this.#aborted) replica.abort(id)
      if (this.#paused) replica.pause(id, true)
    })
  }
}

/** A socket at a path in a folder of our own; who connects must know a key that only its child was told. */
async function listen(path: string, expected: ReadonlyMap<string, (socket: Socket) => void>): Promise<Server> {
  const server = createServer((socket) => {
    const decoder = new FrameDecoder<ToFront>()
    socket.on('error', () => socket.destroy())
    socket.once('data', (data) => {
      try {
        const [hello] = decoder.take(data)
        const welcome = hello?.type === 'hello' ? expected.get(hello.key) : undefined
        if (welcome) welcome(socket)
        else socket.destroy()
      } catch {
        socket.destroy()
      }
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  return server
}

function closed(): EngineClosedError {
  return new EngineClosedError('ENGINE_CLOSED', { what: 'the replicas are closed', remedy: 'Start the server again.' })
}
