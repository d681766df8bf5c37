// The Unix socket that replica processes connect to, in a new folder of its own. Whoever connects must say a key that only its process was told.
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FrameDecoder, type FromReplica } from './protocol.js'

interface Expected {
  readonly resolve: (socket: Socket) => void
  readonly reject: (error: Error) => void
}

export class ReplicaSocket {
  readonly path: string
  readonly #folder: string
  readonly #server: Server
  readonly #expected = new Map<string, Expected>()

  private constructor(folder: string) {
    this.#folder = folder
    this.path = join(folder, 'socket')
    this.#server = createServer((socket) => this.#greet(socket))
  }

  static async open(): Promise<ReplicaSocket> {
    const made = new ReplicaSocket(await mkdtemp(join(tmpdir(), 'tetrad-replicas-')))
    await new Promise<void>((resolve, reject) => {
      made.#server.once('error', reject)
      made.#server.listen(made.path, resolve)
    })
    return made
  }

  /** Waits for a connection with this key. It rejects after `ms`, or with what `cancel` is given. */
  expect(key: string, ms: number): { arrived: Promise<Socket>; cancel: (error: Error) => void } {
    const cancel = (error: Error) => this.#expected.get(key)?.reject(error)
    const arrived = new Promise<Socket>((resolve, reject) => this.#expected.set(key, { resolve, reject }))
    const late = setTimeout(() => cancel(new Error(`a replica did not connect within ${ms} ms`)), ms)
    const settled = arrived.finally(() => {
      clearTimeout(late)
      this.#expected.delete(key)
    })
    // Whoever waits hears of it; if the process ends before that, nobody does yet.
    settled.catch(() => {})
    return { arrived: settled, cancel }
  }

  async close(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
    await rm(this.#folder, { recursive: true, force: true })
  }

  #greet(socket: Socket): void {
    const decoder = new FrameDecoder<FromReplica>()
    socket.on('error', () => socket.destroy())
    socket.once('data', (data) => {
      try {
        const [hello] = decoder.take(data)
        const expected = hello?.type === 'hello' ? this.#expected.get(hello.key) : undefined
        if (expected) expected.resolve(socket)
        else socket.destroy()
      } catch {
        socket.destroy()
      }
    })
  }
}
