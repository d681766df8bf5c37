// Whether a server can listen at an address: asked before models are loaded, which may take minutes.
import { createServer } from 'node:net'
import { TetradError } from '../errors.js'

/** Listens for a moment. Throws TetradError LISTEN_FAILED. */
export async function checkAddress(host: string, port: number): Promise<void> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenFailed(host, port, error)))
    server.listen({ host, port }, resolve)
  })
  await new Promise<void>((resolve) => server.close(() => resolve()))
}

const REMEDIES: Readonly<Record<string, string>> = {
  EADDRINUSE: 'Another program listens there: choose another --port (0: any that is free), or end that program.',
  EADDRNOTAVAIL: 'This machine does not have the address: give one of its own with --host, or 0.0.0.0 for all of them.',
  EACCES: 'This user may not listen there: choose a --port above 1023.',
  ENOTFOUND: 'No such host name: give an address of this machine with --host, or 0.0.0.0 for all of them.',
  EAI_AGAIN: 'The host name could not be resolved now: give an address of this machine with --host.',
}

export function listenFailed(host: string, port: number, cause: NodeJS.ErrnoException): TetradError {
  return new TetradError('LISTEN_FAILED', {
    what: `the server cannot listen at ${host.includes(':') ? `[${host}]` : host}:${port}`,
    expected: 'an address of this machine and a free port',
    actual: cause.code ?? cause.message,
    remedy: REMEDIES[cause.code ?? ''] ?? 'Choose another --host or --port.',
    cause,
  })
}
