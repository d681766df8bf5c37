// Flags of commands that join a NATS cluster.
import { type Command, InvalidArgumentError } from 'commander'
import type { NatsOptions } from '../nats/connection.js'

export interface NatsFlags {
  nats?: string
  natsCreds?: string
  natsCa?: string
  natsCert?: string
  natsKey?: string
}

export function withNatsFlags(command: Command, what: string): Command {
  return command
    .option('--nats <url>', `${what}: nats://[user:password@]host[:4222], tls:// for TLS; with commas for several servers of a cluster`)
    .option('--nats-creds <file>', 'credentials for it')
    .option('--nats-ca <file>', 'certificates of its authorities')
    .option('--nats-cert <file>', 'own certificate')
    .option('--nats-key <file>', 'key of the own certificate')
}

/** undefined: no cluster was asked for. */
export function natsOptions({ nats, natsCreds, natsCa, natsCert, natsKey }: NatsFlags): NatsOptions | undefined {
  if (nats !== undefined) return { url: nats, creds: natsCreds, ca: natsCa, cert: natsCert, key: natsKey }
  const given = Object.entries({ natsCreds, natsCa, natsCert, natsKey }).find(([, value]) => value !== undefined)
  if (given) throw new InvalidArgumentError(`--${given[0].replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)} needs --nats.`)
  return undefined
}
