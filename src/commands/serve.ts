// tetrad serve: OpenAI's HTTP API over engines of this process, until SIGTERM or Ctrl-C, which let running requests end. With --nats its
// models also answer to fronts of a NATS cluster; with --front it is such a front, without engines.
import { hostname } from 'node:os'
import { type Command, InvalidArgumentError } from 'commander'
import type { FastifyInstance } from 'fastify'
import { invalidOption } from '../options/check.js'
import type { Checked } from '../options/entry.js'
import { int } from '../options/entry.js'
import { MAX_TIMER_MS } from '../options/limits.js'
import type { ClusterMember } from '../serve/nats/cluster-member.js'
import type { NatsOptions } from '../serve/nats/connection.js'
import type { JobServer } from '../serve/nats/job-worker.js'
import type { ServedModel } from '../serve/served-model.js'
import { checkFlags, collect, engineOptions, type Flags, withEngineFlags, withFlags, withLoraFlag } from './flags.js'
import { checkAddress, listenFailed } from './listen-address.js'
import { NATS_DEADLINE, type NatsFlags, natsOptions, withNatsFlags } from './nats-flags.js'
import { interruption } from './progress.js'
import { adapterNames, closeModels, loadModels, NAMED_MODEL_DOC, type NamedDirectory, namedDirectories } from './served-models.js'

interface ServeFlags extends Flags, NatsFlags {
  readonly model?: string[]
  readonly host: string
  readonly apiKey?: string
  readonly allowHost?: string[]
  readonly allowOrigin?: string[]
  readonly logPrompts?: boolean
  readonly front?: boolean
  readonly allowLoraUpdates?: boolean
}

const SERVE_FLAGS = {
  port: int({ min: 0, max: 65535, default: 8000, doc: 'port to listen at; 0 takes any that is free' }),
  replicas: int({
    min: 1,
    max: 64,
    default: undefined,
    defaultText: 'the engine is in this process',
    doc: 'processes with an engine each, behind this one',
  }),
  requestTimeoutMs: int({
    min: 1,
    max: MAX_TIMER_MS,
    default: undefined,
    defaultText: 'no limit',
    flag: '<ms>',
    doc: 'longest time in ms from a request to the end of its answer; then it gets status 504',
  }),
  keepAliveMs: int({ min: 0, max: MAX_TIMER_MS, default: 75_000, flag: '<ms>', doc: 'time in ms that an idle connection is kept open' }),
  drainMs: int({ min: 0, max: MAX_TIMER_MS, default: 30_000, flag: '<ms>', doc: 'longest time in ms that running requests get at the end' }),
  batchJobs: int({ min: 0, max: 256, default: 4, doc: 'with --nats: jobs of tetrad batch that run here at the same time' }),
}

type ServeValues = Checked<typeof SERVE_FLAGS>

/** Flags that a front uses; all others configure engines, which it does not have. */
const OF_FRONT = new Set([
  ...['nats', 'natsCreds', 'natsCa', 'natsCert', 'natsKey', 'natsDeadlineMs', 'front', 'host', 'port'],
  ...['apiKey', 'allowHost', 'allowOrigin', 'logPrompts', 'drainMs', 'requestTimeoutMs', 'keepAliveMs'],
])

export function addServe(program: Command): void {
  const command = withEngineFlags(program.command('serve').description("serve models over OpenAI's HTTP API"))
    .option('--model <model>', NAMED_MODEL_DOC, collect)
    .option('--host <address>', 'address to listen at; others than the loopback let other machines ask', '127.0.0.1')
    .option('--api-key <key>', 'clients must send it (default: the environment variable TETRAD_API_KEY, else none)')
    .option(
      '--allow-host <name>',
      "name under which clients may ask, besides localhost, --host and addresses; '*' for any; again for another",
      collect,
    )
    .option('--allow-origin <origin>', 'origin of pages that may ask; again for another', collect)
    .option('--log-prompts', 'write prompts to the log')
    .option('--allow-lora-updates', 'clients may load adapters from directories of this machine, and unload them')
    .option('--front', 'run no engine here: the replicas of the NATS cluster answer')
  withLoraFlag(command, ', under a model name of its own; again for another')
  withFlags(command, SERVE_FLAGS)
  withNatsFlags(withFlags(command, NATS_DEADLINE), 'join a NATS cluster').action((flags: ServeFlags) => serve(flags, command))
}

