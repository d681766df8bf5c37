// Cost of a barrier, an all-gather, a reduce-scatter and an all-reduce over shared memory, by ranks, size and load.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { createMemory, prepareBackend } from '../kernels/open-backend.js'
import { bestSimdLevel } from '../kernels/wasm/simd-level.js'
import type { WasmModule } from '../kernels/wasm/webassembly.js'
import { SPINS } from '../src/engine/start-engine.js'
import { OptionError } from '../src/index.js'
import { CONTROL_BYTES } from '../workers/mailbox/control.js'
import type { CollectivesRun, CollectivesTask, CollectivesTimes } from './collectives-worker.js'
import { type Benchmark, interleave, type Row } from './harness/benchmark.js'
import { plotted, type Sample, sampleOf } from './harness/sample.js'
import { median } from './measure.js'
import { machineRates } from './probe.js'

interface Cell extends CollectivesRun {
  readonly ranks: 2 | 4
  readonly load: (typeof LOADS)[number]
  readonly us: number[]
  readonly aloneUs: number[]
}

const OPERATIONS = ['barrier', 'all-gather', 'reduce-scatter', 'all-reduce'] as const satisfies readonly CollectivesRun['operation'][]
/** Load of the machine. 'ranks at work': ranks compute between collectives. */
const LOADS = ['quiet', 'a core busy', 'ranks at work'] as const
const SIZES = [4096, 65536, 1048576]

