// What a front knows of a NATS cluster: replicas as they come and go, and the models that they serve. Owns no engine.
import type { Msg } from '@nats-io/transport-node'
import type { IndexedChunk } from '../../engine/engine.js'
import type { EngineInfo, EngineStats } from '../../engine/engine-info.js'
import type { Completion, Generation } from '../../engine/generation.js'
import type { Prompt } from '../../engine/prompts.js'
import { EngineClosedError, ReplicaError } from '../../errors.js'
import type { GenerateManyParams } from '../../options/public-types.js'
import { PLAIN, templateOf } from '../../tokenizer/chat-template.js'
import type { ServedModel } from '../completions.js'
import { generateRemotely, preferred, type ReplicaSource } from '../replicas/remote-request.js'
import type { ServedEngine } from '../replicas/replica-pool.js'
import { sumStats } from '../replicas/sum-stats.js'
import type { NatsLink } from './connection.js'
import { Inbox } from './inbox.js'
import { checked, type Description, decode, encode, SERVICE, subjects } from './messages.js'
import { disconnected, NatsReplica } from './nats-replica.js'

/** Between two questions who is there, and for how long answers are taken. */
const DISCOVER_MS = 1000
const ANSWERS_MS = 500
const DESCRIBE_MS = 5000
/** How long a request waits for a replica of its model. */
const WAIT_MS = 30_000
/** A model without a replica is forgotten after so long. */
const GONE_MS = 60_000
/** Replicas of others that the log names. */
const MOST_LEFT_ALONE = 1000

interface Group {
  readonly model: ServedModel
  readonly pool: GroupPool
  /** Since when it has no replica. */
  emptyAt: number | undefined
}

export class Cluster {
  /** By name: the version that has been there for longest, while it has replicas. */
  readonly models = new Map<string, ServedModel>()
  readonly #link: NatsLink
  readonly #inbox: Inbox
  readonly #log: (text: string) => void
  readonly #groups = new Map<string, Group>()
  readonly #replicas = new Map<string, NatsReplica>()
  readonly #joining = new Set<string>()
  /** Of which it was said already. */
  readonly #leftAlone = new Set<string>()
  #timer: NodeJS.Timeout | undefined
  #closed = false

  private constructor(link: NatsLink, log: (text: string) => void) {
    this.#link = link
    this.#inbox = new Inbox(link)
    this.#log = log
  }

  /** Resolves when it has asked once who is there. */
  static async join(link: NatsLink, log: (text: string) => void): Promise<Cluster> {
    const cluster = new Cluster(link, log)
    await cluster.#discover()
    return cluster
  }

  /** Of a model's name: that of its version. */
  group(name: string): string | undefined {
    return this.models.get(name)?.fingerprint
  }

