// Timed events of one thread in a shared buffer, for a profile. Written by its thread only, read by the coordinator between
// steps. Defines the names of events. Allocates nothing per event; events that do not fit are counted.
import { STAGES } from '../protocol.js'

/** Matrices of a layer by name, then kernels, then waits at collectives, then the coordinator's own work. */
export const EVENTS = [
  'step',
  'queryA',
  'queryB',
  'streams',
  'coefficients',
  'keyUp',
  'valueUp',
  'outputGate',
  'attentionOut',
  'gateUp',
  'down',
  'head',
  'shared',
  'matmul',
  'rmsNorm',
  'rope',
  'swiglu',
  'gateRows',
  'combineFactors',
  'sumPartials',
  'addRows',
  'gatherRow',
  'writeCacheRow',
  'loadQueries',
  'dotPage',
  'attendPage',
  'beginAttention',
  'finishAttention',
  'combinePartials',
  'copyBytes',
  'sampling',
  'schedule',
  'results',
  // Dispatches of a GPU with names of their own, then the host's part of its steps.
  'inputs',
  'norm',
  'sum of squares',
  'biases',
  'norms of heads',
  'rope of queries',
  'rope of query vectors',
  'queries of factors',
  'norm of streams',
  'rope of streams',
  'rope of keys',
  'write to cache',
  'pack queries',
  'pack activations',
  'attention',
  'combine parts',
  'argmax',
  'embedding',
  'softmax',
  'weighted sums',
  'place products',
  'sum over shards',
  'gate',
  'add attention',
  'add MLP',
  'encode',
  'submit',
  'readback',
  ...STAGES.map((stage) => `wait: ${stage}` as const),
] as const

export type EventName = (typeof EVENTS)[number]

const IDS: ReadonlyMap<string, number> = new Map(EVENTS.map((name, i) => [name, i]))

export function eventId(name: EventName): number {
  return IDS.get(name) as number
}

/** The event of a dispatch's label. Throws RangeError for an unknown one. */
export function dispatchId(name: string): number {
  const id = IDS.get(name)
  if (id === undefined) throw new RangeError(`no event is named ${name}`)
  return id
}

const HEADER_BYTES = 16
const VALUES = 3

export class ProfileRecorder {
  /** Events written, events dropped for lack of room. */
  readonly #counts: Int32Array
  /** [capacity]: id, start, end; milliseconds since the epoch. */
  readonly #events: Float64Array
  readonly #capacity: number

  constructor(buffer: SharedArrayBuffer) {
    this.#counts = new Int32Array(buffer, 0, 2)
    this.#events = new Float64Array(buffer, HEADER_BYTES)
    this.#capacity = this.#events.length / VALUES
  }

  static bytes(capacity: number): number {
    return HEADER_BYTES + capacity * VALUES * 8
  }

  /** A time for `add`, comparable between threads. */
  now(): number {
    return performance.timeOrigin + performance.now()
  }

  /** An event from `start` to now, or to `end`. */
  add(id: number, start: number, end = this.now()): void {
    const n = this.#counts[0] as number
    if (n >= this.#capacity) {
      this.#counts[1] = (this.#counts[1] as number) + 1
      return
    }
    const at = n * VALUES
    this.#events[at] = id
    this.#events[at + 1] = start
    this.#events[at + 2] = end
    this.#counts[0] = n + 1
  }

  /** Counts events that were dropped before they were timed. */
  drop(count: number): void {
    this.#counts[1] = (this.#counts[1] as number) + count
  }

  get dropped(): number {
    return this.#counts[1] as number
  }

  read(): { readonly name: EventName; readonly start: number; readonly end: number }[] {
    return Array.from({ length: this.#counts[0] as number }, (_, i) => ({
      name: EVENTS[this.#events[i * VALUES] as number] as EventName,
      start: this.#events[i * VALUES + 1] as number,
      end: this.#events[i * VALUES + 2] as number,
    }))
  }

  clear(): void {
    this.#counts.fill(0)
  }
}
