// What a frontend knows of a NATS cluster: replicas as they come and go, and the models that they serve. It owns no engine.
import type { Msg } from '@nats-io/transport-node'
import { plainTemplate, templateOf } from '../../tokenizer/chat-template.js'
import type { ServedModel } from '../served-model.js'
import type { NatsLink } from './connection.js'
import { GroupPool } from './group-pool.js'
import { Inbox } from './inbox.js'
import { checked, type Description, decode, encode, SERVICE, subjects } from './messages.js'
import { NatsReplica } from './nats-replica.js'

/** Time between two searches for replicas, and how long answers to one are collected, milliseconds. */
const DISCOVER_MS = 1000
const ANSWERS_MS = 500
const DESCRIBE_MS = 5000
/** A model without a replica is forgotten after this time. */
const FORGET_AFTER_MS = 60_000
/** Ignored replicas that the log names. */
const MAX_IGNORED = 1000

interface Group {
  readonly model: ServedModel
  readonly pool: GroupPool
  /** Since when it has no replica. */
  emptyAt: number | undefined
}

export class Cluster {
  /** By name: the version that was discovered first, while it has replicas. */
  readonly models = new Map<string, ServedModel>()
  readonly #link: NatsLink
  readonly #inbox: Inbox
  readonly #log: (text: string) => void
  readonly #groups = new Map<string, Group>()
  readonly #replicas = new Map<string, NatsReplica>()
  readonly #joining = new Set<string>()
  /** Replicas that the log has named as ignored. */
  readonly #ignored = new Set<string>()
  #timer: NodeJS.Timeout | undefined
  #closed = false

  private constructor(link: NatsLink, log: (text: string) => void) {
    this.#link = link
    this.#inbox = new Inbox(link)
    this.#log = log
  }

  /** Resolves after the first search for replicas. */
  static async join(link: NatsLink, log: (text: string) => void): Promise<Cluster> {
    const cluster = new Cluster(link, log)
    await cluster.#discover()
    return cluster
  }

  /** The group (model version) that a model's name stands for now. */
  group(name: string): string | undefined {
    return this.models.get(name)?.fingerprint
  }

  /** Lets running requests end for up to drainMs; new ones are refused. */
  async drain(drainMs: number): Promise<void> {
    await Promise.all([...this.#groups.values()].map(({ pool }) => pool.close({ drainMs })))
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.drain(0)
    for (const replica of this.#replicas.values()) replica.end('this frontend shuts down')
    this.#inbox.end()
  }

  async #discover(): Promise<void> {
    try {
      if (this.#link.connected) {
        const joining: Promise<void>[] = []
        const answers = await this.#link.nc.requestMany(`$SRV.INFO.${SERVICE}`, undefined, { strategy: 'timer', maxWait: ANSWERS_MS })
        for await (const answer of answers) joining.push(this.#onDiscovered(infoOf(answer)))
        await Promise.all(joining)
      }
    } catch {
      // No replica answers, or there is no connection: the next search may succeed.
    }
    this.#updateModels()
    if (!this.#closed) this.#timer = setTimeout(() => void this.#discover(), DISCOVER_MS)
  }

  async #onDiscovered(info: { id?: unknown; metadata?: unknown }): Promise<void> {
    const { id } = info
    if (typeof id !== 'string' || this.#replicas.has(id) || this.#joining.has(id) || this.#closed) return
    this.#joining.add(id)
    try {
      const { model, group } = checked('metadata', info.metadata)
      if (!this.#groups.has(group)) await this.#describe(model, group)
      if (this.#closed) return
      const replica = new NatsReplica(this.#link, this.#inbox, { group, instance: id }, (reason) => this.#onLost(id, model, reason), this.#log)
      this.#replicas.set(id, replica)
      this.#groups.get(group)?.pool.add(replica)
      this.#log(`replica ${id} of ${model} (${group}) joined`)
    } catch (error) {
      if (this.#ignored.has(id) || this.#ignored.size >= MAX_IGNORED) return
      this.#ignored.add(id)
      this.#log(`ignoring replica ${id.slice(0, 64)}: ${error instanceof Error ? error.message : String(error)}`)
    } finally {
      this.#joining.delete(id)
    }
  }

  #onLost(id: string, model: string, reason: string): void {
    this.#replicas.delete(id)
    for (const { pool } of this.#groups.values()) pool.remove(id)
    if (this.#closed) return
    this.#log(`replica ${id} of ${model} is gone: ${reason}`)
    this.#updateModels()
  }

  /** Asks a group what it runs. The texts of its tokens arrive in several answers. */
  async #describe(name: string, group: string): Promise<void> {
    const ask = async (from: number): Promise<Description> => {
      const answer = await this.#link.nc.request(subjects.describe(group), encode('describe', { from }), { timeout: DESCRIBE_MS })
      return decode('description', answer.data)
    }
    const first = await ask(0)
    let texts = first.texts
    let pieces = first.pieces
    while (texts.length < first.info.vocab) {
      const more = await ask(texts.length)
      if (more.texts.length === 0) throw new Error(`it has ${first.info.vocab} tokens, but describes ${texts.length}`)
      texts = texts.concat(more.texts)
      pieces = pieces.concat(more.pieces)
    }
    // Another replica of the group was described meanwhile.
    if (this.#groups.has(group)) return
    const controls = pieces.flatMap(([, , special]) => special ?? [])
    const pool = new GroupPool(this.#link, group, first.info, texts, pieces)
    const template = first.template === null ? plainTemplate(controls) : templateOf(first.template)
    const created = Math.floor(Date.now() / 1000)
    this.#groups.set(group, { model: { id: name, engine: pool, template, created, fingerprint: group }, pool, emptyAt: undefined })
  }

  /** Which version each name stands for. A new one takes over when the old one has no active replica left. */
  #updateModels(): void {
    const now = performance.now()
    for (const [id, group] of this.#groups) {
      const { pool, model } = group
      group.emptyAt = pool.replicas > 0 ? undefined : (group.emptyAt ?? now)
      const isGone = group.emptyAt !== undefined && now - group.emptyAt > FORGET_AFTER_MS && this.#link.connected
      if (isGone) this.#groups.delete(id)
      const current = this.models.get(model.id)
      if (isGone && current === model) this.models.delete(model.id)
      else if (pool.available && !this.#groups.get(current?.fingerprint ?? '')?.pool.available) this.models.set(model.id, model)
    }
  }
}

/** {}: the message is not an answer of a service. */
function infoOf(answer: Msg): { id?: unknown; metadata?: unknown } {
  try {
    return answer.json() ?? {}
  } catch {
    return {}
  }
}
