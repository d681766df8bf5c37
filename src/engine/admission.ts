// Whether the engine takes a request now. Knows how many there are, not what they ask.
import { EngineClosedError, OverloadedError, RequestError } from '../errors.js'
import type { EngineParts } from './engine-info.js'

export class Admission {
  readonly #parts: EngineParts
  #closed = false

  constructor(parts: EngineParts) {
    this.#parts = parts
  }

  /** From now on nothing is admitted. */
  close(): void {
    this.#closed = true
  }

  /** Requests that could be added now. */
  get free(): number {
    const { maxWaiting, scheduler } = this.#parts
    return maxWaiting - scheduler.waiting - scheduler.running
  }

  /** Throws EngineClosedError. A call that came before the engine was closed is served, so it is asked when the call begins. */
  checkOpen(): void {
    if (this.#closed) throw new EngineClosedError('ENGINE_CLOSED', { what: 'the engine is closed', remedy: 'Load another engine.' })
  }

  /** Throws EngineClosedError, the engine's own failure, or OverloadedError if `count` more requests do not fit now. */
  check(count: number): void {
    this.checkOpen()
    this.#checkRoom(count)
  }

  #checkRoom(count: number): void {
    const { coordinator, scheduler, statistics, maxWaiting } = this.#parts
    if (coordinator.fatal) throw coordinator.fatal
    if (count <= this.free) return
    // About when one of the running requests ends.
    const retryAfterMs = Math.max(100, Math.ceil(statistics.requestTime.meanMs / Math.max(1, scheduler.running)))
    throw new OverloadedError(retryAfterMs, {
      what: 'the queue is full',
      expected: `at most ${maxWaiting} requests running and waiting`,
      actual: `${maxWaiting - this.free}, and ${count} more`,
      remedy: `Send it again in about ${retryAfterMs} ms. An engine that is loaded with a larger maxQueue holds more.`,
    })
  }

  /**
   * Admits the requests of one call that checkOpen() let in: `prompts` prompts with n completions each. Returns how many of its requests the call may have running and
   * waiting at a time: all, or a share of the places if it has more requests than the engine has places.
   * Throws RequestError REQUEST_TOO_LARGE if the completions of one prompt can never fit, the engine's own failure, or OverloadedError.
   */
  admit(prompts: number, n: number): number {
    const { maxRunning, maxWaiting } = this.#parts
    if (n > maxWaiting) {
      throw new RequestError('REQUEST_TOO_LARGE', {
        what: `${n} completions of one prompt can never fit this engine`,
        expected: `n of at most ${maxWaiting}: maxRunning + maxQueue`,
        actual: String(n),
        remedy: `Ask for at most ${maxWaiting} completions at a time.`,
      })
    }
    if (prompts * n <= maxWaiting) {
      this.#checkRoom(prompts * n)
      return prompts * n
    }
    this.#checkRoom(n)
    // The rest of the places stays free for other calls.
    return Math.max(n, maxRunning, Math.ceil(maxWaiting / 2))
  }
}