  /** Requests that run have so long to end; new ones are refused. */
  async drain(drainMs: number): Promise<void> {
    await Promise.all([...this.#groups.values()].map(({ pool }) => pool.close({ drainMs })))
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.drain(0)
    for (const replica of this.#replicas.values()) replica.end('this front ends')
    this.#inbox.end()
  }

  async #discover(): Promise<void> {
    try {
      if (this.#link.connected) {
        const found: Promise<void>[] = []
        const answers = await this.#link.nc.requestMany(`$SRV.INFO.${SERVICE}`, undefined, { strategy: 'timer', maxWait: ANSWERS_MS })
        for await (const answer of answers) found.push(this.#found(factsOf(answer)))
        await Promise.all(found)
      }
    } catch {
      // Nobody there, or no connection: the next question may be answered.
    }
    this.#choose()
    if (!this.#closed) this.#timer = setTimeout(() => void this.#discover(), DISCOVER_MS)
  }

  async #found(info: { id?: unknown; metadata?: unknown }): Promise<void> {
    const { id } = info
    if (typeof id !== 'string' || this.#replicas.has(id) || this.#joining.has(id) || this.#closed) return
    this.#joining.add(id)
    try {
      const { model, group } = checked('metadata', info.metadata)
      if (!this.#groups.has(group)) await this.#describe(model, group)
      if (this.#closed) return
      const replica = new NatsReplica(this.#link, this.#inbox, group, id, (_, reason) => this.#left(id, model, reason))
      this.#replicas.set(id, replica)
      this.#groups.get(group)?.pool.add(replica)
      this.#log(`replica ${id} of ${model} (${group}) is there`)
    } catch (error) {
      if (this.#leftAlone.has(id) || this.#leftAlone.size >= MOST_LEFT_ALONE) return
      this.#leftAlone.add(id)
      this.#log(`replica ${id.slice(0, 64)} is left alone: ${error instanceof Error ? error.message : String(error)}`)
    } finally {
      this.#joining.delete(id)
    }
  }

  #left(id: string, model: string, reason: string): void {
    this.#replicas.delete(id)
    for (const { pool } of this.#groups.values()) pool.remove(id)
    if (this.#closed) return
    this.#log(`replica ${id} of ${model} is gone: ${reason}`)
    this.#choose()
  }

  /** Asks the group what it runs; the texts of its tokens come in several answers. */
  async #describe(name: string, group: string): Promise<void> {
    const ask = async (from: number): Promise<Description> => {
      const answer = await this.#link.nc.request(subjects.describe(group), encode('describe', { from }), { timeout: DESCRIBE_MS })
      return decode('description', answer.data)
    }
    const first = await ask(0)
    let texts = first.texts
    while (texts.length < first.info.vocab) {
      const { texts: more } = await ask(texts.length)
      if (more.length === 0) throw new Error(`it has ${first.info.vocab} tokens, and texts of ${texts.length}`)
      texts = texts.concat(more)
    }
    // Another replica's question was answered meanwhile.
    if (this.#groups.has(group)) return
    const pool = new GroupPool(this.#link, first.info, texts)
    const template = first.template === null ? PLAIN : templateOf(first.template)
    const created = Math.floor(Date.now() / 1000)
    this.#groups.set(group, { model: { id: name, engine: pool, template, created, fingerprint: group }, pool, emptyAt: undefined })
  }

  /** Which version each name stands for. A new one takes over when the old one has no replica left that takes requests. */
  #choose(): void {
    const now = performance.now()
    for (const [name, group] of this.#groups) {
      const { pool, model } = group
      group.emptyAt = pool.replicas > 0 ? undefined : (group.emptyAt ?? now)
      const gone = group.emptyAt !== undefined && now - group.emptyAt > GONE_MS && this.#link.connected
      if (gone) this.#groups.delete(name)
      const current = this.models.get(model.id)
      if (gone && current === model) this.models.delete(model.id)
      else if (pool.stays && !this.#groups.get(current?.fingerprint ?? '')?.pool.stays) this.models.set(model.id, model)
    }
  }
}

/** The replicas of one model and determinism key, as an engine. */
class GroupPool implements ServedEngine, ReplicaSource {
  readonly info: EngineInfo
  readonly #link: NatsLink
  readonly #texts: readonly string[]
  readonly #replicas = new Map<string, NatsReplica>()
  readonly #end = new AbortController()
  #running = 0
  #lost = 0
  #closed = false

  constructor(link: NatsLink, info: EngineInfo, texts: readonly string[]) {
    this.#link = link
    this.info = info
    this.#texts = texts
  }

  get replicas(): number {
    return this.#replicas.size
  }

  /** Whether one is there that is not about to end. */
  get stays(): boolean {
    return [...this.#replicas.values()].some((replica) => !replica.draining)
  }

  add(replica: NatsReplica): void {
    this.#replicas.set(replica.id, replica)
  }

  remove(id: string): void {
    if (this.#replicas.delete(id)) this.#lost++
  }

  /** Of single tokens: texts whose characters are of several tokens are not put together. */
  detokenize(ids: readonly number[]): string {
    return ids.map((id) => this.#texts[id] ?? '').join('')
  }

  generateMany(prompts: readonly Prompt[], params: GenerateManyParams): Generation<Completion[], IndexedChunk> {
    if (this.#closed) throw frontClosed()
    const signal = params.signal ? AbortSignal.any([params.signal, this.#end.signal]) : this.#end.signal
    const generation = generateRemotely(this, prompts, { ...params, signal })
    this.#running++
    const ended = () => {
      this.#running--
    }
    // A failure is heard by whoever awaits or iterates.
    generation.finally(ended).catch(() => {})
    return generation
  }

  stats(): EngineStats {
    const all = [...this.#replicas.values()].flatMap(({ stats }) => (stats ? [stats] : []))
    return sumStats(all, this.#lost)
  }

  async choose(prompts: readonly Prompt[], full: ReadonlySet<string>): Promise<NatsReplica | undefined> {
    const start = performance.now()
    for (;;) {
      if (this.#end.signal.aborted) throw frontClosed()
      const open = [...this.#replicas.values()].filter((replica) => replica.open)
      const usable = open.filter(({ id }) => !full.has(id))
      if (usable.length > 0) return preferred(prompts, usable)
      if (open.length > 0) return undefined
      if (this.replicas > 0 && !this.stays) throw allEnd()
      if (!this.#link.connected && this.#link.sinceMs > this.#link.deadlineMs) throw disconnected(this.#link)
      if (performance.now() - start > WAIT_MS) {
        throw new ReplicaError('REPLICA_FAILED', {
          what: `no replica of the model with the key ${this.info.determinismKey} is there`,
          expected: `one within ${WAIT_MS / 1000} s`,
          remedy: 'Start one: tetrad serve --nats; a replica of another version of the model does not answer in its place.',
        })
      }
      await new Promise((done) => setTimeout(done, 50))
    }
  }

  async close({ drainMs = 0 }: { drainMs?: number } = {}): Promise<void> {
    this.#closed = true
    const until = performance.now() + drainMs
    while (this.#running > 0 && performance.now() < until) await new Promise((done) => setTimeout(done, 20))
    this.#end.abort()
  }
}

/** {}: it is no answer of a service. */
function factsOf(answer: Msg): { id?: unknown; metadata?: unknown } {
  try {
    return answer.json() ?? {}
  } catch {
    return {}
  }
}

/** Another version, or a new replica, takes over within a second or two. */
function allEnd(): ReplicaError {
  return new ReplicaError('REPLICA_FAILED', {
    what: 'all replicas of this version of the model are about to end',
    remedy: 'Send the request again.',
  })
}

function frontClosed(): EngineClosedError {
  return new EngineClosedError('ENGINE_CLOSED', { what: 'the front is closed', remedy: 'Ask another front.' })
}
