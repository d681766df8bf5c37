// Rates of the machine: threads that read memory (in WebAssembly, and natively), and threads that multiply in registers.
// All threads start together; a rate is all their work over the time of the slowest.
//
// V8 runs a WebAssembly function in its baseline compiler's code until the optimized code is ready, and never changes over within a
// call. On an Intel Xeon under Node 20 the first call of `multiply` has 10 GFLOP/s and later ones 43. So every kind of run is repeated
// before it counts, as kernels run many times before a benchmark times them.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { bufferOf, createMemory } from '../kernels/open-backend.js'
import { bestSimdLevel } from '../kernels/wasm/simd-level.js'
import { type WasmMemory, WebAssembly } from '../kernels/wasm/webassembly.js'

export type ProbeKind = 'wasm read' | 'native read' | 'multiply'

/** Floating-point operations of a round of `multiply` (12 multiply-adds of 4 lanes), and rounds of a run. */
const MULTIPLY_FLOPS = 96
const MULTIPLY_ROUNDS = 1e7
/** Runs of a kind whose times are dropped: the thread starts, its pages are touched, and optimized code becomes ready. */
const WARM_UPS = 3
/** Runs of which machineRates takes the fastest: a floor is what the machine can do, not what it did in a busy moment. */
const RUNS = 5

export class Probe {
  readonly #workers: readonly Worker[]
  readonly #bytes: number
  readonly #warm = new Set<ProbeKind>()

  /** bytes: read by all threads together, in each run. */
  constructor(threads: number, bytes: number) {
    this.#bytes = Math.ceil(bytes / threads / 64) * 64 * threads
    this.#workers = Array.from({ length: threads }, () => new Worker(new URL(import.meta.url), { workerData: { probeBytes: this.#bytes / threads } }))
    // Idle threads must not keep the process alive, in a benchmark that fails either.
    for (const worker of this.#workers) worker.unref()
  }

  /** GB/s, or GFLOP/s, of all threads together in one run. The first run of a kind comes after runs that are not counted. */
  async rate(kind: ProbeKind): Promise<number> {
    if (!this.#warm.has(kind)) for (let i = 0; i < WARM_UPS; i++) await this.#run(kind)
    this.#warm.add(kind)
    return this.#run(kind)
  }

  async #run(kind: ProbeKind): Promise<number> {
    for (const worker of this.#workers) worker.ref()
    const start = performance.now()
    for (const worker of this.#workers) worker.postMessage(kind)
    await Promise.all(this.#workers.map((worker) => once(worker, 'message')))
    const ms = performance.now() - start
    for (const worker of this.#workers) worker.unref()
    return (kind === 'multiply' ? MULTIPLY_FLOPS * MULTIPLY_ROUNDS * this.#workers.length : this.#bytes) / ms / 1e6
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()))
  }
}

/** The fastest of several runs by `threads` threads together. read: GB/s over `bytes` bytes; multiply: GFLOP/s. */
export async function machineRates(threads: number, bytes = 400e6): Promise<{ read: number; multiply: number }> {
  const probe = new Probe(threads, bytes)
  const fastest = async (kind: ProbeKind) => {
    let rate = 0
    for (let i = 0; i < RUNS; i++) rate = Math.max(rate, await probe.rate(kind))
    return rate
  }
  const rates = { read: await fastest('wasm read'), multiply: await fastest('multiply') }
  await probe.close()
  return rates
}

const task = workerData as { probeBytes?: number } | null
if (!isMainThread && task?.probeBytes) serve(task.probeBytes)

function serve(bytes: number): void {
  const level = bestSimdLevel(new URL('../kernels/wasm/', import.meta.url))
  const code = readFileSync(new URL(level === 'relaxed' ? './probe-relaxed.wasm' : './probe.wasm', import.meta.url))
  const memory = createMemory('wasm', bytes + 65536) as WasmMemory
  const data = Buffer.from(bufferOf(memory), 64, bytes)
  // No zeros, and not the byte that the native search looks for.
  data.fill(0x3c)
  const { read, multiply } = new WebAssembly.Instance(new WebAssembly.Module(code), { env: { memory, abort: () => {} } }).exports as {
    read: (p: number, bytes: number) => number
    multiply: (n: number) => number
  }
  const run = {
    'wasm read': () => read(64, bytes),
    // memchr of the C library: the widest vectors that the processor has.
    'native read': () => data.indexOf(1),
    multiply: () => multiply(MULTIPLY_ROUNDS),
  }
  parentPort?.on('message', (kind: ProbeKind) => parentPort?.postMessage(run[kind]()))
}
