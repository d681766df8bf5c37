// What Node's HTTP server leaves to its user: connections without a request, and bodies that nobody reads.
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'

/**
 * Closing ends connections that have sent nothing. Node counts a connection as idle only after its first request, and would wait up to a
 * minute for that of one that a browser or a pool has opened in advance.
 */
export function endUnusedConnections(app: FastifyInstance): void {
  const unused = new Set<Socket>()
  app.server.on('connection', (socket: Socket) => {
    unused.add(socket)
    socket.once('close', () => unused.delete(socket))
  })
  app.server.on('request', ({ socket }: IncomingMessage) => unused.delete(socket))
  app.addHook('preClose', async () => {
    for (const socket of unused) if (socket.bytesRead === 0) socket.destroy()
  })
}

/** How long the rest of a refused body may take. */
const DROP_MS = 2000

/**
 * Reads and drops the rest of a body that is refused for its size, up to maxBytes and for at most two seconds, before the answer is sent. The
 * connection closes after it, and one that closes over unread bytes is reset: the client, which is still writing, would lose the answer.
 */
export function dropLargeBodies(app: FastifyInstance, maxBytes: number): void {
  app.addHook('onSend', async ({ raw }, reply) => {
    if (reply.statusCode === 413) await dropped(raw, maxBytes)
  })
}

function dropped(request: IncomingMessage, maxBytes: number): Promise<void> {
  if (request.readableEnded || request.destroyed) return Promise.resolve()
  return new Promise((resolve) => {
    let bytes = 0
    const onData = (part: Buffer) => {
      bytes += part.length
      if (bytes > maxBytes) end()
    }
    const end = () => {
      clearTimeout(timer)
      request.off('data', onData).off('end', end).off('close', end)
      resolve()
    }
    const timer = setTimeout(end, DROP_MS)
    request.on('data', onData).once('end', end).once('close', end)
  })
}
