// A real nats-server, links to it that can be cut, and tetrad processes in its cluster.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import test, { type ExecutionContext, type TestFn } from 'ava'
import { ROOT } from './fixtures.js'
import { temporary } from './models.js'

const found = spawnSync('nats-server', ['--version']).status === 0
if (!found) {
  if (process.env.TETRAD_NATS_TESTS === 'require') throw new Error('TETRAD_NATS_TESTS=require, but there is no nats-server')
  console.log('Tests with a NATS server are skipped: there is no nats-server. Install nats-server and openssl.')
}

/** `test` where there is a nats-server; elsewhere a skipped test, or with TETRAD_NATS_TESTS=require a failure of the file. */
export const natsTest: TestFn | TestFn['skip'] = found ? test : test.skip

export interface TestServer {
  readonly port: number
  readonly url: string
  /** SIGKILL. */
  kill(): Promise<void>
  start(): Promise<void>
}

/** args: beside that for the port. */
export async function natsServer(t: ExecutionContext, args: readonly string[] = [], streams = true): Promise<TestServer> {
  const port = await freePort()
  const folder = temporary(t)
  let child: ChildProcess | undefined
  const kill = async () => {
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  const start = async () => {
    child = spawn('nats-server', ['-a', '127.0.0.1', '-p', String(port), ...(streams ? ['-js', '-sd', folder] : []), ...args], { stdio: 'ignore' })
    for (let i = 0; i < 200; i++) {
      if (await answers(port)) return
      await setTimeout(25)
    }
    throw new Error(`nats-server does not answer at ${port}`)
  }
  t.teardown(kill)
  await start()
  return { port, url: `nats://127.0.0.1:${port}`, kill, start }
}

/** A way to a port that can be cut: nothing arrives any more, as if a cable was out; `mend` lets new connections through. */
export async function cuttable(t: ExecutionContext, target: number): Promise<{ url: string; cut(): void; mend(): void }> {
  const pairs = new Set<Socket>()
  let isCut = false
  const server = createServer((near) => {
    if (isCut) {
      near.pause()
      pairs.add(near)
      return
    }
    const far = connect(target, '127.0.0.1')
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      pairs.add(from)
      from.on('data', (data) => {
        if (!isCut) to.write(data)
      })
      from.on('error', () => {})
      from.on('close', () => {
        pairs.delete(from)
        if (!isCut) to.destroy()
      })
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const destroy = () => {
    for (const socket of pairs) socket.destroy()
  }
  t.teardown(() => {
    destroy()
    server.close()
  })
  return {
    url: `nats://127.0.0.1:${(server.address() as { port: number }).port}`,
    cut: () => {
      isCut = true
    },
    mend: () => {
      isCut = false
      destroy()
    },
  }
}

export interface Tetrad {
  readonly child: ChildProcess
  readonly output: { out: string; err: string }
  readonly ended: Promise<[number | null, string | null]>
  /** Waits for a line on stderr. */
  until(pattern: RegExp): Promise<RegExpExecArray>
}

/** The command as a process of its own. */
export function tetrad(t: ExecutionContext, ...args: string[]): Tetrad {
  const child = spawn(process.execPath, [`${ROOT}dist/src/cli.js`, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  t.teardown(() => child.kill('SIGKILL'))
  const output = { out: '', err: '' }
  for (const [stream, name] of [
    [child.stdout, 'out'],
    [child.stderr, 'err'],
  ] as const) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output[name] += text
    })
  }
  const until = async (pattern: RegExp) => {
    for (let i = 0; i < 1200; i++) {
      const found = pattern.exec(output.err)
      if (found) return found
      await setTimeout(50)
    }
    throw new Error(`no ${pattern} in ${JSON.stringify(output.err)}`)
  }
  return { child, output, until, ended: once(child, 'exit') as Promise<[number | null, string | null]> }
}

/** A replica of one rank in the cluster, and its id there. */
export async function replica(t: ExecutionContext, url: string, ...args: string[]): Promise<Tetrad & { instance: string; group: string }> {
  const process = tetrad(t, 'serve', '--nats', url, '--port', '0', '--ranks', '1', ...args)
  const [, instance, group] = await process.until(/replica (\w+) of (\w+) is in the cluster/)
  await process.until(/ready: /)
  return { ...process, instance: instance as string, group: group as string }
}

async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  return port
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    // It greets whoever comes.
    socket.once('data', () => {
      resolve(true)
      socket.destroy()
    })
    socket.once('error', () => resolve(false))
  })
}
