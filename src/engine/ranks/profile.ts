// A profile: where the time of steps went, by rank and by name, as numbers, as a table, and as a Chrome trace.
import { EVENTS, type EventName, ProfileRecorder } from '../../../workers/profile/profile-recorder.js'

/** Events that are kept of each thread; more are dropped and counted. */
const CAPACITY = 400_000

/** One kind of work and its time. */
export interface ProfilePart {
  /** A matrix product by its matrix, another kernel, a wait at a collective, or 'other': copies and JavaScript. */
  readonly name: string
  readonly calls: number
  readonly ms: number
  /** Of the rank's time in steps, 0..1. */
  readonly share: number
}

/** Where the time of steps went: what engine.profile() returns. */
export interface Profile {
  readonly steps: number
  readonly ranks: readonly { readonly rank: number; readonly stepMs: number; readonly parts: readonly ProfilePart[] }[]
  /** Of the main thread: scheduling and publishing steps, committing results. */
  readonly coordinator: readonly ProfilePart[]
  /** Events that were dropped for lack of room. */
  readonly dropped: number
  /** For chrome://tracing and Perfetto: write it to a file with JSON.stringify. */
  readonly trace: { readonly traceEvents: readonly object[] }
}

export class Profiler {
  readonly buffers: readonly SharedArrayBuffer[]
  readonly #ranks: readonly ProfileRecorder[]
  readonly coordinator: ProfileRecorder

  constructor(ranks: number) {
    const buffer = () => new SharedArrayBuffer(ProfileRecorder.bytes(CAPACITY))
    this.buffers = Array.from({ length: ranks }, buffer)
    this.#ranks = this.buffers.map((b) => new ProfileRecorder(b))
    this.coordinator = new ProfileRecorder(buffer())
  }

  /** The events since the last call. Incomplete while a step runs. */
  take(): Profile {
    const threads = [...this.#ranks, this.coordinator].map((recorder) => recorder.read())
    const dropped = [...this.#ranks, this.coordinator].reduce((sum, recorder) => sum + recorder.dropped, 0)
    for (const recorder of [...this.#ranks, this.coordinator]) recorder.clear()
    const ranks = threads.slice(0, -1)
    const names = [...ranks.map((_, rank) => `rank ${rank}`), 'coordinator']
    const origin = Math.min(...threads.flatMap((events) => (events[0] ? [events[0].start] : [])))
    return {
      steps: ranks[0]?.filter((e) => e.name === 'step').length ?? 0,
      ranks: ranks.map((events, rank) => {
        const stepMs = total(events.filter((e) => e.name === 'step'))
        const parts = partsOf(
          events.filter((e) => e.name !== 'step'),
          stepMs,
        )
        const other = stepMs - parts.reduce((sum, part) => sum + part.ms, 0)
        return { rank, stepMs, parts: [...parts, { name: 'other', calls: 0, ms: other, share: stepMs > 0 ? other / stepMs : 0 }] }
      }),
      coordinator: partsOf(threads.at(-1) ?? [], 0),
      dropped,
      trace: {
        traceEvents: [
          ...names.map((name, tid) => ({ ph: 'M', name: 'thread_name', pid: 1, tid, args: { name } })),
          ...threads.flatMap((events, tid) =>
            events.map(({ name, start, end }) => ({ ph: 'X', name, pid: 1, tid, ts: (start - origin) * 1000, dur: (end - start) * 1000 })),
          ),
        ],
      },
    }
  }
}

type Event = ReturnType<ProfileRecorder['read']>[number]

function total(events: readonly Event[]): number {
  return events.reduce((sum, e) => sum + e.end - e.start, 0)
}

/** By name, the longest first. */
function partsOf(events: readonly Event[], whole: number): ProfilePart[] {
  const byName = new Map<EventName, Event[]>()
  for (const event of events) {
    const list = byName.get(event.name)
    if (list) list.push(event)
    else byName.set(event.name, [event])
  }
  return EVENTS.flatMap((name) => {
    const list = byName.get(name)
    if (!list) return []
    const ms = total(list)
    return [{ name, calls: list.length, ms, share: whole > 0 ? ms / whole : 0 }]
  }).sort((a, b) => b.ms - a.ms)
}

/** A table for people: microseconds a step, and shares of the step, by rank. */
export function formatProfile(profile: Profile): string {
  const names = [...new Set(profile.ranks.flatMap((r) => r.parts.map((p) => p.name)))]
  const width = Math.max(...names.map((n) => n.length), 12)
  const cell = (part: ProfilePart | undefined) =>
    part ? `${((part.ms / profile.steps) * 1000).toFixed(1).padStart(9)} ${(part.share * 100).toFixed(1).padStart(5)} %` : ' '.repeat(17)
  const lines = [
    `${profile.steps} steps; microseconds a step and share of it`,
    `${''.padEnd(width)}${profile.ranks.map((r) => `rank ${r.rank}`.padStart(19)).join('')}`,
    ...names.map((name) => `${name.padEnd(width)}${profile.ranks.map((r) => `  ${cell(r.parts.find((p) => p.name === name))}`).join('')}`),
    `${'step'.padEnd(width)}${profile.ranks.map((r) => `  ${((r.stepMs / profile.steps) * 1000).toFixed(1).padStart(9)}        `).join('')}`.trimEnd(),
    `coordinator: ${profile.coordinator.map((p) => `${p.name} ${((p.ms / profile.steps) * 1000).toFixed(1)} us`).join(', ')}`,
  ]
  if (profile.dropped > 0) lines.push(`${profile.dropped} events were dropped for lack of room: the figures cover the events before them`)
  return lines.join('\n')
}
