// tetrad serve: OpenAI's HTTP API over engines of this process, until SIGTERM or Ctrl-C, which let running requests end. With --nats its
// models also answer to fronts of a NATS cluster; with --front it is such a front, without engines.
import { hostname } from 'node:os'
import { type Command, InvalidArgumentError } from 'commander'
import type { FastifyInstance } from 'fastify'
import { OptionError } from '../errors.js'
import type { ServedModel } from '../serve/completions.js'
import type { ClusterMember } from '../serve/nats/cluster-member.js'
import type { NatsOptions } from '../serve/nats/connection.js'
import type { JobServer } from '../serve/nats/job-worker.js'
import { collect, type EngineFlags, number, withEngineFlags } from './flags.js'
import { type NatsFlags, natsOptions, withNatsFlags } from './nats-flags.js'
import { interruption } from './progress.js'
import { closeModels, loadModels, type NamedDirectory, namedDirectories } from './served-models.js'

interface ServeFlags extends EngineFlags, NatsFlags {
  model?: string[]
  host: string
  port: number
  apiKey?: string
  allowHost?: string[]
  allowOrigin?: string[]
  logPrompts?: boolean
  drainMs: number
  replicas?: number
  front?: boolean
  batchJobs: number
}

/** Flags that a front has a use for; all others are of engines, which it has not. */
const OF_FRONT = new Set([
  ...['nats', 'natsCreds', 'natsCa', 'natsCert', 'natsKey', 'natsDeadlineMs', 'front', 'host', 'port'],
  ...['apiKey', 'allowHost', 'allowOrigin', 'logPrompts', 'drainMs'],
])

export function addServe(program: Command): void {
  const command = withEngineFlags(program.command('serve').description("serve models over OpenAI's HTTP API"))
    .option('--model <dir>', 'model directory, or name=directory; again for another (default: the embedded one)', collect)
    .option('--host <address>', 'address to listen at; others than the loopback let other machines ask', '127.0.0.1')
    .option('--port <n>', '0: any that is free', number, 8000)
    .option('--api-key <key>', 'clients must send it (default: the environment variable TETRAD_API_KEY, else none)')
    .option(
      '--allow-host <name>',
      "name under which clients may ask, besides localhost, --host and addresses; '*' for any; again for another",
      collect,
    )
    .option('--allow-origin <origin>', 'origin of pages that may ask; again for another', collect)
    .option('--log-prompts', 'write prompts to the log')
    .option('--replicas <n>', 'processes with an engine each, 1 to 64, behind this one (default: the engine is in this process)', number)
    .option('--drain-ms <n>', 'milliseconds that running requests get at the end', number, 30_000)
    .option('--front', 'no engine here: whatever replicas of the NATS cluster answer')
    .option('--nats-deadline-ms <n>', 'with --front: milliseconds without NATS after which requests fail (default: 30000)', number)
    .option('--batch-jobs <n>', 'jobs of tetrad batch that run here at once, 0 to 256, with --nats', number, 4)
  withNatsFlags(command, 'join a NATS cluster').action((flags: ServeFlags) => serve(flags, command))
}

async function serve(flags: ServeFlags, command: Command): Promise<void> {
  if (flags.json) throw new InvalidArgumentError('serve has no --json.')
  checkRange('port', flags.port, 0, 65535)
  checkRange('replicas', flags.replicas ?? 1, 1, 64)
  checkRange('drain-ms', flags.drainMs, 0, 2 ** 31 - 1)
  checkRange('batch-jobs', flags.batchJobs, 0, 256)
  const nats = natsOptions(flags)
  const given = (name: string) => command.getOptionValueSource(name) === 'cli'
  if (flags.front && !nats) throw new InvalidArgumentError('--front needs --nats.')
  const useless = flags.front ? command.options.find((option) => given(option.attributeName()) && !OF_FRONT.has(option.attributeName())) : undefined
  if (useless) throw new InvalidArgumentError(`--front has no engine for ${useless.long}.`)
  if (given('natsDeadlineMs') && !flags.front) throw new InvalidArgumentError('--nats-deadline-ms is of fronts: --front.')
  if (given('batchJobs') && !nats) throw new InvalidArgumentError('--batch-jobs needs --nats.')
  const signal = interruption()
  const terminated = new Promise<void>((done) => {
    process.once('SIGTERM', done)
    signal.addEventListener('abort', () => done(), { once: true })
  })
  const apiKey = flags.apiKey ?? process.env.TETRAD_API_KEY
  const key = apiKey === '' ? undefined : apiKey
  if (flags.front && nats) {
    const [{ NatsLink }, { Cluster }] = await Promise.all([import('../serve/nats/connection.js'), import('../serve/nats/cluster.js')])
    const link = await NatsLink.open(nats, `tetrad front on ${hostname()}`, log)
    const cluster = await Cluster.join(link, log)
    try {
      const what = cluster.models.size > 0 ? [...cluster.models.keys()].join(', ') : 'no model yet'
      await listen(flags, cluster.models, key, what, terminated, { end: () => cluster.drain(flags.drainMs) })
    } finally {
      await cluster.close()
      await link.close()
    }
    return
  }
  const named = namedDirectories(flags.model)
  if (nats) await checkClusterNames(named)
  // Before anything large is loaded.
  const member = nats && (await joinLater(nats, flags.batchJobs))
  let models: ReadonlyMap<string, ServedModel> = new Map()
  try {
    models = await loadModels(named, flags, flags.replicas, nats !== undefined, signal)
    await listen(flags, models, key, [...models.keys()].join(', '), terminated, {
      started: async (app) => member?.join(models, { app, apiKey: key }),
      drain: () => member?.drain(),
      end: () => closeModels(models, flags.drainMs),
    })
  } finally {
    await closeModels(models, 0)
    await member?.close()
  }
}

