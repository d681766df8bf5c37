// Statistics of several engines as one.
import type { EngineStats } from '../../engine/engine-info.js'

/** Sums; ranks one after the other. restarts: of replicas, beside those of their ranks. */
export function sumStats(all: readonly EngineStats[], restarts: number): EngineStats {
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
    restarts: sum((s) => s.restarts) + restarts,
    ranks: all.flatMap((s) => s.ranks),
  }
}
