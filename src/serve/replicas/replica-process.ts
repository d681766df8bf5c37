// A replica: a process with an engine, which serves one front over a socket and ends with it.
import { once } from 'node:events'
import { connect } from 'node:net'
import { Engine } from '../../engine/engine.js'
import { encodeFrame, FrameDecoder, HEARTBEAT_MS, packError, type ToFront, type ToReplica } from './protocol.js'

const [path = '', key = ''] = process.argv.slice(2)
const socket = connect(path)
const decoder = new FrameDecoder<ToReplica>()
let engine: Engine | undefined
const running = new Map<number, Running>()

// The front sees to the end: a signal to the whole group of processes must not end a replica that still has requests.
process.on('SIGINT', () => {})
process.on('SIGTERM', () => {})

/** Resolves when there is room for more. */
async function send(message: ToFront): Promise<void> {
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
    if (!engine) throw new Error('not loaded yet')
    const generation = engine.generateMany(prompts, { ...params, signal: request.abort.signal })
    // Not read while the socket is full or the front has enough: the engine pauses the request then.
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
    await send({ type: 'error', id, error: packError(error) })
  } finally {
    running.delete(id)
  }
}

async function handle(message: ToReplica): Promise<void> {
  switch (message.type) {
    case 'load': {
      const alive = setInterval(() => void send({ type: 'loading' }), HEARTBEAT_MS)
      try {
        engine = await Engine.load(message.dir, message.options)
        await send({ type: 'ready', info: engine.info })
        setInterval(() => void send({ type: 'stats', stats: (engine as Engine).stats() }), HEARTBEAT_MS).unref()
      } catch (error) {
        await send({ type: 'error', id: undefined, error: packError(error) })
      } finally {
        clearInterval(alive)
      }
      return
    }
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
  // Nobody is left to answer to.
  void (engine?.close() ?? Promise.resolve()).finally(() => process.exit(0))
})