export const collectives: Benchmark = {
  name: 'collectives',
  question: 'How long do collectives take, by ranks, size and load?',
  supports: ['ranks'],
  async run(context) {
    const module = prepareBackend('wasm', bestSimdLevel(new URL('../kernels/wasm/', import.meta.url))) as WasmModule
    const rankCounts = (context.ranks ?? [2, 4]).filter((r): r is 2 | 4 => r > 1)
    if (rankCounts.length === 0) {
      throw new OptionError('OPTION_INVALID', { what: 'one rank exchanges nothing', expected: '2 or 4', actual: '1', remedy: 'Leave ranks out.' })
    }
    const groups = new Map(rankCounts.map((ranks) => [ranks, new Group(ranks, module)]))
    const repeats = context.quick ? 50 : 400
    const sizes = context.quick ? SIZES.slice(0, 2) : SIZES
    const cells = rankCounts.flatMap((ranks) =>
      LOADS.flatMap((load) =>
        OPERATIONS.flatMap((operation) =>
          (operation === 'barrier' ? [0] : sizes).map(
            (bytes): Cell => ({
              ranks,
              load,
              operation,
              values: bytes / 4,
              repeats,
              working: load === 'ranks at work',
              us: [],
              aloneUs: [],
            }),
          ),
        ),
      ),
    )
    const { read: copy } = await machineRates(1)
    try {
      await interleave(context, cells, async (cell, warmUp) => {
        const other = cell.load === 'a core busy' ? spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }) : undefined
        if (other) await once(other, 'spawn')
        const times = await groups.get(cell.ranks)?.time(cell)
        other?.kill('SIGKILL')
        if (other) await once(other, 'exit')
        if (warmUp || !times) return
        cell.us.push(times.us)
        cell.aloneUs.push(times.aloneUs)
      })
    } finally {
      for (const group of groups.values()) await group.close()
    }
    const rows = cells
      .filter((cell) => cell.us.length > 0)
      .map((cell): Row & { readonly us: Sample } => ({
        operation: cell.operation,
        ranks: cell.ranks,
        bytes: cell.values * 4,
        load: cell.load,
        us: sampleOf(cell.us) as Sample,
        // A noisy round can time the work alone longer than the work with its collective.
        floor: Math.min((cell.values * 4) / copy / 1000 + median(cell.aloneUs), ...cell.us),
      }))
    const atWork = (ranks: number) => {
      const row = rows.find((r) => r.operation === 'all-gather' && r.ranks === ranks && r.bytes === SIZES[0] && r.load === 'ranks at work')
      return row && (row.us.median - (row.floor as number)).toFixed(0)
    }
    const find = (operation: string, ranks: number, bytes: number, load: string) =>
      rows.find((r) => r.operation === operation && r.ranks === ranks && r.bytes === bytes && r.load === load)?.us.median.toFixed(1)
    return {
      floor: `the vector read once at ${copy.toFixed(1)} GB/s (one thread), and what ranks at work compute, timed without the collective`,
      method: `The ranks' own Collectives in worker threads over one WebAssembly memory, ${repeats} in a row, as rank 0 sees them; with ranks at work each computes some 200 us before each, which the time has in it. Ranks spin up to ${SPINS} times where the machine has a core for each (it has ${availableParallelism()}), else they park at once.`,
      columns: [
        { key: 'operation', label: 'collective' },
        { key: 'ranks', label: 'ranks' },
        { key: 'bytes', label: 'bytes' },
        { key: 'load', label: 'machine' },
        { key: 'us', label: 'time', unit: 'us' },
        { key: 'floor', label: 'floor', unit: 'us' },
      ],
      rows,
      pictures: [
        {
          name: '',
          title: 'Collectives over shared memory',
          kind: 'lines',
          x: { title: 'bytes of the vector', log: true, ticks: sizes },
          y: { title: 'microseconds', log: true },
          points: rows
            .filter((r) => (r.bytes as number) > 0)
            .map(({ operation, ranks, bytes, load, us }) => ({
              x: bytes as number,
              ...plotted(us),
              series: operation as string,
              facet: `${ranks} ranks, ${load}`,
            })),
        },
      ],
      answer: [
        ...(find('barrier', 2, 0, 'quiet')
          ? [
              `A barrier of 2 ranks takes ${find('barrier', 2, 0, 'quiet')} us on a quiet machine and ${find('barrier', 2, 0, 'a core busy')} us with a core busy; an all-reduce of ${SIZES[0]} bytes ${find('all-reduce', 2, 4096, 'quiet')} and ${find('all-reduce', 2, 4096, 'a core busy')} us.`,
            ]
          : []),
        ...(find('barrier', 4, 0, 'quiet') && availableParallelism() < 4
          ? [`Four ranks share ${availableParallelism()} cores here: their barrier is a change of threads, ${find('barrier', 4, 0, 'quiet')} us.`]
          : []),
        ...(atWork(2) !== undefined && atWork(4) !== undefined
          ? [
              `Between ranks that compute, an all-gather of ${SIZES[0]} bytes adds ${atWork(2)} us to their work at 2 ranks and ${atWork(4)} us at 4: what they wait for each other is in it.`,
            ]
          : []),
      ],
    }
  },
}

/** Threads in the place of ranks. */
class Group {
  readonly #workers: readonly Worker[]

  constructor(ranks: 2 | 4, module: WasmModule) {
    const control = new SharedArrayBuffer(CONTROL_BYTES)
    const exchange = createMemory('wasm', 10 * (4 << 20))
    const spins = ranks <= availableParallelism() ? SPINS : 0
    this.#workers = Array.from(
      { length: ranks },
      (_, rank) =>
        new Worker(new URL('./collectives-worker.js', import.meta.url), {
          workerData: { module, exchange, control, rank, ranks, spins } satisfies CollectivesTask,
        }),
    )
  }

  /** Averages of a run, measured by rank 0. */
  async time({ operation, values, repeats, working }: CollectivesRun): Promise<CollectivesTimes | undefined> {
    const done = this.#workers.map((worker) => once(worker, 'message') as Promise<CollectivesTimes[]>)
    for (const worker of this.#workers) worker.postMessage({ operation, values, repeats, working } satisfies CollectivesRun)
    const [first] = await Promise.all(done)
    return first?.[0]
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()))
  }
}