async function serve(flags: ServeFlags, command: Command): Promise<void> {
  if (flags.json) throw new InvalidArgumentError('serve has no --json.')
  const values = checkFlags(SERVE_FLAGS, flags)
  engineOptions(flags)
  const nats = natsOptions(flags)
  const given = (name: string) => command.getOptionValueSource(name) === 'cli'
  if (flags.front && !nats) throw new InvalidArgumentError('--front needs --nats.')
  const useless = flags.front ? command.options.find((option) => given(option.attributeName()) && !OF_FRONT.has(option.attributeName())) : undefined
  if (useless) throw new InvalidArgumentError(`--front has no engine, so ${useless.long} has no effect.`)
  if (given('natsDeadlineMs') && !flags.front) throw new InvalidArgumentError('--nats-deadline-ms needs --front.')
  if (given('batchJobs') && !nats) throw new InvalidArgumentError('--batch-jobs needs --nats.')
  await checkAddress(flags.host, values.port)
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
      await listen(flags, values, cluster.models, key, what, terminated, { end: () => cluster.drain(values.drainMs) })
    } finally {
      await cluster.close()
      await link.close()
    }
    return
  }
  const named = namedDirectories(flags.model)
  // Throws for names that cannot be served.
  adapterNames(named, flags)
  if (nats) await checkClusterNames(named)
  // Before anything large is loaded.
  const member = nats && (await joinLater(nats, values.batchJobs))
  let models: ReadonlyMap<string, ServedModel> = new Map()
  try {
    models = await loadModels(named, flags, values.replicas, nats !== undefined, signal)
    await listen(flags, values, models, key, [...models.keys()].join(', '), terminated, {
      started: async (app) => member?.join(models, { app, apiKey: key }),
      drain: () => member?.drain(),
      end: () => closeModels(models, values.drainMs),
    })
  } finally {
    await closeModels(models, 0)
    await member?.close()
  }
}

/** Fronts ignore models with other names. Throws OptionError. */
async function checkClusterNames(named: readonly NamedDirectory[]): Promise<void> {
  const { MODEL_NAME } = await import('../serve/nats/message-schemas.js')
  const wrong = named.find(({ id }) => !new RegExp(MODEL_NAME).test(id))
  if (!wrong) return
  throw invalidOption({
    what: 'invalid model name for a cluster',
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
  { port, drainMs, requestTimeoutMs, keepAliveMs }: ServeValues,
  models: ReadonlyMap<string, ServedModel>,
  apiKey: string | undefined,
  what: string,
  terminated: Promise<void>,
  hooks: Hooks,
): Promise<void> {
  const { createServer } = await import('../serve/server.js')
  // With an API key a page of another site (DNS rebinding) cannot authenticate, so any Host is accepted.
  const any = flags.allowHost?.includes('*') === true || (isWildcard(flags.host) && apiKey !== undefined)
  const { app, drain } = createServer(models, {
    apiKey,
    hosts: any ? [] : ['localhost', flags.host, ...(flags.allowHost ?? [])],
    origins: flags.allowOrigin ?? [],
    requestTimeoutMs,
    keepAliveTimeoutMs: keepAliveMs,
    adapterUpdates: flags.allowLoraUpdates === true,
    logger: { level: 'info', redact: ['req.headers.authorization'] },
  })
  if (flags.logPrompts) {
    app.addHook('preHandler', async (request) => {
      if (request.body !== undefined) request.log.info({ body: request.body }, 'prompt')
    })
  }
  await app.listen({ host: flags.host, port }).catch((error: NodeJS.ErrnoException) => {
    throw listenFailed(flags.host, port, error)
  })
  try {
    await hooks.started?.(app)
  } catch (error) {
    await app.close()
    throw error
  }
  console.error(`ready: ${app.listeningOrigin}/v1 serves ${what}${apiKey ? ' with an API key' : ''}`)
  console.error(`page:  ${app.listeningOrigin}/`)
  await terminated
  drain()
  hooks.drain?.()
  console.error(`draining: running requests have ${drainMs} ms`)
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
