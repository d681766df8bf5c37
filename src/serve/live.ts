// The live page at /, and its data: a stream of events that say what each rank did in the last quarter of a second.
import { readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import { setTimeout } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { assetUrl } from '../assets.js'
import type { RankCounters } from '../engine/ranks/mailbox.js'
import { HttpError } from './http-error.js'
import type { ServedEngine, ServedModel } from './served-model.js'
import { event } from './sse.js'

const TICK_MS = 250
/** Pages that may watch at once. */
const MAX_WATCHERS = 16

const FILES = {
  '/': ['index.html', 'text/html; charset=utf-8'],
  '/page/app.js': ['app.js', 'text/javascript; charset=utf-8'],
  '/page/style.css': ['style.css', 'text/css; charset=utf-8'],
} as const

const CONTENT_POLICY = "default-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

interface LiveRank {
  /** Shares of the time since the last sample, 0 to 1: computing, by kind if the kinds are known, and waiting at each collective. */
  readonly parts: readonly { readonly kind: string; readonly share: number }[]
  readonly cacheBytesPerSecond: number
  readonly steps: number
}

export function addLivePage(app: FastifyInstance, models: ReadonlyMap<string, ServedModel>): void {
  for (const [path, [file, type]] of Object.entries(FILES)) {
    const content = readFileSync(assetUrl(`page/${file}`))
    app.get(path, async (_request, reply) =>
      reply.header('content-type', type).header('content-security-policy', CONTENT_POLICY).header('x-content-type-options', 'nosniff').send(content),
    )
  }
  // An open page would otherwise keep the server from closing.
  const closing = new AbortController()
  app.addHook('preClose', async () => closing.abort())
  let watchers = 0
  app.get('/live', async (_request, reply) => {
    if (watchers >= MAX_WATCHERS) {
      throw new HttpError(429, 'overloaded', `${MAX_WATCHERS} pages are watching already.`, { code: 'too_many_watchers', retryAfterMs: 5000 })
    }
    watchers++
    const gone = new AbortController()
    reply.raw.once('close', () => {
      watchers--
      gone.abort()
    })
    reply.header('content-type', 'text/event-stream; charset=utf-8').header('cache-control', 'no-cache')
    const events = liveEvents(models, AbortSignal.any([gone.signal, closing.signal]))
    return reply.send(Readable.from(events, { objectMode: false, highWaterMark: 4096 }))
  })
}

async function* liveEvents(models: ReadonlyMap<string, ServedModel>, signal: AbortSignal): AsyncGenerator<string, void, undefined> {
  const samplers = new WeakMap<ServedEngine, RankSampler>()
  while (!signal.aborted) {
    const samples = [...models.values()].map(({ id, engine }) => {
      const sampler = samplers.get(engine) ?? new RankSampler(engine)
      samplers.set(engine, sampler)
      return { id, ...sampler.sample() }
    })
    yield event({ models: samples })
    await setTimeout(TICK_MS, undefined, { signal }).catch(() => {})
  }
}

/** What changed in an engine between two samples. */
class RankSampler {
  readonly #engine: ServedEngine
  #before: readonly RankCounters[] = []
  #sampledAt = 0

  constructor(engine: ServedEngine) {
    this.#engine = engine
  }

  sample(): object {
    const { running, queued, tokensPerSecond, pages, ranks } = this.#engine.stats()
    const now = performance.now()
    const elapsed = this.#sampledAt === 0 ? TICK_MS : now - this.#sampledAt
    const live = ranks.map((rank, i) => difference(rank, this.#before[i] ?? rank, elapsed))
    this.#before = ranks
    this.#sampledAt = now
    return { running, queued, tokensPerSecond, pages, ranks: live }
  }
}

function difference(now: RankCounters, before: RankCounters, elapsedMs: number): LiveRank {
  // Counters restart from 0 when ranks are restarted.
  const since = (a: number, b: number) => Math.max(0, a - b)
  const grown = <K extends string>(timesOf: (rank: RankCounters) => Readonly<Partial<Record<K, number>>>, name: (key: K) => string) =>
    (Object.entries(timesOf(now)) as [K, number][]).map(([key, ms]) => ({ kind: name(key), ms: since(ms, timesOf(before)[key] ?? 0) }))
  const sum = (list: readonly { readonly ms: number }[]) => list.reduce((total, { ms }) => total + ms, 0)
  const waits = grown(
    (rank) => rank.waitMs,
    (site) => `waiting: ${site}`,
  )
  const kernels = grown(
    (rank) => rank.computeMs,
    (phase) => phase,
  )
  const rest = Math.max(0, since(now.stepMs, before.stepMs) - sum(waits) - sum(kernels))
  const parts = [...kernels, { kind: kernels.length > 0 ? 'norms, sums, copies' : 'computing', ms: rest }, ...waits].filter(({ ms }) => ms > 0)
  return {
    parts: parts.map(({ kind, ms }) => ({ kind, share: Math.min(1, ms / elapsedMs) })),
    cacheBytesPerSecond: (since(now.cacheBytes, before.cacheBytes) * 1000) / elapsedMs,
    steps: since(now.steps, before.steps),
  }
}
