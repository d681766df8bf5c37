// What a soak found, from its log: rows by minute, pictures and sentences, in the form of a benchmark's result.
import { readFileSync } from 'node:fs'
import { machineSlug } from '../../bench/harness/machine.js'
import { type BenchResult, writeResult } from '../../bench/harness/results.js'
import { resultsFolder } from '../../bench/harness/run.js'
import { median } from '../../bench/measure.js'
import type { ProcessSample } from './process-sample.js'

/** The log's first line. */
export interface SoakStart {
  readonly seed: number
  readonly minutes: number
  readonly perSecond: number
  readonly ranks: number
  readonly machine: BenchResult['machine']
  readonly date: string
}

/** The log's last line; missing where the soak was cut. */
export interface SoakEnd {
  readonly end: { readonly wrong: readonly string[]; readonly exitCode: number | null; readonly byKind: Readonly<Record<string, number>> }
}

/** Shorter ones go to the folder of quick results. */
const FULL_MINUTES = 30

/** Share by which RSS grew: the median of the last tenth of the samples over that of the second tenth. undefined below 20 samples. */
export function rssGrowth(samples: readonly Pick<ProcessSample, 'rssMiB'>[]): number | undefined {
  const tenth = Math.floor(samples.length / 10)
  if (tenth < 2) return undefined
  const of = (part: typeof samples) => median(part.map(({ rssMiB }) => rssMiB))
  return of(samples.slice(-tenth)) / of(samples.slice(tenth, 2 * tenth)) - 1
}

/** Writes JSON, CSV and pictures of a log into `out`, in the machine's folder. Returns their paths and the sentences. */
export async function writeSoak(log: string, out: string): Promise<{ files: string[]; answer: readonly string[] }> {
  const lines = readFileSync(log, 'utf8').trim().split('\n')
  const start = JSON.parse(lines[0] as string) as SoakStart
  const rest = lines.slice(1).map((line) => JSON.parse(line) as ProcessSample | SoakEnd)
  const samples = rest.filter((line): line is ProcessSample => 'rssMiB' in line)
  const end = rest.find((line): line is SoakEnd => 'end' in line)?.end
  const rows = samples.map((sample, i) => {
    const before = samples[i - 1]
    const cpuShare = before && (sample.cpuSeconds - before.cpuSeconds) / ((sample.minute - before.minute) * 60)
    return { ...sample, cpuShare }
  })
  const last = samples.at(-1)
  if (last === undefined) throw new Error(`${log} has no sample`)
  const result: BenchResult = {
    benchmark: 'soak',
    question: 'Does a server that runs for long answer alike, and keep its memory?',
    machine: start.machine,
    command: `npm run soak -- --minutes ${start.minutes} --rate ${start.perSecond} --seed ${start.seed}`,
    seed: start.seed,
    rounds: 1,
    quick: start.minutes < FULL_MINUTES,
    date: start.date,
    seconds: Math.round(last.minute * 60),
    othersShare: undefined,
    interrupted: end === undefined,
    floor: 'none: memory and equality are what is asked for',
    method: `\`tetrad serve\` with models/tiny and one adapter at ${start.ranks} ranks, in a process of its own. ${start.perSecond} arrivals a second on average: completions, chats, JSON under a schema, responses and messages, whole, as streams and as streams that are left, and requests that must be refused. Each answer is compared with the earlier answers to the same request. Samples from /proc and /metrics.`,
    columns: [
      { key: 'minute', label: 'minute' },
      { key: 'rssMiB', label: 'RSS', unit: 'MiB' },
      { key: 'heapMiB', label: 'heap', unit: 'MiB' },
      { key: 'externalMiB', label: 'external', unit: 'MiB' },
      { key: 'handles', label: 'handles' },
      { key: 'files', label: 'open files' },
      { key: 'threads', label: 'threads' },
      { key: 'cpuShare', label: 'CPU', unit: 'cores', digits: 2 },
      { key: 'loopLagP99Ms', label: 'event loop lag p99', unit: 'ms' },
      { key: 'running', label: 'running' },
      { key: 'waiting', label: 'waiting' },
      { key: 'restarts', label: 'restarts' },
      { key: 'requests', label: 'requests' },
      { key: 'wrong', label: 'wrong answers' },
      { key: 'latencyP50', label: 'p50', unit: 'ms' },
      { key: 'latencyP99', label: 'p99', unit: 'ms' },
    ],
    rows,
    pictures: [
      {
        name: '',
        title: 'Memory of a server over time',
        kind: 'lines',
        x: { title: 'minutes' },
        y: { title: 'MiB' },
        points: (['rssMiB', 'heapMiB', 'externalMiB'] as const).flatMap((key, i) =>
          samples.map((sample) => ({ x: sample.minute, y: sample[key], series: ['RSS', 'JavaScript heap', 'external'][i] as string })),
        ),
      },
    ],
    answer: sentences(samples, last, end),
  }
  const folder = resultsFolder(out, machineSlug(start.machine), result.quick)
  return { files: await writeResult(result, folder), answer: result.answer }
}

function sentences(samples: readonly ProcessSample[], last: ProcessSample, end: SoakEnd['end'] | undefined): string[] {
  const growth = rssGrowth(samples)
  const range = (key: 'handles' | 'files' | 'threads') => {
    const values = samples.map((sample) => sample[key])
    return `${Math.min(...values)} to ${Math.max(...values)}`
  }
  const first = samples[0] as ProcessSample
  const cpu = (last.cpuSeconds - first.cpuSeconds) / Math.max(1, (last.minute - first.minute) * 60)
  const half = samples.map(({ latencyP50 }) => latencyP50).filter((ms) => ms !== undefined)
  const latency = (part: readonly number[]) => median(part).toFixed(0)
  return [
    `${last.requests} requests in ${last.minute.toFixed(0)} minutes, ${last.wrong} of them wrong${end && end.exitCode !== 0 ? `; the server ended with ${end.exitCode}` : ''}.`,
    `RSS ${first.rssMiB.toFixed(0)} MiB at first and ${last.rssMiB.toFixed(0)} at the end${growth === undefined ? '' : `: ${(growth * 100).toFixed(1)} % from the second tenth of the time to the last`}.`,
    `${range('handles')} handles, ${range('files')} open files, ${range('threads')} threads, ${last.restarts} restarts; ${cpu.toFixed(2)} cores on average.`,
    ...(half.length > 3
      ? [`Median latency ${latency(half.slice(0, half.length / 2))} ms in the first half, ${latency(half.slice(half.length / 2))} ms in the second.`]
      : []),
    ...(end
      ? [
          `By kind: ${Object.entries(end.byKind)
            .map(([kind, n]) => `${n} ${kind}`)
            .join(', ')}.`,
        ]
      : []),
  ]
}
