// Kernels that record how long each call took. A rank uses them in place of the plain ones when a profile is wanted. The wrappers are
// made once, at load, from the table below; the compiler refuses a kernel that the table lacks.
import type { KernelBackend } from '../../kernels/backend.js'
import type { PackedMatrix } from '../../kernels/packing.js'
import { type EventName, eventId, type ProfileRecorder } from './profile-recorder.js'

type Method = { [K in keyof KernelBackend]: KernelBackend[K] extends (...args: never[]) => unknown ? K : never }[keyof KernelBackend]

/** Event of each kernel; matmul's is that of its matrix, if it is known. */
const EVENT_OF: Readonly<Record<Exclude<Method, 'rows'>, EventName>> = {
  matmul: 'matmul',
  rmsNorm: 'rmsNorm',
  rmsNormHeads: 'rmsNorm',
  rope: 'rope',
  swiglu: 'swiglu',
  gateRows: 'gateRows',
  combineFactors: 'combineFactors',
  sumPartials: 'sumPartials',
  addRows: 'addRows',
  addVector: 'addRows',
  gatherRow: 'gatherRow',
  writeCacheRow: 'writeCacheRow',
  copyBytes: 'copyBytes',
  loadQueries: 'loadQueries',
  dotPage: 'dotPage',
  beginAttention: 'beginAttention',
  attendPage: 'attendPage',
  finishAttention: 'finishAttention',
  combinePartials: 'combinePartials',
  argmax: 'sampling',
  logProbability: 'sampling',
  softWeights: 'sampling',
  sample: 'sampling',
}

/** The kernels of `inner`, timed. `matrices`: event of each known matrix. */
export function profiledBackend(inner: KernelBackend, recorder: ProfileRecorder, matrices: ReadonlyMap<PackedMatrix, EventName>): KernelBackend {
  const timed = Object.entries(EVENT_OF).map(([name, event]) => {
    const kernel = inner[name as keyof typeof EVENT_OF] as (...args: unknown[]) => unknown
    const id = eventId(event)
    const call = (...args: unknown[]) => {
      const start = recorder.now()
      const result = kernel.apply(inner, args)
      recorder.add(id, start)
      return result
    }
    return [name, call]
  })
  const ids = new Map([...matrices].map(([matrix, name]) => [matrix, eventId(name)]))
  const matmul: KernelBackend['matmul'] = (w, x, y, tokens, scratch) => {
    const start = recorder.now()
    inner.matmul(w, x, y, tokens, scratch)
    recorder.add(ids.get(w) ?? eventId(EVENT_OF.matmul), start)
  }
  // Byte counters and properties are read from `inner`, as the prototype.
  return Object.assign(Object.create(inner) as KernelBackend, Object.fromEntries(timed), { matmul, rows: inner.rows.bind(inner) })
}
