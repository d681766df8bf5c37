// What evaluations need of an engine, and a bound on concurrent calls. Knows no files.

/** Log-probabilities of given tokens. */
export interface TokenScores {
  /** For each scored token the natural logarithm of its probability after all tokens before it. */
  readonly logProbabilities: Float64Array
  /** Whether every scored token is the most likely one. */
  readonly isGreedy: boolean
}

export interface Scorer {
  /** Scores tokens from..tokens.length-1 (from >= 1) of a sequence. */
  score(tokens: readonly number[], from: number, signal: AbortSignal | undefined): Promise<TokenScores>
  /** How many calls are useful at once. */
  readonly concurrency: number
}

/** Runs `task` for each item, at most `limit` at once, and resolves to the results in order. Starts no further task after a failure. */
export async function mapLimited<T, R>(items: readonly T[], limit: number, task: (item: T, index: number) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  let next = 0
  let failed = false
  const work = async () => {
    while (next < items.length && !failed) {
      const index = next++
      try {
        results[index] = await task(items[index] as T, index)
      } catch (error) {
        failed = true
        throw error
      }
    }
  }
  const settled = await Promise.allSettled(Array.from({ length: Math.min(limit, items.length) }, work))
  for (const result of settled) if (result.status === 'rejected') throw result.reason
  return results
}

/** Lets at most `limit` calls run at once; the others wait in order. */
export function limiter(limit: number): <T>(task: () => Promise<T>) => Promise<T> {
  let running = 0
  const waiting: (() => void)[] = []
  return async (task) => {
    if (running >= limit) await new Promise<void>((resolve) => waiting.push(resolve))
    else running++
    try {
      return await task()
    } finally {
      // The next one in line takes the place, if there is one.
      const next = waiting.shift()
      if (next) next()
      else running--
    }
  }
}
