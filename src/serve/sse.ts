// Server-sent events: writing one, keeping a quiet stream warm with comments, and cutting a stream whose client does not read.
import type { ServerResponse } from 'node:http'

const COMMENT = ': keep-alive\n\n'

export function event(value: object): string {
  return `data: ${JSON.stringify(value)}\n\n`
}

/** With a name of its own, for clients that listen to names. */
export function namedEvent(name: string, value: object): string {
  return `event: ${name}\n${event(value)}`
}

/** The events, with a comment after every `ms` without one (0: no comments). Clients ignore comments; proxies see that the stream is alive. */
export async function* keepWarm(events: AsyncGenerator<string, void, undefined>, ms: number): AsyncGenerator<string, void, undefined> {
  if (ms === 0) {
    yield* events
    return
  }
  let timer: NodeJS.Timeout | undefined
  let next = events.next()
  try {
    for (;;) {
      const quiet = new Promise<'quiet'>((resolve) => {
        timer = setTimeout(() => resolve('quiet'), ms)
      })
      const result = await Promise.race([next, quiet])
      clearTimeout(timer)
      if (result === 'quiet') {
        yield COMMENT
        continue
      }
      if (result.done) return
      yield result.value
      next = events.next()
    }
  } finally {
    clearTimeout(timer)
    await events.return()
  }
}

/**
 * Destroys the connection when data has waited for the client for `ms` and the system took none of it. A stream without data to send is
 * idle, not stalled, and lives on. (Node emits 'timeout' only if the socket's write queue did not shrink either: a slow reader is not cut.)
 */
export function cutWhenStalled(response: ServerResponse, ms: number): void {
  response.setTimeout(ms)
  response.on('timeout', () => {
    const unsent = response.writableLength + (response.socket?.writableLength ?? 0)
    if (unsent > 0) response.destroy()
    else response.setTimeout(ms)
  })
}
