// A replica: a process with an engine, which serves one server process over a socket and ends with it.
import { once } from 'node:events'
import { connect } from 'node:net'
import { Engine } from '../../engine/engine.js'
import { encodeFrame, FrameDecoder, type FromReplica, HEARTBEAT_MS, packError, type ToReplica } from './protocol.js'

const [path = '', key = ''] = process.argv.slice(2)
const socket = connect(path)
const decoder = new FrameDecoder<ToReplica>()
let engine: Engine | undefined
const running = new Map<number, Running>()

// The server process decides when a replica ends: a signal to the process group must not end one that still has requests.
process.on('SIGINT', () => {})
process.on('SIGTERM', () => {})

/** Resolves when the socket has room for more. */
async function send(message: FromReplica): Promise<void> {
  if (!socket.write(encodeFrame(message)) && !socket.destroyed) await Promise.race([once(socket, 'drain'), once(socket, 'close')])
}

interface Running {
  readonly abort: AbortController
  paused: boolean
  wake: (() => void) | undefined
}

async function generate({ id, prompts, params }: Extract<ToReplica, { type: 'generate' }>): Promise<void> {
  const request: Running = { abort: new AbortController(), paused: false, wake: undefined }
  running.set(id, request)
  try {
    if (!engine) throw new Error('the engine is not loaded yet')
    const generation = engine.generateMany(prompts, { ...params, signal: request.abort.signal })
    // Not read while the socket is full or the server has enough: then the engine pauses the request.
    for await (const chunk of generation) {
      await send({ type: 'chunk', id, chunk })
      while (request.paused && !request.abort.signal.aborted) {
        await new Promise<void>((resolve) => {
          request.wake = resolve
        })
      }
    }
    await send({ type: 'done', id, completions: await generation })
  } catch (error) {
    // Other replicas can run the request; this one will never answer another.
    if (engine?.failure && !closing) await send({ type: 'failed', error: packError(engine.failure) })
    else await send({ type: 'error', id, error: packError(error) })
  } finally {
    running.delete(id)
  }
}

let closing = false

async function load({ dir, options }: Extract<ToReplica, { type: 'load' }>): Promise<void> {
  const alive = setInterval(() => void send({ type: 'loading' }), HEARTBEAT_MS)
  try {
    const loaded = await Engine.load(dir, options)
    engine = loaded
    await send({ type: 'ready', info: loaded.info })
    setInterval(() => {
      if (loaded.failure && !closing) void send({ type: 'failed', error: packError(loaded.failure) })
      else void send({ type: 'stats', stats: loaded.stats() })
    }, HEARTBEAT_MS).unref()
  } catch (error) {
    await send({ type: 'error', id: undefined, error: packError(error) })
  } finally {
    clearInterval(alive)
  }
}

async function handle(message: ToReplica): Promise<void> {
  switch (message.type) {
    case 'load':
      return load(message)
    case 'generate':
      return generate(message)
    case 'abort': {
      const request = running.get(message.id)
      request?.abort.abort()
      request?.wake?.()
      return
    }
    case 'pause': {
      const request = running.get(message.id)
      if (!request) return
      request.paused = message.paused
      request.wake?.()
      return
    }
    case 'close':
      closing = true
      await engine?.close({ drainMs: message.drainMs })
      socket.end()
  }
}

socket.on('connect', () => void send({ type: 'hello', key }))
socket.on('data', (data) => {
  for (const message of decoder.take(data)) void handle(message)
})
socket.on('error', () => {})
socket.on('close', () => {
  closing = true
  // Nobody is left to answer.
  void (engine?.close() ?? Promise.resolve()).finally(() => process.exit(0))
})
