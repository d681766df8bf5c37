// The live page at /, and what it shows of the machine: a stream of what each rank did in the last quarter of a second.
import { readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import { setTimeout } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { assetUrl } from '../assets.js'
import type { RankCounters } from '../engine/ranks/mailbox.js'
import type { ServedModel } from './completions.js'
import { HttpError } from './http-error.js'
import type { ServedEngine } from './replicas/replica-pool.js'

const TICK_MS = 250
/** Pages that may watch at once. */
const MOST_WATCHERS = 16

const FILES = {
  '/': ['index.html', 'text/html; charset=utf-8'],
  '/page/app.js': ['app.js', 'text/javascript; charset=utf-8'],
  '/page/style.css': ['style.css', 'text/css; charset=utf-8'],
} as const

/** Shares of the time since the last look, 0..1: computing, by kind where that is known, and waiting at each collective. */
interface LiveRank {
  readonly parts: readonly { readonly kind: string; readonly share: number }[]
  readonly cacheBytesPerSecond: number
  readonly steps: number
}

export function addLivePage(app: FastifyInstance, models: ReadonlyMap<string, ServedModel>): void {
  for (const [path, [file, type]] of Object.entries(FILES)) {
    const content = readFileSync(assetUrl(`page/${file}`))
    app.get(path, async (_request, reply) =>
      reply
        .header('content-type', type)
        .header('content-security-policy', "default-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
        .header('x-content-type-options', 'nosniff')
        .send(content),
    )
  }
  // Else a page that is open would hold up the end for good.
  const closing = new AbortController()
  app.addHook('preClose', async () => closing.abort())
  let watchers = 0
  app.get('/live', async (_request, reply) => {
    if (watchers >= MOST_WATCHERS)
      throw new HttpError(429, 'overloaded', `${MOST_WATCHERS} pages watch already.`, { code: 'too_many_watchers', retryAfter: 5 })
    watchers++
    const gone = new AbortController()
    reply.raw.once('close', () => {
      watchers--
      gone.abort()
    })
    reply.header('content-type', 'text/event-stream; charset=utf-8').header('cache-control', 'no-cache')
    return reply.send(Readable.from(looks(models, AbortSignal.any([gone.signal, closing.signal])), { objectMode: false, highWaterMark: 4096 }))
  })
}

async function* looks(models: ReadonlyMap<string, ServedModel>, signal: AbortSignal): AsyncGenerator<string, void, undefined> {
  const views = new WeakMap<ServedEngine, EngineView>()
  while (!signal.aborted) {
    const seen = [...models.values()].map(({ id, engine }) => {
      const view = views.get(engine) ?? new EngineView(engine)
      views.set(engine, view)
      return { id, ...view.look() }
    })
    yield `data: ${JSON.stringify({ models: seen })}\n\n`
    await setTimeout(TICK_MS, undefined, { signal }).catch(() => {})
  }
}

/** What changed between two looks at an engine. */
class EngineView {
  readonly #engine: ServedEngine
  #before: readonly RankCounters[] = []
  #at = 0

  constructor(engine: ServedEngine) {
    this.#engine = engine
  }

  look(): object {
    const { running, queued, tokensPerSecond, pages, ranks } = this.#engine.stats()
    const now = performance.now()
    const elapsed = this.#at === 0 ? TICK_MS : now - this.#at
    const live = ranks.map((rank, i) => difference(rank, this.#before[i] ?? rank, elapsed))
    this.#before = ranks
    this.#at = now
    return { running, queued, tokensPerSecond, pages, ranks: live }
  }
}

function difference(now: RankCounters, before: RankCounters, elapsedMs: number): LiveRank {
  // Counters begin anew when ranks are restarted.
  const since = (a: number, b: number) => Math.max(0, a - b)
  const grown = <K extends string>(of: (rank: RankCounters) => Readonly<Partial<Record<K, number>>>, name: (key: K) => string) =>
    (Object.entries(of(now)) as [K, number][]).map(([key, ms]) => ({ kind: name(key), ms: since(ms, of(before)[key] ?? 0) }))
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
