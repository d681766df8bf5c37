// Flags of commands that join a NATS cluster.
import { type Command, InvalidArgumentError } from 'commander'
import { flagName } from '../options/caller.js'
import { int } from '../options/entry.js'
import { MAX_TIMER_MS } from '../options/limits.js'
import type { NatsOptions } from '../serve/nats/connection.js'
import { checkFlags } from './flags.js'

export interface NatsFlags {
  /** true: given without an address. */
  nats?: string | true
  natsCreds?: string
  natsCa?: string
  natsCert?: string
  natsKey?: string
  natsDeadlineMs?: unknown
}

export const NATS_DEADLINE = {
  natsDeadlineMs: int({
    min: 0,
    max: MAX_TIMER_MS,
    default: undefined,
    defaultText: '30000',
    flag: '<ms>',
    doc: 'with --front: milliseconds without NATS after which requests fail',
  }),
}

export function withNatsFlags(command: Command, what: string): Command {
  return command
    .option(
      '--nats [url]',
      `${what}: nats://[user:password@]host[:4222], tls:// for TLS; with commas for several servers of a cluster (without an address: that of the environment variable TETRAD_NATS_URL)`,
    )
    .option('--nats-creds <file>', 'credentials for it')
    .option('--nats-ca <file>', 'certificates of its authorities')
    .option('--nats-cert <file>', 'own certificate')
    .option('--nats-key <file>', 'key of the own certificate')
}

/** undefined: no cluster was asked for. */
export function natsOptions({ nats, natsCreds, natsCa, natsCert, natsKey, natsDeadlineMs: given }: NatsFlags): NatsOptions | undefined {
  const { natsDeadlineMs } = checkFlags(NATS_DEADLINE, { natsDeadlineMs: given })
  const url = nats === true ? process.env.TETRAD_NATS_URL : nats
  if (nats !== undefined && !url) throw new InvalidArgumentError('--nats needs an address, or TETRAD_NATS_URL.')
  if (url !== undefined) return { url, creds: natsCreds, ca: natsCa, cert: natsCert, key: natsKey, deadlineMs: natsDeadlineMs }
  const useless = Object.entries({ natsCreds, natsCa, natsCert, natsKey, natsDeadlineMs }).find(([, value]) => value !== undefined)
  if (useless) throw new InvalidArgumentError(`${flagName(useless[0])} needs --nats.`)
  return undefined
}
