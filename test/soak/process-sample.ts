// What a server's process holds: from /proc and from its metrics.
import { readdirSync, readFileSync } from 'node:fs'

export interface ProcessSample {
  /** Since the first request. */
  readonly minute: number
  readonly rssMiB: number
  readonly heapMiB: number
  /** Memory of buffers outside the JavaScript heap, shared ones not included. */
  readonly externalMiB: number
  /** Active handles of Node: sockets, timers of the system, ports. */
  readonly handles: number
  readonly files: number
  readonly threads: number
  /** CPU seconds since the process began. */
  readonly cpuSeconds: number
  readonly loopLagP99Ms: number
  readonly running: number
  readonly waiting: number
  readonly restarts: number
  /** Requests sent so far, those refused as they must be included. */
  readonly requests: number
  readonly wrong: number
  /** Of the generating requests since the last sample that were read to their end, ms. */
  readonly latencyP50: number | undefined
  readonly latencyP99: number | undefined
}

type Measured = Omit<ProcessSample, 'minute' | 'requests' | 'wrong' | 'latencyP50' | 'latencyP99'>

/** Hundredths of a second: what /proc counts CPU time in. */
const TICKS = 100

/** Throws where the process or its metrics are not there. Linux only. */
export async function measureProcess(pid: number, url: string): Promise<Measured> {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1])
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  const metrics = await (await fetch(`${url}/metrics`)).text()
  const metric = (name: string) =>
    [...metrics.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))].reduce((sum, [, value]) => sum + Number(value), 0)
  return {
    rssMiB: field('VmRSS') / 1024,
    heapMiB: metric('nodejs_heap_size_used_bytes') / 2 ** 20,
    externalMiB: metric('nodejs_external_memory_bytes') / 2 ** 20,
    handles: metric('nodejs_active_handles_total'),
    files: readdirSync(`/proc/${pid}/fd`).length,
    threads: field('Threads'),
    cpuSeconds: (Number(stat[11]) + Number(stat[12])) / TICKS,
    loopLagP99Ms: metric('nodejs_eventloop_lag_p99_seconds') * 1000,
    running: metric('vllm:num_requests_running'),
    waiting: metric('vllm:num_requests_waiting'),
    restarts: metric('tetrad:restarts_total'),
  }
}
