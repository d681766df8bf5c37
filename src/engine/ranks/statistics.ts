// Counters and histograms of an engine. Knows numbers only.

/** Upper bounds in milliseconds; the last bucket is open. */
const BOUNDS_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000]

/** A histogram of milliseconds. */
export interface HistogramData {
  /** Upper bounds of the buckets, milliseconds; one more bucket is open. */
  readonly boundsMs: readonly number[]
  readonly counts: readonly number[]
  readonly count: number
  readonly sumMs: number
}

export class Histogram {
  readonly #counts = new Array<number>(BOUNDS_MS.length + 1).fill(0)
  #count = 0
  #sum = 0

  add(ms: number): void {
    const at = BOUNDS_MS.findIndex((bound) => ms <= bound)
    const bucket = at < 0 ? BOUNDS_MS.length : at
    this.#counts[bucket] = (this.#counts[bucket] as number) + 1
    this.#count++
    this.#sum += ms
  }

  get meanMs(): number {
    return this.#count === 0 ? 0 : this.#sum / this.#count
  }

  data(): HistogramData {
    return { boundsMs: BOUNDS_MS, counts: [...this.#counts], count: this.#count, sumMs: this.#sum }
  }
}

export class Statistics {
  readonly ttft = new Histogram()
  readonly timePerToken = new Histogram()
  readonly requestTime = new Histogram()
  /** Time of this thread in scheduling and publishing one step. */
  readonly scheduling = new Histogram()
  promptTokens = 0
  cachedTokens = 0
  generatedTokens = 0
  /** Guessed tokens of requests that have ended, and those of them that were right. */
  draftedTokens = 0
  acceptedTokens = 0
  finished = 0
  restarts = 0
  /** Times of generated tokens of the last seconds, for the rate. */
  readonly #recent: number[] = []

  token(now: number): void {
    this.generatedTokens++
    this.#recent.push(now)
    if (this.#recent.length > 4096) this.#recent.splice(0, 2048)
  }

  /** Tokens a second over the last ten seconds. */
  tokensPerSecond(now: number): number {
    const since = this.#recent.filter((at) => now - at < 10_000)
    const first = since[0]
    return first === undefined || since.length < 2 ? 0 : ((since.length - 1) / Math.max(1, now - first)) * 1000
  }
}