/** Fronts leave others alone. Throws OptionError. */
async function checkClusterNames(named: readonly NamedDirectory[]): Promise<void> {
  const { MODEL_NAME } = await import('../serve/nats/messages.js')
  const wrong = named.find(({ id }) => !new RegExp(MODEL_NAME).test(id))
  if (!wrong) return
  throw new OptionError('OPTION_INVALID', {
    what: 'a model in a cluster cannot be called so',
    expected: 'letters, digits, _, . and -, at most 200',
    actual: JSON.stringify(wrong.id),
    remedy: `Give it a name: --model name=${JSON.stringify(wrong.dir)}.`,
  })
}

/** What joins a cluster, once the models are loaded. */
interface Member {
  join(models: ReadonlyMap<string, ServedModel>, server: JobServer): Promise<void>
  /** Takes nothing new. */
  drain(): void
  close(): Promise<void>
}

async function joinLater(options: NatsOptions, batchJobs: number): Promise<Member> {
  const [{ NatsLink }, { ClusterMember }] = await Promise.all([import('../serve/nats/connection.js'), import('../serve/nats/cluster-member.js')])
  const link = await NatsLink.open(options, `tetrad on ${hostname()}`, log)
  let member: ClusterMember | undefined
  return {
    join: async (models, server) => {
      member = await ClusterMember.join(link, models, server, batchJobs, log)
    },
    drain: () => member?.drain(),
    close: async () => {
      await member?.close()
      await link.close()
    },
  }
}

interface Hooks {
  /** It listens. */
  started?(app: FastifyInstance): Promise<void>
  /** The end begins: nothing new is taken. */
  drain?(): void
  /** Resolves when what runs has ended, which takes drainMs at most. */
  end(): Promise<void>
}

/** Serves until the end is asked for, and lets what runs end. */
async function listen(
  flags: ServeFlags,
  models: ReadonlyMap<string, ServedModel>,
  apiKey: string | undefined,
  what: string,
  terminated: Promise<void>,
  hooks: Hooks,
): Promise<void> {
  const { createServer } = await import('../serve/server.js')
  // Whoever has the key is no page of another site.
  const any = flags.allowHost?.includes('*') === true || (isWildcard(flags.host) && apiKey !== undefined)
  const { app, drain } = createServer(models, {
    apiKey,
    hosts: any ? [] : ['localhost', flags.host, ...(flags.allowHost ?? [])],
    origins: flags.allowOrigin ?? [],
    logger: { level: 'info', redact: ['req.headers.authorization'] },
  })
  if (flags.logPrompts) {
    app.addHook('preHandler', async (request) => {
      if (request.body !== undefined) request.log.info({ body: request.body }, 'prompt')
    })
  }
  await app.listen({ host: flags.host, port: flags.port })
  try {
    await hooks.started?.(app)
  } catch (error) {
    await app.close()
    throw error
  }
  console.error(`ready: ${app.listeningOrigin}/v1 serves ${what}${apiKey ? ' with an API key' : ''}`)
  await terminated
  drain()
  hooks.drain?.()
  console.error(`draining: running requests have ${flags.drainMs} ms`)
  // Stops accepting; resolves when answers have been sent, which the engines' own limit bounds.
  await Promise.all([app.close(), hooks.end()])
}

/** All addresses of this machine. */
function isWildcard(host: string): boolean {
  return host === '0.0.0.0' || host === '::'
}

function log(text: string): void {
  console.error(text)
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
