// Metrics for Prometheus, under vLLM's names where the meaning is the same, so that dashboards and routers made for it work.
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Completion } from '../engine/generation.js'
import type { ServedEngine } from './replicas/replica-pool.js'

const LATENCY = [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]

function share({ inUse, all }: { readonly inUse: number; readonly all: number }): number {
  return all === 0 ? 0 : inUse / all
}

export class ServerMetrics {
  readonly #registry = new Registry()
  readonly #success: Counter
  readonly #ttft: Histogram
  readonly #perToken: Histogram
  readonly #request: Histogram
  readonly #prompt: Counter
  readonly #generated: Counter
  readonly #hits: Counter

  /** models: those of the moment are reported. */
  constructor(models: ReadonlyMap<string, { readonly engine: ServedEngine }>) {
    const registers = [this.#registry]
    collectDefaultMetrics({ register: this.#registry })
    const gauge = (name: string, help: string, of: (engine: ServedEngine) => number) =>
      new Gauge({
        name,
        help,
        registers,
        labelNames: ['model_name'],
        collect() {
          for (const [model, { engine }] of models) this.set({ model_name: model }, of(engine))
        },
      })
    gauge('vllm:num_requests_running', 'Requests that run', (e) => e.stats().running)
    gauge('vllm:num_requests_waiting', 'Requests in the queue', (e) => e.stats().queued)
    gauge('vllm:kv_cache_usage_perc', 'Share of the pages of the KV cache in use, 0 to 1', (e) => share(e.stats().pages))
    gauge('vllm:num_preemptions_total', 'Requests that gave their pages away', (e) => e.stats().preemptions)
    gauge('tetrad:restarts_total', 'Restarts of ranks', (e) => e.stats().restarts)
    gauge('tetrad:tokens_per_second', 'Generated over the last ten seconds', (e) => e.stats().tokensPerSecond)
    new Gauge({
      name: 'tetrad:rank_cache_bytes_read_total',
      help: 'Bytes of cached rows that a rank has read',
      registers,
      labelNames: ['model_name', 'rank'],
      collect() {
        for (const [model, { engine }] of models)
          for (const [rank, { cacheBytes }] of engine.stats().ranks.entries()) this.set({ model_name: model, rank }, cacheBytes)
      },
    })
    const labelNames = ['model_name']
    this.#success = new Counter({
      name: 'vllm:request_success_total',
      help: 'Requests that ended, by reason',
      registers,
      labelNames: ['model_name', 'finished_reason'],
    })
    this.#prompt = new Counter({ name: 'vllm:prompt_tokens_total', help: 'Tokens of prompts', registers, labelNames })
    this.#generated = new Counter({ name: 'vllm:generation_tokens_total', help: 'Tokens generated', registers, labelNames })
    this.#hits = new Counter({ name: 'vllm:prefix_cache_hits_total', help: 'Tokens of prompts that were cached', registers, labelNames })
    const histogram = (name: string, help: string) => new Histogram({ name, help, registers, labelNames, buckets: LATENCY })
    this.#ttft = histogram('vllm:time_to_first_token_seconds', 'From the request to its first token')
    this.#perToken = histogram('vllm:time_per_output_token_seconds', 'Of a token after the first, on average of a request')
    this.#request = histogram('vllm:e2e_request_latency_seconds', 'From the request to its end')
  }

  finished(model: string, completions: readonly Completion[]): void {
    for (const { finishReason, usage, timings } of completions) {
      this.#success.inc({ model_name: model, finished_reason: finishReason })
      this.#prompt.inc({ model_name: model }, usage.promptTokens)
      this.#hits.inc({ model_name: model }, usage.cachedTokens)
      this.#generated.inc({ model_name: model }, usage.completionTokens)
      this.#ttft.observe({ model_name: model }, timings.ttftMs / 1000)
      if (usage.completionTokens > 1) this.#perToken.observe({ model_name: model }, timings.decodeMs / 1000 / (usage.completionTokens - 1))
      this.#request.observe({ model_name: model }, (timings.ttftMs + timings.decodeMs) / 1000)
    }
  }

  get contentType(): string {
    return this.#registry.contentType
  }

  text(): Promise<string> {
    return this.#registry.metrics()
  }
}
