// What an engine is and what it has done, for its users: built from its parts. Owns nothing.

import type { EventEmitter } from 'node:events'
import type { CacheFormat } from '../../kernels/cache-format.js'
import type { AdapterFacts } from '../../kernels/gpu/adapter.js'
import type { WeightFormat } from '../../kernels/weight-format.js'
import type { ModelLayout } from '../../workers/layout/model-layout.js'
import { PAGE_TOKENS, type RunPlan } from '../../workers/protocol.js'
import type { Tokenizer } from '../tokenizer/tokenizer.js'
import type { EngineAdapters } from './adapters/engine-adapters.js'
import type { Determinism } from './determinism.js'
import type { DraftModel } from './draft/draft-model.js'
import { memoryNeed } from './memory.js'
import type { OpenModel } from './model.js'
import type { Coordinator, RestartEvent } from './ranks/coordinator.js'
import type { RankCounters } from './ranks/mailbox.js'
import type { Profiler } from './ranks/profile.js'
import type { HistogramData, Statistics } from './ranks/statistics.js'
import type { PageAllocator } from './scheduling/page-allocator.js'
import type { Scheduler } from './scheduling/scheduler.js'
import type { EngineMemories } from './start-engine.js'

/** What an engine runs. */
export interface EngineInfo {
  readonly variant: string
  readonly parameters: number
  readonly ranks: 1 | 2 | 4
  readonly backend: 'gpu' | 'wasm' | 'reference'
  /** Why this backend: what 'auto' found, or that it was asked for. */
  readonly backendReason: string
  /** Of each rank, on the gpu backend. */
  readonly adapters: readonly AdapterFacts[]
  readonly weights: WeightFormat
  readonly cache: CacheFormat
  /** How ranks share the cache. */
  readonly partition: 'heads' | 'sequence'
  /** Most tokens of a request, prompt and output: maxContext or the model's block_size, or what the cache holds if that is less. */
  readonly contextTokens: number
  /** Tokens that the cache holds, all requests together. */
  readonly cacheTokens: number
  /** Memory of weights, cache, buffers and the adapters of the option, all ranks together; on the gpu backend that of the host, without what lies on devices. */
  readonly memoryBytes: number
  readonly vocab: number
  readonly hasTokenizer: boolean
  /** Ids that end a text. */
  readonly endIds: readonly number[]
  /** Id that begins a document, if the tokenizer names one. */
  readonly bosId?: number
  /** The tokenizer puts bosId before a text prompt unless `bos` says otherwise. */
  readonly addsBos: boolean
  /** Engines with equal keys give equal bits for the same ids. */
  readonly determinismKey: string
  /** 32 hexadecimal digits: of the key and the tokenizer. */
  readonly determinismDigest: string
  readonly loadMs: number
  /** The model that guesses tokens ahead; its memory is part of memoryBytes. */
  readonly draft?: { readonly dir: string; readonly parameters: number; readonly memoryBytes: number; readonly contextTokens: number }
}

/** Counters since loading; histograms in milliseconds. */
export interface EngineStats {
  readonly queued: number
  readonly running: number
  readonly finished: number
  readonly promptTokens: number
  readonly cachedTokens: number
  readonly generatedTokens: number
  /** Tokens that drafts guessed for requests that have ended, and those of them that were right. */
  readonly draftedTokens: number
  readonly acceptedTokens: number
  /** Over the last ten seconds. */
  readonly tokensPerSecond: number
  readonly ttft: HistogramData
  readonly timePerToken: HistogramData
  readonly requestTime: HistogramData
  /** Of the main thread, per step. */
  readonly scheduling: HistogramData
  readonly pages: { readonly all: number; readonly inUse: number; readonly cached: number }
  readonly preemptions: number
  readonly restarts: number
  readonly ranks: readonly RankCounters[]
  /** Of the draft model. failed: its rank failed more often than maxRestarts, and requests go on without it. */
  readonly draft?: { readonly restarts: number; readonly failed: boolean }
}

