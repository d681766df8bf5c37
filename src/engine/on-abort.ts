// One signal may end any number of requests.
import { setMaxListeners } from 'node:events'

/** Calls `abort` when the signal aborts; the function returned stops listening. */
export function onAbort(signal: AbortSignal | undefined, abort: () => void): () => void {
  if (!signal) return () => {}
  // Node warns of a leak from the eleventh listener on; ours are removed when their request ends.
  setMaxListeners(0, signal)
  signal.addEventListener('abort', abort, { once: true })
  return () => signal.removeEventListener('abort', abort)
}
