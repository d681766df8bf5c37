// A replica as its front has it: the process, its socket, and the requests it runs. It is dead once it ended, or said nothing for too long.
import { type ChildProcess, spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { EngineInfo, EngineStats } from '../../engine/engine-info.js'
import type { GenerationControl } from '../../engine/generation.js'
import type { Prompt } from '../../engine/prompts.js'
import type { GenerateManyParams } from '../../options/public-types.js'
import { encodeFrame, FrameDecoder, LOADING_SILENCE_MS, SILENCE_MS, type ToFront, type ToReplica, unpackError } from './protocol.js'
import type { Remote, RemoteReplica } from './remote-request.js'

export class Replica implements RemoteReplica {
  readonly index: number
  readonly id: string
  readonly #child: ChildProcess
  readonly #remotes = new Map<number, Remote>()
  readonly #onEnd: (replica: Replica, reason: string) => void
  readonly #decoder = new FrameDecoder<ToFront>()
  #socket: Socket | undefined
  #info: EngineInfo | undefined
  #loading: { resolve: (info: EngineInfo) => void; reject: (error: Error) => void } | undefined
  #silence: NodeJS.Timeout | undefined
  #ended = false
  #next = 1
  stats: EngineStats | undefined

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
    return this.#remotes.size
  }

  /** Its socket, once it has said which one is its own. Resolves with what it loaded. */
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

  run(prompts: readonly Prompt[], params: GenerateManyParams, remote: Remote): GenerationControl {
    const id = this.#next++
    this.#remotes.set(id, remote)
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
      this.#end(`it sent what is no frame: ${error instanceof Error ? error.message : String(error)}`)
    }
    this.#watch()
  }

  #handle(message: ToFront): void {
    switch (message.type) {
      case 'ready':
        this.#info = message.info
        this.#loading?.resolve(message.info)
        return
      case 'stats':
        this.stats = message.stats
        return
      case 'chunk':
        this.#remotes.get(message.id)?.onChunk(message.chunk)
        return
      case 'done':
        this.#withdraw(message.id)?.onDone(message.completions)
        return
      case 'error':
        if (message.id === undefined) this.#loading?.reject(unpackError(message.error))
        else this.#withdraw(message.id)?.onError(unpackError(message.error))
    }
  }

  #withdraw(id: number): Remote | undefined {
    const remote = this.#remotes.get(id)
    this.#remotes.delete(id)
    return remote
  }

  #watch(): void {
    clearTimeout(this.#silence)
    if (this.#ended) return
    const ms = this.#info ? SILENCE_MS : LOADING_SILENCE_MS
    this.#silence = setTimeout(() => this.#end(`it said nothing for ${ms} ms`), ms)
  }

  #end(reason: string): void {
    if (this.#ended) return
    this.#ended = true
    clearTimeout(this.#silence)
    this.#child.kill('SIGKILL')
    this.#socket?.destroy()
    this.#loading?.reject(new Error(`a replica could not be loaded: ${reason}`))
    this.#onEnd(this, reason)
    const lost = [...this.#remotes.values()]
    this.#remotes.clear()
    for (const remote of lost) remote.onLost()
  }
}
