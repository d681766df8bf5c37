// A thread of the collectives benchmark: times the ranks' barrier, copies and sums over one exchange memory.
import { parentPort, workerData } from 'node:worker_threads'
import type { SharedMemory } from '../kernels/backend.js'
import { openBackend } from '../kernels/open-backend.js'
import type { Rows } from '../kernels/rows.js'
import type { WasmModule } from '../kernels/wasm/webassembly.js'
import { Collectives } from '../workers/collectives/collectives.js'

export interface CollectivesTask {
  readonly module: WasmModule
  readonly exchange: SharedMemory
  readonly control: SharedArrayBuffer
  readonly rank: number
  readonly ranks: number
  readonly spins: number
}

/** Microseconds of one collective with the computation before it, and of that computation alone (0 unless `working`). */
export interface CollectivesTimes {
  readonly us: number
  readonly aloneUs: number
}

export interface CollectivesRun {
  readonly operation: 'barrier' | 'all-gather' | 'reduce-scatter' | 'all-reduce'
  /** Float32 values of the vector, a multiple of 16. */
  readonly values: number
  readonly repeats: number
  /** Each rank computes about 200 us before each collective, as in a step. */
  readonly working: boolean
}

const { module, exchange, control, rank, ranks, spins } = workerData as CollectivesTask
const collectives = new Collectives({ control: new Int32Array(control), rank, ranks }, { spins, deadlineMs: 60_000 })
const kernels = openBackend(module, exchange)
/** Bytes of a rank's slot in the exchange memory. Two sets of slots alternate, so that one barrier for each collective is enough. */
const SLOT = 4 << 20
let noise = 1
const own = new Float32Array(1 << 20).fill(0.5 + rank)

function operation({ operation, values }: CollectivesRun): (turn: number) => void {
  const part = values / ranks
  const slot = (half: number, r: number): Rows => kernels.rows(half * 4 * SLOT + r * SLOT, values)
  const result = (half: number): Rows => kernels.rows((8 + half) * SLOT, values)
  const mine = (rows: Rows): Rows => rows.columns(rank * part, part)
  const slots = [0, 1].map((half) => Array.from({ length: ranks }, (_, r) => slot(half, r)))
  const results = [0, 1].map(result)
  const ownSlots = slots.map((all) => all.map(mine))
  const ownResults = results.map(mine)
  const local = own.subarray(0, values)
  const gather = (turn: number) => {
    ;(ownResults[turn] as Rows).row(0).set(local.subarray(rank * part, (rank + 1) * part))
    collectives.barrier('gather of queries')
    local.set((results[turn] as Rows).row(0))
  }
  const scatter = (turn: number) => {
    const all = slots[turn] as Rows[]
    ;(all[rank] as Rows).row(0).set(local)
    collectives.barrier('reduce-scatter of attention outputs')
    kernels.sumPartials(ownResults[turn] as Rows, ownSlots[turn] as Rows[], part, 1, 1 / ranks)
  }
  switch (operation) {
    case 'barrier':
      return () => collectives.barrier('gather of queries')
    case 'all-gather':
      return gather
    case 'reduce-scatter':
      return scatter
    case 'all-reduce':
      return (turn) => {
        scatter(turn)
        collectives.barrier('all-reduce of the MLP')
        local.set((results[turn] as Rows).row(0))
      }
  }
}

parentPort?.on('message', (run: CollectivesRun) => {
  const step = operation(run)
  for (let i = 0; i < 20; i++) step(i & 1)
  const alone = run.working ? timed(run.repeats, work) : 0
  const together = timed(
    run.repeats,
    run.working
      ? (i) => {
          work()
          step(i & 1)
        }
      : (i) => step(i & 1),
  )
  parentPort?.postMessage({ us: (together * 1000) / run.repeats, aloneUs: (alone * 1000) / run.repeats } satisfies CollectivesTimes)
})

/** Milliseconds until all ranks have run `step` `repeats` times. */
function timed(repeats: number, step: (i: number) => void): number {
  collectives.barrier('gather of queries')
  const start = performance.now()
  for (let i = 0; i < repeats; i++) step(i)
  collectives.barrier('gather of queries')
  return performance.now() - start
}

/** About 200 us, as long as a rank of a small model computes between two collectives. */
function work(): void {
  for (let i = 0; i < 200_000; i++) noise = (Math.imul(noise, 1664525) + 1013904223) | 0
}
