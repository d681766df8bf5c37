// tetrad serve: OpenAI's HTTP API over engines of this process, until SIGTERM or Ctrl-C, which let running requests end.
import { basename, resolve } from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import { OptionError } from '../errors.js'
import type { ServedEngine } from '../replicas/replica-pool.js'
import type { ServedModel } from '../serve/completions.js'
import { collect, DEFAULT_MODEL, type EngineFlags, engineOptions, number, withEngineFlags } from './flags.js'
import { interruption, loadEngine } from './progress.js'

interface ServeFlags extends EngineFlags {
  model?: string[]
  host: string
  port: number
  apiKey?: string
  allowHost?: string[]
  allowOrigin?: string[]
  logPrompts?: boolean
  drainMs: number
  replicas?: number
}

export function addServe(program: Command): void {
  withEngineFlags(program.command('serve').description("serve models over OpenAI's HTTP API"))
    .option('--model <dir>', 'model directory, or name=directory; again for another (default: the embedded one)', collect)
    .option('--host <address>', 'address to listen at; others than the loopback let other machines ask', '127.0.0.1')
    .option('--port <n>', '0: any that is free', number, 8000)
    .option('--api-key <key>', 'clients must send it (default: the environment variable TETRAD_API_KEY, else none)')
    .option('--allow-host <name>', "name under which clients may ask, besides localhost; '*' for any; again for another", collect)
    .option('--allow-origin <origin>', 'origin of pages that may ask; again for another', collect)
    .option('--log-prompts', 'write prompts to the log')
    .option('--replicas <n>', 'processes with an engine each, 1 to 64, behind this one (default: the engine is in this process)', number)
    .option('--drain-ms <n>', 'milliseconds that running requests get at the end', number, 30_000)
    .action(serve)
}

async function serve(flags: ServeFlags): Promise<void> {
  if (flags.json) throw new InvalidArgumentError('serve has no --json.')
  checkRange('port', flags.port, 0, 65535)
  checkRange('replicas', flags.replicas ?? 1, 1, 64)
  checkRange('drain-ms', flags.drainMs, 0, 2 ** 31 - 1)
  // What only a server needs is loaded only here.
  const [{ createServer }, { loadChatTemplate }] = await Promise.all([import('../serve/server.js'), import('../serve/chat-template.js')])
  const signal = interruption()
  const terminated = new Promise<void>((done) => {
    process.once('SIGTERM', done)
    signal.addEventListener('abort', () => done(), { once: true })
  })
  const named = (flags.model ?? [DEFAULT_MODEL]).map(nameOf)
  const twice = named.find(({ id }, i) => named.findIndex((other) => other.id === id) < i)
  if (twice) {
    throw new OptionError('OPTION_INVALID', {
      what: `two models are called ${twice.id}`,
      expected: 'a name for each',
      actual: twice.dir,
      remedy: 'Give one of them another: --model name=directory.',
    })
  }
  const models = new Map<string, ServedModel>()
  try {
    for (const { id, dir } of named) {
      const template = await loadChatTemplate(dir)
      models.set(id, { id, engine: await load(dir, flags, signal), template, created: Math.floor(Date.now() / 1000) })
    }
  } catch (error) {
    await closeAll(models, 0)
    throw error
  }
  const apiKey = flags.apiKey ?? process.env.TETRAD_API_KEY
  const any = flags.allowHost?.includes('*') === true
  const { app, drain } = createServer(models, {
    apiKey: apiKey === '' ? undefined : apiKey,
    hosts: any
      ? []
      : ['localhost', '127.0.0.1', '[::1]', ...(flags.host === '0.0.0.0' || flags.host === '::' ? [] : [flags.host]), ...(flags.allowHost ?? [])],
    origins: flags.allowOrigin ?? [],
    logger: { level: 'info', redact: ['req.headers.authorization'] },
  })
  if (flags.logPrompts) {
    app.addHook('preHandler', async (request) => {
      if (request.body !== undefined) request.log.info({ body: request.body }, 'prompt')
    })
  }
  try {
    await app.listen({ host: flags.host, port: flags.port })
    console.error(`ready: ${app.listeningOrigin}/v1 serves ${[...models.keys()].join(', ')}${apiKey ? ' with an API key' : ''}`)
    await terminated
    drain()
    console.error(`draining: running requests have ${flags.drainMs} ms`)
    // Stops accepting; resolves when answers have been sent, which the engines' own limit bounds.
    await Promise.all([app.close(), closeAll(models, flags.drainMs)])
  } finally {
    await closeAll(models, 0)
  }
}

/** Before anything is loaded. */
function checkRange(name: string, value: number, least: number, most: number): void {
  if (Number.isInteger(value) && value >= least && value <= most) return
  throw new OptionError('OPTION_INVALID', {
    what: `${name} is out of range`,
    expected: `an integer from ${least} to ${most}`,
    actual: String(value),
    remedy: `Give ${name} such a value.`,
  })
}

/** An engine of this process, or replicas in processes of their own. */
async function load(dir: string, flags: ServeFlags, signal: AbortSignal): Promise<ServedEngine> {
  if (flags.replicas === undefined) return loadEngine(dir, flags, signal)
  const { ReplicaPool } = await import('../replicas/replica-pool.js')
  const pool = await ReplicaPool.load(dir, engineOptions(flags), flags.replicas, (text) => console.error(text))
  console.error(`${flags.replicas} replicas of ${pool.info.ranks} ranks are ready`)
  return pool
}

function nameOf(given: string): { id: string; dir: string } {
  const match = /^([\w.-]+)=(.+)$/.exec(given)
  return match ? { id: match[1] as string, dir: match[2] as string } : { id: basename(resolve(given)), dir: given }
}

async function closeAll(models: ReadonlyMap<string, { readonly engine: ServedEngine }>, drainMs: number): Promise<void> {
  await Promise.all([...models.values()].map(({ engine }) => engine.close({ drainMs })))
}
