// The frames of one request as a frontend receives them, put together to chunks and completions.
import type { Completion, TokenLogprobs } from '../../engine/generation.js'
import { EngineClosedError, RankError, ReplicaError } from '../../errors.js'
import { unpackError } from '../replicas/protocol.js'
import type { RequestHandlers } from '../replicas/replicated-request.js'
import { type ControlEntry, FrameReceiver, WINDOW } from './frames.js'
import type { CompletionEnd, Frame } from './messages.js'

interface Part {
  text: string
  tokens: number[]
  logprobs: TokenLogprobs[] | undefined
}

export class IncomingStream {
  readonly id = crypto.randomUUID()
  readonly handlers: RequestHandlers
  /** The reader is behind: the replica gets no more credit. */
  paused = false
  aborted = false
  /** The replica has confirmed the request. */
  accepted = false
  readonly #frames = new FrameReceiver()
  readonly #report: () => void
  /** What chunks have brought of each completion. */
  readonly #parts = new Map<number, Part>()
  #reported = 0

  /** report: tells the replica what has arrived. */
  constructor(handlers: RequestHandlers, report: () => void) {
    this.handlers = handlers
    this.#report = report
  }

  /** Whether a frame has arrived. */
  get begun(): boolean {
    return this.#frames.received > 0
  }

  /** For a control message. */
  entry(): ControlEntry {
    const [received, credit] = this.#frames.report(this.paused)
    this.#reported = received
    return [this.id, received, credit]
  }

  /** Returns true for the last frame. */
  take(frame: Frame): boolean {
    for (const next of this.#frames.take(frame)) {
      if (next.type === 'error') {
        const error = unpackError(next.error)
        // The replica's engine failed for good, or the replica shuts down: another one can run the request.
        if (error instanceof RankError || error instanceof EngineClosedError || error instanceof ReplicaError) this.handlers.onLost()
        else this.handlers.onError(error)
        return true
      }
      if (next.type === 'done') {
        this.handlers.onDone(next.completions.map((end, index) => this.#completion(end, index)))
        return true
      }
      const { index, text, tokens, logprobs } = next.chunk
      const part = this.#parts.get(index) ?? { text: '', tokens: [], logprobs: undefined }
      part.text += text
      part.tokens.push(...tokens)
      if (logprobs) {
        part.logprobs ??= []
        part.logprobs.push(...logprobs)
      }
      this.#parts.set(index, part)
      this.handlers.onChunk(next.chunk)
    }
    if (!this.paused && this.#frames.received - this.#reported >= WINDOW / 4) this.#report()
    return false
  }

  #completion(end: CompletionEnd, index: number): Completion {
    const { text = '', tokens = [], logprobs } = this.#parts.get(index) ?? {}
    return { text, tokens, ...(logprobs && { logprobs }), ...end }
  }
}
