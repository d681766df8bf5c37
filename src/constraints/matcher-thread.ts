// One thread that matches grammars, as the engine's thread sees it: a queue of jobs, each with a time limit from when it is begun.
import { Worker } from 'node:worker_threads'
import { assetUrl } from '../assets.js'
import type { MatcherAnswer, MatcherData, MatcherJob } from './matcher-messages.js'

/** Milliseconds. */
const LIMITS = { start: 60_000, open: 10_000, accept: 5000, close: 2000 } as const
/** A job that takes longer than this holds up the others. */
const LONG_MS = 500

interface Queued {
  readonly type: keyof typeof LIMITS
  readonly done: (answer: MatcherAnswer) => void
}

export class MatcherThread {
  readonly #worker: Worker
  readonly #queue: Queued[] = []
  readonly #onEnd: (startFailure: string | undefined) => void
  #timer: NodeJS.Timeout | undefined
  #ended = false
  /** Jobs that are not sent yet: those of one turn of the event loop go together. */
  #unsent: MatcherJob[] = []
  #begun = 0

  /** onEnd: it aborted, was too slow or exited. The job that did it has got its answer, the others get none. With a reason: it never started. */
  constructor(data: MatcherData, onEnd: (startFailure: string | undefined) => void) {
    this.#onEnd = onEnd
    this.#worker = new Worker(assetUrl('dist/src/constraints/matcher-worker.js'), { workerData: data, stderr: true })
    this.#worker.on('message', (answers: readonly MatcherAnswer[]) => {
      for (const answer of answers) this.#answered(answer)
    })
    this.#worker.on('error', (error) => this.#end(error.message))
    this.#worker.on('exit', () => this.#end('the thread exited'))
    this.#push('start', () => {})
  }

  /** Jobs that have not ended. */
  get load(): number {
    return this.#queue.length
  }

  /** It is busy with one job for long. */
  get stuck(): boolean {
    const type = this.#queue[0]?.type
    return type !== undefined && type !== 'start' && performance.now() - this.#begun > LONG_MS
  }

  /** `done` is not called if the thread ends for another job's sake. */
  run(job: MatcherJob, done: (answer: MatcherAnswer) => void): void {
    if (this.#ended) return
    this.#push(job.type, done)
    if (this.#unsent.push(job) === 1) queueMicrotask(() => this.#send())
  }

  #send(): void {
    const jobs = this.#unsent
    this.#unsent = []
    if (!this.#ended) this.#worker.postMessage(jobs)
  }

  async close(): Promise<void> {
    this.#ended = true
    clearTimeout(this.#timer)
    await this.#worker.terminate()
  }

  #push(type: Queued['type'], done: Queued['done']): void {
    this.#queue.push({ type, done })
    if (this.#queue.length > 1) return
    // An engine that nobody closed must not be kept alive by an idle thread.
    this.#worker.ref()
    this.#watch()
  }

  #watch(): void {
    clearTimeout(this.#timer)
    this.#begun = performance.now()
    const head = this.#queue[0]
    if (!head) {
      this.#worker.unref()
      return
    }
    const limit = LIMITS[head.type]
    this.#timer = setTimeout(() => this.#end(`it took longer than ${limit} ms`), limit)
  }

  #answered(answer: MatcherAnswer): void {
    if (this.#ended) return
    if (answer.failure?.aborted) {
      this.#end(answer.failure.reason)
      return
    }
    const head = this.#queue.shift()
    this.#watch()
    head?.done(answer)
  }

  #end(reason: string): void {
    if (this.#ended) return
    void this.close()
    const head = this.#queue[0]
    head?.done({ failure: { reason, aborted: true } })
    this.#onEnd(head?.type === 'start' ? reason : undefined)
  }
}
