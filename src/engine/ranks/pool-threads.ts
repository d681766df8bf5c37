// Ends the threads of a pool safely: Node 20 aborts the whole process when a thread is ended while it loads its module (an assertion in
// require() of an ES module, seen when a load failed at once).
import { setTimeout } from 'node:timers/promises'
import type { Worker } from 'node:worker_threads'
import type { Piscina } from 'piscina'

/** How long to wait for threads that still load. */
const LOAD_MS = 30_000

/** Call right after the pool is made. The function returned ends it once every thread has loaded. */
export function endingPool(pool: Piscina): () => Promise<void> {
  // A thread that ends must not be replaced: its replacement would be loading when the pool is ended. All threads exist by now.
  Object.assign(pool.options, { minThreads: 0, idleTimeout: Number.POSITIVE_INFINITY })
  const loaded = Promise.all(
    (pool.threads as Worker[]).map(
      (thread) =>
        new Promise<void>((resolve) => {
          // Its first message says that it is ready.
          thread.once('message', () => resolve())
          thread.once('exit', () => resolve())
        }),
    ),
  )
  return async () => {
    // This timer keeps the process alive. Threads of a pool do not: when an answer overtakes a thread's first message, which comes on
    // another port, nothing else may be left that Node waits for.
    const late = new AbortController()
    await Promise.race([loaded, setTimeout(LOAD_MS, undefined, { signal: late.signal }).catch(() => {})])
    late.abort()
    await pool.destroy()
  }
}
