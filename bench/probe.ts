// What the machine gives: threads that read memory (in WebAssembly, and natively), and that multiply in registers.
// All threads run at the same time; a rate is of the slowest one's time.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { bufferOf, createMemory } from '../kernels/open-backend.js'
import { bestSimdLevel } from '../kernels/wasm/simd-level.js'
import { type WasmMemory, WebAssembly } from '../kernels/wasm/webassembly.js'

export type ProbeKind = 'wasm read' | 'native read' | 'multiply'

/** Multiply-adds of 4 lanes a round, and rounds. */
const MULTIPLY_FLOPS = 96
const MULTIPLY_ROUNDS = 1e7

export class Probe {
  readonly #workers: readonly Worker[]
  readonly #bytes: number

  /** bytes: read by all threads together. */
  constructor(threads: number, bytes: number) {
    this.#bytes = Math.ceil(bytes / threads / 64) * 64 * threads
    this.#workers = Array.from({ length: threads }, () => new Worker(new URL(import.meta.url), { workerData: { probeBytes: this.#bytes / threads } }))
    // Idle, they hold up nobody's end: not that of a benchmark that fails either.
    for (const worker of this.#workers) worker.unref()
  }

  /** GB/s, or GFLOP/s, of all threads together. */
  async rate(kind: ProbeKind): Promise<number> {
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

/** Rates of `threads` threads together, which have been woken first. bytes: that they read. */
export async function machineRates(threads: number, bytes = 400e6): Promise<{ read: number; multiply: number }> {
  const probe = new Probe(threads, bytes)
  await probe.rate('wasm read')
  const rates = { read: await probe.rate('wasm read'), multiply: await probe.rate('multiply') }
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
  // Neither zeros nor the byte that the native search looks for.
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
