// What a front process and a replica say to each other: MessagePack frames behind a length. Each frame is checked for its size and type;
// its content is trusted, since both ends are this package.

import type { IndexedChunk } from '../../engine/engine.js'
import type { EngineInfo, EngineStats } from '../../engine/engine-info.js'
import type { Completion } from '../../engine/generation.js'
import type { Prompt } from '../../engine/prompts.js'
import {
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
import type { EngineOptions, GenerateManyParams } from '../../options/public-types.js'
import { packMessage, unpackMessage } from './message-pack.js'

export type ToReplica =
  | { readonly type: 'load'; readonly dir: string; readonly options: EngineOptions }
  | { readonly type: 'generate'; readonly id: number; readonly prompts: readonly Prompt[]; readonly params: GenerateManyParams }
  | { readonly type: 'abort'; readonly id: number }
  | { readonly type: 'pause'; readonly id: number; readonly paused: boolean }
  | { readonly type: 'close'; readonly drainMs: number }

export type ToFront =
  | { readonly type: 'hello'; readonly key: string }
  /** The heartbeat until then. */
  | { readonly type: 'loading' }
  | { readonly type: 'ready'; readonly info: EngineInfo }
  | { readonly type: 'chunk'; readonly id: number; readonly chunk: IndexedChunk }
  | { readonly type: 'done'; readonly id: number; readonly completions: readonly Completion[] }
  /** id: of the request; undefined: loading failed. */
  | { readonly type: 'error'; readonly id: number | undefined; readonly error: PackedError }
  /** The heartbeat. */
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

/** Between two heartbeats, and without any frame until the other end is taken for dead. */
export const HEARTBEAT_MS = 500
export const SILENCE_MS = 10_000
/** The same for one that loads: a large vocabulary keeps it from answering for a while. */
export const LOADING_SILENCE_MS = 30_000

const MOST_FRAME_BYTES = 64 << 20

export function encodeFrame(message: ToReplica | ToFront): Buffer {
  const body = packMessage(message)
  if (body.length > MOST_FRAME_BYTES) throw new RangeError(`a frame of ${body.length} bytes`)
  const frame = Buffer.allocUnsafe(4 + body.length)
  frame.writeUInt32LE(body.length)
  body.copy(frame, 4)
  return frame
}

/** Takes bytes as they come, and gives whole frames. Throws RangeError for what can't be one. */
export class FrameDecoder<T> {
  #parts: Buffer[] = []
  #bytes = 0
  /** Of the frame that is awaited, its length included; 0: not known yet. */
  #needed = 0;

  *take(data: Buffer): Generator<T, void, undefined> {
    this.#parts.push(data)
    this.#bytes += data.length
    for (;;) {
      if (this.#needed === 0) {
        if (this.#bytes < 4) return
        const length = this.#whole().readUInt32LE()
        if (length === 0 || length > MOST_FRAME_BYTES) throw new RangeError(`a frame of ${length} bytes`)
        this.#needed = 4 + length
      }
      if (this.#bytes < this.#needed) return
      const all = this.#whole()
      const message: unknown = unpackMessage(all.subarray(4, this.#needed))
      if (typeof message !== 'object' || message === null || typeof (message as { type?: unknown }).type !== 'string')
        throw new RangeError('a frame without a type')
      this.#parts = [all.subarray(this.#needed)]
      this.#bytes -= this.#needed
      this.#needed = 0
      yield message as T
    }
  }

  #whole(): Buffer {
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

const CLASSES = { OptionError, CheckpointError, RequestError, RankError, ReplicaError, ClusterError, EngineClosedError, MemoryError } as const

export function unpackError({ name, code, what, expected, actual, remedy, retryAfterMs }: PackedError): Error {
  if (code === undefined) return new Error(what)
  const facts = { what, remedy, ...(expected !== undefined && { expected }), ...(actual !== undefined && { actual }) }
  if (retryAfterMs !== undefined) return new OverloadedError(retryAfterMs, facts)
  const Class = CLASSES[name as keyof typeof CLASSES] ?? TetradError
  return new Class(code, facts)
}
