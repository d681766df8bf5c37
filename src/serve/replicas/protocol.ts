// Messages between the server process and its replica processes: MessagePack frames behind a length. The size and type of each frame are
// checked; the content is trusted, since both ends are this package.
import type { IndexedChunk } from '../../engine/engine.js'
import type { EngineInfo, EngineStats } from '../../engine/engine-info.js'
import type { Completion } from '../../engine/generation.js'
import type { Prompt } from '../../engine/prompts.js'
import {
  AdapterError,
  CheckpointError,
  ClusterError,
  EngineClosedError,
  type ErrorCode,
  MemoryError,
  OptionError,
  OverloadedError,
  RankError,
  ReplicaError,
  RequestError,
  TetradError,
} from '../../errors.js'
import { packMessage, unpackMessage } from '../../message-pack.js'
import type { EngineOptions, GenerateManyParams } from '../../options/public-types.js'

export type ToReplica =
  | { readonly type: 'load'; readonly dir: string; readonly options: EngineOptions }
  | { readonly type: 'generate'; readonly id: number; readonly prompts: readonly Prompt[]; readonly params: GenerateManyParams }
  | { readonly type: 'abort'; readonly id: number }
  | { readonly type: 'pause'; readonly id: number; readonly paused: boolean }
  | { readonly type: 'close'; readonly drainMs: number }

export type FromReplica =
  | { readonly type: 'hello'; readonly key: string }
  /** Heartbeat while the model loads. */
  | { readonly type: 'loading' }
  | { readonly type: 'ready'; readonly info: EngineInfo }
  | { readonly type: 'chunk'; readonly id: number; readonly chunk: IndexedChunk }
  | { readonly type: 'done'; readonly id: number; readonly completions: readonly Completion[] }
  /** id: of the request; undefined: loading failed. */
  | { readonly type: 'error'; readonly id: number | undefined; readonly error: PackedError }
  /** Its engine failed for good: the replica must be replaced, and its requests run elsewhere. */
  | { readonly type: 'failed'; readonly error: PackedError }
  /** Heartbeat of a loaded replica. */
  | { readonly type: 'stats'; readonly stats: EngineStats }

export interface PackedError {
  readonly name: string
  readonly code: ErrorCode | undefined
  readonly what: string
  readonly expected: string | undefined
  readonly actual: string | undefined
  readonly remedy: string
  readonly retryAfterMs: number | undefined
}

/** Time between two heartbeats, milliseconds. */
export const HEARTBEAT_MS = 500
/** Time without a frame after which a replica that is not busy is considered dead, milliseconds. */
export const SILENCE_MS = 10_000
/** The same while it loads: a large vocabulary keeps its thread busy for a while. */
export const LOADING_SILENCE_MS = 30_000
/** Time after which also a busy replica is considered dead, milliseconds: it hangs in a loop. */
export const MAX_BUSY_MS = 120_000

const MAX_FRAME_BYTES = 64 << 20

export function encodeFrame(message: ToReplica | FromReplica): Buffer {
  const body = packMessage(message)
  if (body.length > MAX_FRAME_BYTES) throw new RangeError(`a frame of ${body.length} bytes; the limit is ${MAX_FRAME_BYTES}`)
  const frame = Buffer.allocUnsafe(4 + body.length)
  frame.writeUInt32LE(body.length)
  body.copy(frame, 4)
  return frame
}

/** Takes bytes in pieces of any size and yields whole frames. Throws RangeError for bytes that cannot be a frame. */
export class FrameDecoder<T> {
  #parts: Buffer[] = []
  #bytes = 0
  /** Size of the next frame with its length; 0: not known yet. */
  #needed = 0;

  *take(data: Buffer): Generator<T, void, undefined> {
    this.#parts.push(data)
    this.#bytes += data.length
    for (;;) {
      if (this.#needed === 0) {
        if (this.#bytes < 4) return
        const length = this.#join().readUInt32LE()
        if (length === 0 || length > MAX_FRAME_BYTES) throw new RangeError(`a frame of ${length} bytes`)
        this.#needed = 4 + length
      }
      if (this.#bytes < this.#needed) return
      const all = this.#join()
      const message: unknown = unpackMessage(all.subarray(4, this.#needed))
      if (typeof message !== 'object' || message === null || typeof (message as { type?: unknown }).type !== 'string')
        throw new RangeError('a frame without a type')
      this.#parts = [all.subarray(this.#needed)]
      this.#bytes -= this.#needed
      this.#needed = 0
      yield message as T
    }
  }

  #join(): Buffer {
    const whole = this.#parts.length === 1 ? (this.#parts[0] as Buffer) : Buffer.concat(this.#parts)
    this.#parts = [whole]
    return whole
  }
}

export function packError(error: unknown): PackedError {
  if (!(error instanceof TetradError)) {
    const what = error instanceof Error ? error.message : String(error)
    return { name: 'Error', code: undefined, what, expected: undefined, actual: undefined, remedy: '', retryAfterMs: undefined }
  }
  const { name, code, what, expected, actual, remedy } = error
  return { name, code, what, expected, actual, remedy, retryAfterMs: error instanceof OverloadedError ? error.retryAfterMs : undefined }
}

const CLASSES = {
  AdapterError,
  OptionError,
  CheckpointError,
  RequestError,
  RankError,
  ReplicaError,
  ClusterError,
  EngineClosedError,
  MemoryError,
} as const

export function unpackError({ name, code, what, expected, actual, remedy, retryAfterMs }: PackedError): Error {
  if (code === undefined) return new Error(what)
  const facts = { what, remedy, ...(expected !== undefined && { expected }), ...(actual !== undefined && { actual }) }
  if (retryAfterMs !== undefined) return new OverloadedError(retryAfterMs, facts)
  const Class = CLASSES[name as keyof typeof CLASSES] ?? TetradError
  return new Class(code, facts)
}
