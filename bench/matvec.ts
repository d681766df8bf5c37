// How fast does the matrix kernel stream packed weights, and how fast does it compute for several tokens?
// Each thread has a matrix of its own, larger than the last-level cache. Compare with the machine's memory bandwidth.
// Usage: node dist/bench/matvec.js [threads]
import { availableParallelism, cpus } from 'node:os'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { matmulScratchBytes } from '../kernels/backend.js'
import { bufferOf, createMemory, openBackend, prepareBackend } from '../kernels/open-backend.js'
import { packedBytes } from '../kernels/packing.js'
import { bestSimdLevel } from '../kernels/wasm/simd-level.js'
import type { WasmModule } from '../kernels/wasm/webassembly.js'
import type { WeightFormat } from '../kernels/weight-format.js'

interface Task {
  readonly module: WasmModule
  readonly format: WeightFormat
  readonly rows: number
  readonly cols: number
  readonly tokens: number
  readonly repeats: number
}

if (isMainThread) await main()
else measure(workerData as Task)

async function main(): Promise<void> {
  const most = Number(process.argv[2] ?? Math.min(2, availableParallelism()))
  console.log(`${cpus()[0]?.model}, ${availableParallelism()} cores, Node ${process.version}`)
  console.log('floor: bytes / memory bandwidth; here each thread streams its own 200 MB matrix')
  console.log('threads  format  tokens  ms (median)  p10..p90      GB/s of weights  GFLOP/s')
  const simd = bestSimdLevel(new URL('../kernels/wasm/', import.meta.url))
  console.log(`kernels: ${simd}`)
  const module = prepareBackend('wasm', simd) as WasmModule
  for (let threads = 1; threads <= most; threads++) {
    for (const [format, tokens] of [
      ['bf16', 1],
      ['f32', 1],
      ['bf16', 4],
      ['bf16', 64],
    ] as const) {
      const cols = 3072
      const rows = Math.floor(200e6 / cols / (format === 'bf16' ? 2 : 4) / 32) * 32
      const task: Task = { module, format, rows, cols, tokens, repeats: tokens > 4 ? 5 : 15 }
      const all = await Promise.all(Array.from({ length: threads }, () => runThread(task)))
      const times = all.flat().sort((a, b) => a - b)
      const at = (q: number) => times[Math.floor(q * (times.length - 1))] as number
      const bytes = packedBytes(rows, cols, format) * threads
      const gflop = (2 * rows * cols * tokens * threads) / at(0.5) / 1e6
      const cells = [String(threads).padEnd(7), format.padEnd(6), String(tokens).padEnd(6), at(0.5).toFixed(2).padEnd(11)]
      console.log(
        [...cells, `${at(0.1).toFixed(2)}..${at(0.9).toFixed(2)}`.padEnd(12), (bytes / at(0.5) / 1e6).toFixed(1).padEnd(15), gflop.toFixed(1)].join(
          '  ',
        ),
      )
    }
  }
}

function runThread(task: Task): Promise<number[]> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: task })
    worker.once('message', resolve)
    worker.once('error', reject)
  })
}

function measure({ module, format, rows, cols, tokens, repeats }: Task): void {
  const bytes = packedBytes(rows, cols, format)
  const scratch = matmulScratchBytes(tokens, cols)
  const memory = createMemory('wasm', 64 + bytes + scratch + tokens * (cols + rows + 64) * 4 + 4 * rows * 4)
  // Small exponents: no denormals, no overflow, no zeros.
  new Uint16Array(bufferOf(memory)).fill(0x3c01)
  const kernels = openBackend(module, memory)
  const w = { ptr: 64, rows, cols, format, batch: 1, batchBytes: bytes, inStride: 0, outStride: 0, bytes }
  const x = kernels.rows(64 + bytes, cols)
  const y = kernels.rows(64 + bytes + tokens * cols * 4, rows)
  const at = 64 + bytes + tokens * cols * 4 + Math.ceil(tokens / 4) * 4 * rows * 4
  const times: number[] = []
  for (let i = 0; i < repeats + 3; i++) {
    const start = performance.now()
    kernels.matmul(w, x, y, tokens, at)
    if (i >= 3) times.push(performance.now() - start)
  }
  parentPort?.postMessage(times)
}
