// A soak: a server in a process of its own, arrivals at random, a sample each minute.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'
import { quantile } from '../../bench/measure.js'
import { writeAdapter } from '../support/adapters.js'
import { ROOT, TINY } from '../support/fixtures.js'
import { readTensors } from '../support/models.js'
import { Client, WrongAnswer } from './client.js'
import { rssGrowth } from './outcome.js'
import { measureProcess, type ProcessSample } from './process-sample.js'
import { arrivals, type Planned } from './traffic.js'

export interface SoakOptions {
  readonly minutes: number
  /** Arrivals a second, on average. */
  readonly perSecond: number
  readonly seed: number
  readonly ranks: number
  /** For the adapter. */
  readonly folder: string
  /** Default 60,000. */
  readonly sampleMs?: number
  readonly onSample: (sample: ProcessSample) => void
  readonly onWrong: (what: string) => void
}

export interface SoakOutcome {
  /** What must not have happened: at most MAX_WRONG of them. */
  readonly wrong: readonly string[]
  readonly exitCode: number | null
  readonly byKind: Readonly<Record<string, number>>
  /** As rssGrowth. */
  readonly growth: number | undefined
}

const ADAPTER = 'style'
/** It ends at so many: what follows is more of the same. */
const MAX_WRONG = 20
/** How long requests may be left after the last arrival, and the process after SIGTERM. */
const END_MS = 60_000

/** Resolves after the given time, or earlier at MAX_WRONG or when the server ends. */
export async function soak(options: SoakOptions): Promise<SoakOutcome> {
  const { minutes, perSecond, seed, ranks, folder, sampleMs = 60_000, onSample } = options
  const adapter = join(folder, ADAPTER)
  writeAdapter(adapter, await readTensors(TINY), { seed: 1, rank: 4, size: 0.1, modules: ['q_b_proj', 'c_proj', 'c_fc1'] })
  const args = ['serve', '--model', `tiny=${TINY}`, '--lora', `${ADAPTER}=${adapter}`, '--ranks', String(ranks), '--backend', 'wasm', '--port', '0']
  const child = spawn(process.execPath, [`${ROOT}dist/src/cli.js`, ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
  const exited = once(child, 'exit').then(([code]) => code as number | null)
  const wrong: string[] = []
  const fail = (what: string) => {
    wrong.push(what)
    options.onWrong(what)
  }
  try {
    const url = await Promise.race([listening(child.stderr), exited.then((code) => Promise.reject(new Error(`the server ended with ${code}`)))])
    const client = new Client(url)
    const traffic = arrivals(seed, ADAPTER)
    const byKind: Record<string, number> = {}
    const open = new Set<Promise<void>>()
    const samples: ProcessSample[] = []
    let latencies: number[] = []
    let requests = 0
    const start = performance.now()
    const send = async (planned: Planned) => {
      const kind = planned.kind === 'wrong' ? 'to be refused' : planned.reading.kind
      byKind[kind] = (byKind[kind] ?? 0) + 1
      requests++
      const began = performance.now()
      try {
        await client.send(planned)
        if (planned.kind === 'generate' && planned.reading.kind !== 'left') latencies.push(performance.now() - began)
      } catch (error) {
        fail(error instanceof WrongAnswer ? error.message : `${JSON.stringify(planned).slice(0, 300)}: ${inspect(error)}`)
      }
    }
    const arrive = async (all: readonly Planned[]) => {
      await Promise.all(all.map(send))
      for (const planned of all) if (planned.kind === 'generate' && !planned.isStanding) client.forget(planned)
    }
    const sample = async () => {
      const measured = await measureProcess(child.pid as number, url)
      const [latencyP50, latencyP99] = [0.5, 0.99].map((q) => (latencies.length > 0 ? quantile(latencies, q) : undefined))
      latencies = []
      const minute = (performance.now() - start) / 60_000
      const taken = { minute, ...measured, requests, wrong: wrong.length, latencyP50, latencyP99 }
      samples.push(taken)
      onSample(taken)
    }
    const end = start + minutes * 60_000
    await sample()
    let nextSample = start + sampleMs
    while (performance.now() < end && wrong.length < MAX_WRONG && child.exitCode === null) {
      const arrival = arrive(traffic.next())
      open.add(arrival)
      void arrival.then(() => open.delete(arrival))
      await sleep(traffic.gapMs(perSecond))
      if (performance.now() >= nextSample) {
        nextSample += sampleMs
        await sample()
      }
    }
    if (child.exitCode === null) {
      const isQuiet = await Promise.race([Promise.all(open).then(() => true), sleep(END_MS, false, { ref: false })])
      if (!isQuiet) fail(`${open.size} requests have no answer a minute after the last one came`)
      await sleep(500)
      await sample()
      const { running = 0, waiting = 0 } = samples.at(-1) ?? {}
      if (running + waiting > 0) fail(`${running} requests run and ${waiting} wait after all have ended`)
    }
    child.kill('SIGTERM')
    const exitCode = await Promise.race([exited, sleep(END_MS, null, { ref: false })])
    if (exitCode !== 0) fail(`the server ended with ${exitCode}`)
    return { wrong, exitCode, byKind, growth: rssGrowth(samples) }
  } finally {
    child.kill('SIGKILL')
    await exited
  }
}

/** The address that a server prints on stderr. Its further lines are passed on. */
async function listening(stderr: NodeJS.ReadableStream): Promise<string> {
  return new Promise((resolve) => {
    createInterface(stderr).on('line', (line) => {
      const [url] = /http:\/\/127\.0\.0\.1:\d+/.exec(line) ?? []
      if (url !== undefined) resolve(url)
      else console.error(line)
    })
  })
}
