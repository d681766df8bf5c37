// Metrics for Prometheus. Names are vLLM's where the meaning is the same, so that dashboards and routers made for vLLM work.
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { EngineStats } from '../engine/engine-info.js'
import type { Completion } from '../engine/generation.js'
import type { ServedEngine } from './served-model.js'

const LATENCY_SECONDS = [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]

type Sample = readonly [labels: Record<string, string>, value: number]
type Models = ReadonlyMap<string, { readonly engine: ServedEngine }>

export class ServerMetrics {
  readonly #registry = new Registry()
  readonly #success: Counter
  readonly #failed: Counter
  readonly #ttft: Histogram
  readonly #perToken: Histogram
  readonly #request: Histogram
  readonly #prompt: Counter
  readonly #generated: Counter
  readonly #queries: Counter
  readonly #hits: Counter

  /** models: read at each scrape, so a model that left is no longer reported. */
  constructor(models: Models) {
    const registers = [this.#registry]
    const labelNames = ['model_name']
    collectDefaultMetrics({ register: this.#registry })
    const perModel = (value: (stats: EngineStats) => number) => (): Sample[] =>
      [...models].map(([model, { engine }]) => [{ model_name: model }, value(engine.stats())])
    const perRank = (): Sample[] =>
      [...models].flatMap(([model, { engine }]) =>
        engine.stats().ranks.map(({ cacheBytes }, rank): Sample => [{ model_name: model, rank: String(rank) }, cacheBytes]),
      )
    const gauge = (name: string, help: string, samples: () => Sample[]) =>
      new Gauge({
        name,
        help,
        registers,
        labelNames,
        collect() {
          this.reset()
          for (const [labels, value] of samples()) this.set(labels, value)
        },
      })
    // The engine counts; a scrape copies its count. A restarted engine counts from 0 again, which Prometheus handles as a reset.
    const counter = (name: string, help: string, samples: () => Sample[], names: string[] = labelNames) =>
      new Counter({
        name,
        help,
        registers,
        labelNames: names,
        collect() {
          this.reset()
          for (const [labels, value] of samples()) this.inc(labels, value)
        },
      })
    gauge(
      'vllm:num_requests_running',
      'Requests that are running',
      perModel(({ running }) => running),
    )
    gauge(
      'vllm:num_requests_waiting',
      'Requests in the queue',
      perModel(({ queued }) => queued),
    )
    gauge(
      'vllm:kv_cache_usage_perc',
      'Share of the pages of the KV cache in use, 0 to 1',
      perModel(({ pages }) => share(pages)),
    )
    gauge(
      'tetrad:tokens_per_second',
      'Generated tokens per second over the last ten seconds',
      perModel((stats) => stats.tokensPerSecond),
    )
    counter(
      'vllm:num_preemptions_total',
      'Requests that were preempted to free cache pages',
      perModel(({ preemptions }) => preemptions),
    )
    counter(
      'tetrad:restarts_total',
      'Restarts of ranks and replicas',
      perModel(({ restarts }) => restarts),
    )
    counter(
      'vllm:spec_decode_num_draft_tokens_total',
      'Tokens that drafts guessed for requests that have ended',
      perModel(({ draftedTokens }) => draftedTokens),
    )
    counter(
      'vllm:spec_decode_num_accepted_tokens_total',
      'Those of them that were right',
      perModel(({ acceptedTokens }) => acceptedTokens),
    )
    counter('tetrad:rank_cache_bytes_read_total', 'Bytes of cached rows that a rank has read', perRank, ['model_name', 'rank'])
    const counted = (name: string, help: string, ...more: string[]) => new Counter({ name, help, registers, labelNames: [...labelNames, ...more] })
    this.#success = counted('vllm:request_success_total', 'Completions that ended without an error, by reason', 'finished_reason')
    this.#failed = counted('tetrad:request_failures_total', 'Requests that ended with an error, by HTTP status and code', 'status', 'code')
    this.#prompt = counted('vllm:prompt_tokens_total', 'Prompt tokens')
    this.#generated = counted('vllm:generation_tokens_total', 'Generated tokens')
    this.#queries = counted('vllm:prefix_cache_queries_total', 'Prompt tokens that were looked up in the prefix cache')
    this.#hits = counted('vllm:prefix_cache_hits_total', 'Prompt tokens that were found in the prefix cache')
    const histogram = (name: string, help: string) => new Histogram({ name, help, registers, labelNames, buckets: LATENCY_SECONDS })
    this.#ttft = histogram('vllm:time_to_first_token_seconds', 'From the request to its first token')
    this.#perToken = histogram('vllm:time_per_output_token_seconds', 'Mean time of a token after the first, per request')
    this.#request = histogram('vllm:e2e_request_latency_seconds', 'From the request to its end')
  }

  /** Counts the completions of a request that ended without an error. */
  finished(model: string, completions: readonly Completion[]): void {
    const labels = { model_name: model }
    for (const { finishReason, usage, timings } of completions) {
      this.#success.inc({ ...labels, finished_reason: finishReason })
      this.#prompt.inc(labels, usage.promptTokens)
      this.#queries.inc(labels, usage.promptTokens)
      this.#hits.inc(labels, usage.cachedTokens)
      this.#generated.inc(labels, usage.completionTokens)
      this.#ttft.observe(labels, timings.ttftMs / 1000)
      if (usage.completionTokens > 1) this.#perToken.observe(labels, timings.decodeMs / 1000 / (usage.completionTokens - 1))
      this.#request.observe(labels, (timings.ttftMs + timings.decodeMs) / 1000)
    }
  }

  /** Counts a request that ended with an error, refused requests (4xx) included. */
  failed(model: string, status: number, code: string | null): void {
    this.#failed.inc({ model_name: model, status: String(status), code: code ?? '' })
  }

  get contentType(): string {
    return this.#registry.contentType
  }

  text(): Promise<string> {
    return this.#registry.metrics()
  }
}

function share({ inUse, all }: { readonly inUse: number; readonly all: number }): number {
  return all === 0 ? 0 : inUse / all
}
