// How long requests take, measured, to tell a refused client when a place will be free. One for each model.

/** Completed requests that the mean is taken over. */
const RECENT = 32
const MIN_RETRY_MS = 100
const MAX_RETRY_MS = 60_000
/** Used while nothing was measured yet. */
const UNKNOWN_RETRY_MS = 1000

interface Running {
  readonly startedAt: number
  readonly maxTokens: number
}

export class ServiceTimes {
  readonly #now: () => number
  readonly #running = new Set<Running>()
  readonly #recentMs: number[] = []

  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** A request was sent to the engine. Call the result when it ended; completed: with an answer, so that its time counts. */
  begin(maxTokens: number): (completed: boolean) => void {
    const request = { startedAt: this.#now(), maxTokens }
    this.#running.add(request)
    return (completed) => {
      if (!this.#running.delete(request) || !completed) return
      this.#recentMs.push(this.#now() - request.startedAt)
      if (this.#recentMs.length > RECENT) this.#recentMs.shift()
    }
  }

  /** Milliseconds until the next running request ends, estimated. msPerToken: measured by the engine; 0 if it is not known yet. */
  retryAfterMs(msPerToken: number): number {
    const now = this.#now()
    const mean = this.#recentMs.length === 0 ? undefined : this.#recentMs.reduce((sum, ms) => sum + ms, 0) / this.#recentMs.length
    const remaining = [...this.#running].map(({ startedAt, maxTokens }) => {
      const expected = mean ?? (msPerToken > 0 ? maxTokens * msPerToken : UNKNOWN_RETRY_MS)
      return startedAt + expected - now
    })
    const soonest = remaining.length === 0 ? (mean ?? UNKNOWN_RETRY_MS) : Math.min(...remaining)
    return Math.round(Math.min(MAX_RETRY_MS, Math.max(MIN_RETRY_MS, soonest)))
  }
}
