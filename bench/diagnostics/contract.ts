// The cost of the determinism contract, in one thread: its fixed orders of sums beside free ones. A product with one accumulator for
// each row and ascending columns; a product in four shards whose partials are added in order; attention rescaled at every page.
// Usage: node dist/bench/diagnostics/contract.js [rounds]
import { readFileSync } from 'node:fs'
import { matmulScratchBytes } from '../../kernels/backend.js'
import { cacheRow, queryScalars } from '../../kernels/cache-formats.js'
import { bufferOf, createMemory, openBackend, prepareBackend } from '../../kernels/open-backend.js'
import { packedBytes } from '../../kernels/packing.js'
import { bestSimdLevel } from '../../kernels/wasm/simd-level.js'
import { type WasmMemory, type WasmModule, WebAssembly } from '../../kernels/wasm/webassembly.js'
import { inTurn, machine, median, spread, table } from '../measure.js'

const rounds = Number(process.argv[2] ?? 11)
const level = bestSimdLevel(new URL('../../kernels/wasm/', import.meta.url))
const memory = createMemory('wasm', 700e6) as WasmMemory
const kernels = openBackend(prepareBackend('wasm', level) as WasmModule, memory)
const code = readFileSync(new URL(level === 'relaxed' ? '../probe-relaxed.wasm' : '../probe.wasm', import.meta.url))
const { matvecFree } = new WebAssembly.Instance(new WebAssembly.Module(code), { env: { memory, abort: () => {} } }).exports as {
  matvecFree: (w: number, rows: number, k: number, x: number, y: number) => void
}
// Values of one size, neither zeros nor denormals.
new Uint16Array(bufferOf(memory)).fill(0x3c01)

const timed = (run: () => void) => () => {
  const start = performance.now()
  run()
  return performance.now() - start
}

// A matrix of the 2.9 B model's down projection, more of them than the last-level cache holds.
const [ROWS, COLS, COUNT] = [2880, 7680, 9]
const WEIGHTS = 8 << 20
const [X, Y, SCRATCH] = [64, 1 << 20, 2 << 20]
const bytes = packedBytes(ROWS, COLS, 'bf16')
const matrix = (ptr: number, cols: number) => {
  const size = packedBytes(ROWS, cols, 'bf16')
  return { ptr, rows: ROWS, cols, format: 'bf16', batch: 1, batchBytes: size, inStride: 0, outStride: 0, bytes: size } as const
}
const each = (run: (ptr: number) => void) => {
  for (let i = 0; i < COUNT; i++) run(WEIGHTS + i * bytes)
}
const x = kernels.rows(X, COLS)
const y = kernels.rows(Y, ROWS)
const partials = Array.from({ length: 4 }, (_, s) => kernels.rows(Y + (s + 1) * 4 * 4096, ROWS))
if (matmulScratchBytes(1, COLS) > WEIGHTS - SCRATCH) throw new RangeError('no room for scratch')

// Attention of an MLRA-4 rank in the authors' shapes.
const [HEADS, WIDTH, TOKENS] = [64, 128, 65536]
const row = cacheRow(false, 'f32', { width: WIDTH, paddedWidth: WIDTH, keyWidth: WIDTH, valueOffset: 0 })
const attention = (page: number) => {
  const at = 4 << 20
  const scores = at + queryScalars(WIDTH, HEADS) * 4
  const z = kernels.rows(Y, HEADS * WIDTH)
  const state = SCRATCH
  const base = {
    values: 0,
    heads: HEADS,
    lanes: HEADS,
    row,
    valueOffset: 0,
    valueWidth: WIDTH,
    sharedLanes: 0,
    rowHeads: HEADS,
    sharedRowHeads: HEADS,
    sharedOffset: 0,
    scale: 0.05,
  }
  const unit = { ...base, query: at, scores, state }
  kernels.beginAttention(unit, z, 0)
  for (let t = 0; t < TOKENS; t += page) kernels.attendPage(unit, WEIGHTS + t * row.bytes, 0, z, 0, page)
  kernels.finishAttention(unit, z, 0)
}

const times = await inTurn(rounds, {
  fixed: timed(() => each((ptr) => kernels.matmul(matrix(ptr, COLS), x, y, 1, SCRATCH))),
  free: timed(() => each((ptr) => matvecFree(ptr, ROWS, COLS, X, Y))),
  shards: timed(() =>
    each((ptr) => {
      for (let s = 0; s < 4; s++)
        kernels.matmul(matrix(ptr + (s * bytes) / 4, COLS / 4), x.columns((s * COLS) / 4, COLS / 4), partials[s] as typeof y, 1, SCRATCH)
      kernels.sumPartials(y, partials, ROWS, 1, 1)
    }),
  ),
  page64: timed(() => attention(64)),
  page512: timed(() => attention(512)),
})
console.log(`${machine()}, kernels ${level}; one thread, ${rounds} rounds, median (p10..p90)`)
const line = (what: string, fixed: number[], free: number[]) => [what, spread(fixed, 2), spread(free, 2), (median(fixed) / median(free)).toFixed(3)]
console.log(
  table([
    ['', 'fixed order, ms', 'free, ms', 'fixed over free'],
    line(`${COUNT} products [${ROWS}, ${COLS}] bf16: ascending columns | lanes and accumulators within a row`, times.fixed, times.free),
    line('the same in four shards, partials added in order | whole', times.shards, times.fixed),
    line(`attention, ${TOKENS} tokens, 64 heads of 128: rescaled every 64 tokens | every 512`, times.page64, times.page512),
  ]),
)
