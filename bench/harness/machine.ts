// The machine and software of a result, and the share of the cores that other processes used during the run.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, totalmem } from 'node:os'
import { VERSION } from '../../src/version.js'

export interface MachineFacts {
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  /** Name of the adapter, on the gpu backend. */
  readonly gpu?: string
  readonly node: string
  readonly tetrad: string
  /** Short hash, with '+' if tracked files differ from it; 'unknown' outside a repository. */
  readonly commit: string
}

export function machineFacts(gpu?: string): MachineFacts {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    ...(gpu !== undefined && { gpu }),
    node: process.version,
    tetrad: VERSION,
    commit: commit(),
  }
}

/** Name of the folder of a machine's results. */
export function machineSlug({ cpu, cores, gpu }: MachineFacts): string {
  const name = gpu ?? `${cpu} ${cores} cores`
  return name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '')
}

function commit(): string {
  // Set where the code runs without its repository.
  if (process.env.TETRAD_COMMIT) return process.env.TETRAD_COMMIT
  const git = (...args: string[]) => execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  try {
    return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--untracked-files=no') === '' ? '' : '+')
  } catch {
    return 'unknown'
  }
}

/** Measures the share of the cores that other processes use from its construction on. undefined where the system does not tell. */
export class OthersMeter {
  readonly #start = systemBusyMs()
  readonly #own = systemBusyMs() === undefined ? 0 : ownMs()
  readonly #at = performance.now()

  share(): number | undefined {
    const busy = systemBusyMs()
    if (busy === undefined || this.#start === undefined) return undefined
    const others = busy - this.#start - (ownMs() - this.#own)
    return Math.max(0, others / ((performance.now() - this.#at) * cpus().length))
  }
}

/** CPU time of this process and of its children that have ended: peers run in processes of their own. */
function ownMs(): number {
  const { user, system } = process.cpuUsage()
  const fields = readFileSync('/proc/self/stat', 'utf8').split(') ')[1]?.split(' ') ?? []
  return (user + system) / 1000 + (Number(fields[13]) + Number(fields[14])) * 10
}

/** CPU time of all processes since the system started, from Linux's counters in hundredths of a second. */
function systemBusyMs(): number | undefined {
  try {
    const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '')
      .split(/\s+/)
      .slice(1)
      .map(Number)
    return (user + nice + system + irq + softirq) * 10
  } catch {
    return undefined
  }
}
