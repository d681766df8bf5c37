// HTTP to one Hub: every wait has a deadline, answers to the API are bounded, the token goes to the Hub alone, and what may pass is
// tried again. Knows no files.
import { setTimeout as sleep } from 'node:timers/promises'
import { HubError } from '../errors.js'
import type { HubAddress } from './hub-address.js'
import { invalidAnswer, reasonOf, refusal, stopped, unreachable } from './hub-errors.js'
import type { HubSettings } from './hub-settings.js'

const MAX_ANSWER_BYTES = 32 << 20
/** Attempts without progress. */
export const ATTEMPTS = 5
const MAX_RETRY_MS = 60_000

/** An answer whose body is read under a deadline for each part. */
export interface Download {
  readonly response: Response
  readonly parts: AsyncIterable<Uint8Array>
  /** For an answer whose parts are not wanted. */
  cancel(): void
}

export class HubClient {
  readonly settings: HubSettings
  readonly #address: HubAddress
  readonly #signal: AbortSignal | undefined
  readonly #origin: string

  constructor(address: HubAddress, settings: HubSettings, signal: AbortSignal | undefined) {
    this.#address = address
    this.settings = settings
    this.#signal = signal
    this.#origin = new URL(settings.endpoint).origin
  }

  /** fetch for the API: the whole answer, read. Rejects with HubError, or LOAD_ABORTED. */
  readonly fetch: typeof fetch = async (input, init) => {
    const url = String(input)
    for (let attempt = 1; ; attempt++) {
      const last = attempt === ATTEMPTS
      try {
        const { response, parts, cancel } = await this.request(url, init)
        if (!response.ok) {
          cancel()
          throw this.refusal(response)
        }
        const chunks: Uint8Array[] = []
        let bytes = 0
        for await (const part of parts) {
          bytes += part.length
          if (bytes > MAX_ANSWER_BYTES) throw invalidAnswer('the Hub sent an answer without end', `at most ${MAX_ANSWER_BYTES} bytes`, 'more')
          chunks.push(part)
        }
        return new Response(Buffer.concat(chunks), { status: response.status, headers: response.headers })
      } catch (error) {
        if (last || !mayPass(error)) throw error
        await this.pause(attempt)
      }
    }
  }

  /** One request. Rejects with HubError HUB_UNREACHABLE if no answer comes, HUB_INVALID for another server, or LOAD_ABORTED. */
  async request(url: string, init: RequestInit = {}): Promise<Download> {
    const { token, stallMs, endpoint } = this.settings
    if (new URL(url).origin !== this.#origin) {
      throw invalidAnswer('the Hub names another server for its own answers', this.#origin, new URL(url).origin)
    }
    const abort = new AbortController()
    const stop = () => abort.abort()
    this.#signal?.addEventListener('abort', stop, { once: true })
    const end = () => this.#signal?.removeEventListener('abort', stop)
    let timer: NodeJS.Timeout | undefined
    let late = false
    const watch = () => {
      clearTimeout(timer)
      timer = setTimeout(() => {
        late = true
        abort.abort()
      }, stallMs)
    }
    const fail = (error: unknown) => {
      clearTimeout(timer)
      end()
      if (this.#signal?.aborted) return stopped()
      if (error instanceof HubError) return error
      return unreachable(this.#address, endpoint, late ? `no byte in ${stallMs / 1000} s` : reasonOf(error), error)
    }
    if (this.#signal?.aborted) throw fail(undefined)
    watch()
    let response: Response
    try {
      const headers = new Headers(init.headers)
      if (token !== undefined) headers.set('authorization', `Bearer ${token}`)
      response = await fetch(url, { ...init, headers, signal: abort.signal })
      watch()
    } catch (error) {
      throw fail(error)
    }
    const cancel = () => {
      clearTimeout(timer)
      end()
      abort.abort()
    }
    async function* parts(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Uint8Array> {
      try {
        if (body) {
          for await (const part of body) {
            clearTimeout(timer)
            yield part
            watch()
          }
        }
      } catch (error) {
        throw fail(error)
      } finally {
        // An answer that is not read to its end would hold its connection.
        cancel()
      }
    }
    return { response, parts: parts(response.body), cancel }
  }

  /** The wait before the next attempt. Rejects with LOAD_ABORTED. */
  async pause(attempt: number): Promise<void> {
    const ms = Math.min(MAX_RETRY_MS, this.settings.retryMs * 2 ** (attempt - 1))
    await sleep(ms, undefined, { signal: this.#signal ?? new AbortController().signal }).catch(() => {
      throw stopped()
    })
  }

  refusal(response: Response): HubError {
    return refusal(response, this.#address, this.settings)
  }
}

/** Whether another attempt may end otherwise. */
export function mayPass(error: unknown): boolean {
  return error instanceof HubError && error.code === 'HUB_UNREACHABLE'
}
