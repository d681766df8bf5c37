// Several processes with the same model behind one: requests go where their prefix was before or where least runs, and a request whose
// replica dies is replayed on another.
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Engine, IndexedChunk } from '../../engine/engine.js'
import type { EngineInfo, EngineStats } from '../../engine/engine-info.js'
import type { Completion, Generation } from '../../engine/generation.js'
import type { Prompt } from '../../engine/prompts.js'
import { EngineClosedError, ReplicaError } from '../../errors.js'
import type { EngineOptions, GenerateManyParams } from '../../options/public-types.js'
import { loadTokenizer, type Tokenizer } from '../../tokenizer/tokenizer.js'
import { FrameDecoder, type ToFront } from './protocol.js'
import { generateRemotely, preferred, type ReplicaSource } from './remote-request.js'
import { Replica } from './replica.js'
import { sumStats } from './sum-stats.js'

/** What the server needs of an engine; a pool of replicas is one as well. */
export type ServedEngine = Pick<Engine, 'detokenize' | 'info'> & {
  generateMany(prompts: readonly Prompt[], params: GenerateManyParams): Generation<Completion[], IndexedChunk>
  stats(): EngineStats
  close(options?: { drainMs?: number }): Promise<void>
}

/** Deaths within the window after which nothing is started anew. */
const MOST_DEATHS = 10
const WINDOW_MS = 60_000
const HELLO_MS = 30_000

export class ReplicaPool implements ServedEngine, ReplicaSource {
  readonly info: EngineInfo
  readonly #tokenizer: Tokenizer | undefined
  readonly #slots: (Replica | undefined)[]
  readonly #start: (index: number) => Promise<{ replica: Replica; info: EngineInfo }>
  readonly #cleanUp: () => Promise<void>
  readonly #onDeath: (text: string) => void
  readonly #deaths: number[] = []
  readonly #waiting = new Set<() => void>()
  #restarts = 0
  #gaveUp = false
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

  generateMany(prompts: readonly Prompt[], params: GenerateManyParams): Generation<Completion[], IndexedChunk> {
    return generateRemotely(this, prompts, params)
  }

  /** Sums over the replicas. */
  stats(): EngineStats {
    const all = this.#slots.flatMap((replica) => (replica?.alive && replica.stats ? [replica.stats] : []))
    return sumStats(all, this.#restarts)
  }

  async close({ drainMs = 0 }: { drainMs?: number } = {}): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    for (const wake of this.#waiting) wake()
    await Promise.all(this.#slots.map((replica) => replica?.close(drainMs)))
    await this.#cleanUp()
  }

  /** The replica for a prompt, not one of `full`. Waits while all are being started anew. Throws ReplicaError or EngineClosedError. */
  async choose(prompts: readonly Prompt[], full: ReadonlySet<string>): Promise<Replica | undefined> {
    for (;;) {
      if (this.#closed) throw closed()
      const alive = this.#slots.filter((replica): replica is Replica => replica?.alive === true)
      const usable = alive.filter((replica) => !full.has(replica.id))
      if (alive.length > 0 && usable.length === 0) return undefined
      if (usable.length > 0) return preferred(prompts, usable)
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

  #exhausted(): boolean {
    const since = performance.now() - WINDOW_MS
    while ((this.#deaths[0] ?? Number.POSITIVE_INFINITY) < since) this.#deaths.shift()
    // For good: nothing is started any more.
    this.#gaveUp ||= this.#deaths.length > MOST_DEATHS
    return this.#gaveUp
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
