// Flags of commands that join a NATS cluster.
import { type Command, InvalidArgumentError } from 'commander'
import { OptionError } from '../errors.js'
import type { NatsOptions } from '../serve/nats/connection.js'

export interface NatsFlags {
  /** true: given without an address. */
  nats?: string | true
  natsCreds?: string
  natsCa?: string
  natsCert?: string
  natsKey?: string
  natsDeadlineMs?: number
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
export function natsOptions({ nats, natsCreds, natsCa, natsCert, natsKey, natsDeadlineMs }: NatsFlags): NatsOptions | undefined {
  if (natsDeadlineMs !== undefined && !(Number.isInteger(natsDeadlineMs) && natsDeadlineMs >= 0 && natsDeadlineMs < 2 ** 31)) {
    throw new OptionError('OPTION_INVALID', {
      what: 'nats-deadline-ms is out of range',
      expected: `an integer from 0 to ${2 ** 31 - 1}`,
      actual: String(natsDeadlineMs),
      remedy: 'Give nats-deadline-ms such a value.',
    })
  }
  const url = nats === true ? process.env.TETRAD_NATS_URL : nats
  if (nats !== undefined && !url) throw new InvalidArgumentError('--nats needs an address, or TETRAD_NATS_URL.')
  if (url !== undefined) return { url, creds: natsCreds, ca: natsCa, cert: natsCert, key: natsKey, deadlineMs: natsDeadlineMs }
  const given = Object.entries({ natsCreds, natsCa, natsCert, natsKey, natsDeadlineMs }).find(([, value]) => value !== undefined)
  if (given) throw new InvalidArgumentError(`--${given[0].replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)} needs --nats.`)
  return undefined
}
