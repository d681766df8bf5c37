// A replica as the server process sees it: the child process, its socket, and the requests that run there. It is dead once its process ended
// or its engine failed, or once it was silent for too long without being busy.
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { EngineInfo, EngineStats } from '../../engine/engine-info.js'
import type { GenerationControl } from '../../engine/generation.js'
import type { Prompt } from '../../engine/prompts.js'
import type { GenerateManyParams } from '../../options/public-types.js'
import { encodeFrame, FrameDecoder, type FromReplica, LOADING_SILENCE_MS, MAX_BUSY_MS, SILENCE_MS, type ToReplica, unpackError } from './protocol.js'
import type { ReplicaHandle, RequestHandlers } from './replicated-request.js'

/** How often the processor time of a silent replica is looked at, milliseconds. */
const BUSY_CHECK_MS = 1000

export class Replica implements ReplicaHandle {
  readonly index: number
  readonly id: string
  readonly #child: ChildProcess
  readonly #requests = new Map<number, RequestHandlers>()
  readonly #onEnd: (replica: Replica, reason: string) => void
  readonly #decoder = new FrameDecoder<FromReplica>()
  #socket: Socket | undefined
  #info: EngineInfo | undefined
  #loading: { resolve: (info: EngineInfo) => void; reject: (error: Error) => void } | undefined
  #silence: NodeJS.Timeout | undefined
  #heardAt = performance.now()
  #ended = false
  #nextId = 1
  stats: EngineStats | undefined

  /** onEnd: called once, when the replica is dead. */
  constructor(index: number, path: string, key: string, onEnd: (replica: Replica, reason: string) => void) {
    this.index = index
    this.id = String(index)
    this.#onEnd = onEnd
    const script = fileURLToPath(new URL('./replica-process.js', import.meta.url))
    this.#child = spawn(process.execPath, [script, path, key], { stdio: ['ignore', 'ignore', 'inherit'] })
    this.#child.once('exit', (code, signal) => this.#end(`its process ended with ${signal ?? `status ${code}`}`))
    this.#child.once('error', (error) => this.#end(`its process could not be started: ${error.message}`))
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  get alive(): boolean {
    return !this.#ended && this.#info !== undefined
  }

  /** Requests that were sent and have not ended. */
  get load(): number {
    return this.#requests.size
  }

  /** Hands it the socket on which it said hello. Resolves with what it loaded. */
  attach(socket: Socket, load: Extract<ToReplica, { type: 'load' }>): Promise<EngineInfo> {
    this.#socket = socket
    socket.on('data', (data) => this.#take(data))
    socket.on('error', () => {})
    socket.on('close', () => this.#end('its connection closed'))
    this.#send(load)
    this.#watch()
    return new Promise((resolve, reject) => {
      this.#loading = { resolve, reject }
      if (this.#ended) reject(new Error('the replica ended'))
    })
  }

  run(prompts: readonly Prompt[], params: GenerateManyParams, handlers: RequestHandlers): GenerationControl {
    const id = this.#nextId++
    this.#requests.set(id, handlers)
    this.#send({ type: 'generate', id, prompts, params })
    return { abort: () => this.#send({ type: 'abort', id }), pause: (paused) => this.#send({ type: 'pause', id, paused }) }
  }

  /** Lets its requests end, then its process. */
  async close(drainMs: number): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = new Promise<void>((resolve) => this.#child.once('exit', () => resolve()))
    this.#send({ type: 'close', drainMs })
    const late = setTimeout(() => this.#child.kill('SIGKILL'), drainMs + SILENCE_MS)
    if (!this.#socket) this.#child.kill('SIGKILL')
    await ended
    clearTimeout(late)
  }

  #send(message: ToReplica): void {
    if (!this.#ended) this.#socket?.write(encodeFrame(message))
  }

  #take(data: Buffer): void {
    try {
      for (const message of this.#decoder.take(data)) this.#handle(message)
    } catch (error) {
      this.#end(`it sent bytes that are not a frame: ${error instanceof Error ? error.message : String(error)}`)
    }
    this.#watch()
  }

  #handle(message: FromReplica): void {
    switch (message.type) {
      case 'ready':
        this.#info = message.info
        this.#loading?.resolve(message.info)
        return
      case 'stats':
        this.stats = message.stats
        return
      case 'chunk':
        this.#requests.get(message.id)?.onChunk(message.chunk)
        return
      case 'done':
        this.#withdraw(message.id)?.onDone(message.completions)
        return
      case 'failed':
        this.#end(`its engine failed: ${unpackError(message.error).message}`)
        return
      case 'error':
        if (message.id === undefined) this.#loading?.reject(unpackError(message.error))
        else this.#withdraw(message.id)?.onError(unpackError(message.error))
    }
  }

  #withdraw(id: number): RequestHandlers | undefined {
    const handlers = this.#requests.get(id)
    this.#requests.delete(id)
    return handlers
  }

  /** Waits for the next frame. */
  #watch(): void {
    clearTimeout(this.#silence)
    if (this.#ended) return
    this.#heardAt = performance.now()
    const ms = this.#info ? SILENCE_MS : LOADING_SILENCE_MS
    // Before the end its processor time is looked at twice, so that it is known whether it works.
    this.#silence = setTimeout(() => this.#checkBusy(mainThreadTicks(this.pid)), ms - BUSY_CHECK_MS)
  }

  /** A silent replica whose main thread uses the processor is busy (it tokenizes a long text, say), not dead. */
  #checkBusy(before: number | undefined): void {
    this.#silence = setTimeout(() => {
      const now = mainThreadTicks(this.pid)
      const silentMs = performance.now() - this.#heardAt
      const isBusy = now !== undefined && before !== undefined && now > before
      if (isBusy && silentMs < MAX_BUSY_MS) this.#checkBusy(now)
      else this.#end(`it was silent for ${Math.round(silentMs / 1000)} s${isBusy ? ', although it is busy' : ''}`)
    }, BUSY_CHECK_MS)
  }

  #end(reason: string): void {
    if (this.#ended) return
    this.#ended = true
    clearTimeout(this.#silence)
    this.#child.kill('SIGKILL')
    this.#socket?.destroy()
    this.#loading?.reject(new Error(`a replica could not be loaded: ${reason}`))
    this.#onEnd(this, reason)
    const lost = [...this.#requests.values()]
    this.#requests.clear()
    for (const handlers of lost) handlers.onLost()
  }
}

/** Processor time of a process's main thread in clock ticks (utime + stime, fields 14 and 15 of stat). undefined where there is no /proc. */
export function mainThreadTicks(pid: number | undefined): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/task/${pid}/stat`, 'latin1')
    // The name of the command, in parentheses, may hold spaces.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return Number(fields[11]) + Number(fields[12])
  } catch {
    return undefined
  }
}