/** What tetrad/testing may touch. */
export interface EngineInternals {
  readonly model: OpenModel
  readonly plan: RunPlan
  readonly layout: ModelLayout
  readonly coordinator: Coordinator
  readonly allocator: PageAllocator
  readonly memories: EngineMemories
  readonly draft: DraftModel | undefined
}

/** All that an engine holds. */
export interface EngineParts extends EngineInternals {
  readonly dir: string
  readonly adapters: EngineAdapters
  readonly maxRunning: number
  readonly tokenizer: Tokenizer | undefined
  /** Ids that end a text. */
  readonly endIds: readonly number[]
  readonly scheduler: Scheduler
  readonly statistics: Statistics
  readonly profiler: Profiler | undefined
  /** Requests that may run and wait: maxRunning + maxQueue. */
  readonly maxWaiting: number
  readonly events: EventEmitter<{ restart: [RestartEvent] }>
  readonly loadMs: number
  readonly backendReason: string
  readonly determinism: Determinism
}

export function engineInfo(parts: EngineParts): EngineInfo {
  const { coordinator, draft, layout, model, plan, tokenizer } = parts
  const draftBytes = draft ? memoryNeed(draft.parts.plan, draft.parts.layout).totalBytes : 0
  const cacheTokens = plan.pages * PAGE_TOKENS
  return Object.freeze({
    variant: model.variant.name,
    parameters: model.parameters,
    ranks: plan.ranks,
    backend: plan.backend,
    backendReason: parts.backendReason,
    weights: plan.weights,
    cache: plan.cache,
    partition: plan.partition,
    contextTokens: plan.contextTokens,
    cacheTokens,
    memoryBytes: memoryNeed(plan, layout).totalBytes + draftBytes + parts.adapters.memoryBytes,
    vocab: model.config.vocab,
    hasTokenizer: tokenizer !== undefined,
    endIds: parts.endIds,
    ...(tokenizer?.bosId !== undefined && { bosId: tokenizer.bosId }),
    addsBos: tokenizer?.addsBos ?? false,
    determinismKey: parts.determinism.key,
    determinismDigest: parts.determinism.digest,
    adapters: coordinator.group.reports.flatMap(({ adapter }) => (adapter ? [adapter] : [])),
    loadMs: parts.loadMs,
    ...(draft && {
      draft: {
        dir: draft.parts.dir,
        parameters: draft.parts.model.parameters,
        memoryBytes: draftBytes,
        contextTokens: draft.parts.plan.contextTokens,
      },
    }),
  })
}

export function engineStats({ scheduler, statistics, allocator, coordinator, draft, plan }: EngineParts): EngineStats {
  return {
    // After a failure for good nothing runs, although slots of the last steps were never given back.
    queued: coordinator.fatal ? 0 : scheduler.waiting,
    running: coordinator.fatal ? 0 : scheduler.running,
    finished: statistics.finished,
    promptTokens: statistics.promptTokens,
    cachedTokens: statistics.cachedTokens,
    generatedTokens: statistics.generatedTokens,
    draftedTokens: statistics.draftedTokens,
    acceptedTokens: statistics.acceptedTokens,
    tokensPerSecond: statistics.tokensPerSecond(performance.now()),
    ttft: statistics.ttft.data(),
    timePerToken: statistics.timePerToken.data(),
    requestTime: statistics.requestTime.data(),
    scheduling: statistics.scheduling.data(),
    pages: { all: allocator.pages, inUse: allocator.pages - allocator.freePages, cached: allocator.cachedPages },
    preemptions: scheduler.preemptions,
    restarts: statistics.restarts,
    ranks: Array.from({ length: plan.ranks }, (_, rank) => coordinator.counters(rank)),
    ...(draft && { draft: { restarts: draft.parts.statistics.restarts, failed: draft.failed } }),
  }
}
