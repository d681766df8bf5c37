// Statistics of several engines as those of one.
import type { EngineStats } from '../../engine/engine-info.js'
import type { HistogramData } from '../../engine/ranks/statistics.js'

/** Adds counters and histograms, and lists all ranks. restarts: of replicas, added to the restarts of their ranks. */
export function sumStats(all: readonly EngineStats[], restarts: number): EngineStats {
  const sum = (value: (stats: EngineStats) => number) => all.reduce((total, stats) => total + value(stats), 0)
  const merge = (value: (stats: EngineStats) => HistogramData) => mergeHistograms(all.map(value))
  const drafts = all.flatMap(({ draft }) => draft ?? [])
  return {
    queued: sum((s) => s.queued),
    running: sum((s) => s.running),
    finished: sum((s) => s.finished),
    promptTokens: sum((s) => s.promptTokens),
    cachedTokens: sum((s) => s.cachedTokens),
    generatedTokens: sum((s) => s.generatedTokens),
    draftedTokens: sum((s) => s.draftedTokens),
    acceptedTokens: sum((s) => s.acceptedTokens),
    tokensPerSecond: sum((s) => s.tokensPerSecond),
    ttft: merge((s) => s.ttft),
    timePerToken: merge((s) => s.timePerToken),
    requestTime: merge((s) => s.requestTime),
    scheduling: merge((s) => s.scheduling),
    pages: { all: sum((s) => s.pages.all), inUse: sum((s) => s.pages.inUse), cached: sum((s) => s.pages.cached) },
    preemptions: sum((s) => s.preemptions),
    restarts: sum((s) => s.restarts) + restarts,
    ranks: all.flatMap((s) => s.ranks),
    ...(drafts.length > 0 && { draft: { restarts: drafts.reduce((total, d) => total + d.restarts, 0), failed: drafts.some((d) => d.failed) } }),
  }
}

/** Buckets are added where the bounds agree, as they do between engines of one version; else only count and sum are. */
function mergeHistograms(list: readonly HistogramData[]): HistogramData {
  const [first = { boundsMs: [], counts: [], count: 0, sumMs: 0 }] = list
  const alike = list.filter(({ boundsMs }) => boundsMs.join() === first.boundsMs.join())
  return {
    boundsMs: first.boundsMs,
    counts: first.counts.map((_, bucket) => alike.reduce((total, { counts }) => total + (counts[bucket] ?? 0), 0)),
    count: list.reduce((total, { count }) => total + count, 0),
    sumMs: list.reduce((total, { sumMs }) => total + sumMs, 0),
  }
}
