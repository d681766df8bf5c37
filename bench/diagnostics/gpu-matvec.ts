// Share of the card's bandwidth at which packed weights stream through the matrix-vector kernel. Matrices of the 2.9 B model, one
// after another as in a step: a pass has as many of them, from different places of 1 GiB, as hold 400 MB, at most 128.
// Usage: node dist/bench/diagnostics/gpu-matvec.js [runs] [adapter]
/// <reference types="@webgpu/types" />
import { packedMatmul, TILE_WORDS, tileBytes, tileRows } from '../../kernels/gpu/wgsl/packed-matmul.js'
import { fillRandom, gpuLine, openGpu, readOnly, timePasses } from '../gpu-measure.js'
import { median, spread, table } from '../measure.js'

const runs = Number(process.argv[2] ?? 20)
const BYTES = 2 ** 30
/** Rows and columns: one matrix, or one for each of several heads or shards. */
const MATRICES = [
  { name: 'gate and up', rows: 19_760, cols: 3072, count: 1 },
  { name: 'down, 4 shards', rows: 3072, cols: 2470, count: 4 },
  { name: 'inputs', rows: 1600, cols: 3072, count: 1 },
  { name: 'query b', rows: 4608, cols: 1024, count: 1 },
  { name: 'output, 4 shards', rows: 3072, cols: 768, count: 4 },
  { name: 'key up, 96 heads', rows: 128, cols: 128, count: 96 },
  { name: 'logits', rows: 50_304, cols: 3072, count: 1 },
] as const

const gpu = await openGpu(process.argv[3])
const { program, context } = gpu
const weights = program.buffer(BYTES)
await fillRandom(gpu, weights, 'bf16')
const other = program.buffer(BYTES)
const x = program.upload(Float32Array.from({ length: 3072 * 4 }, (_, i) => Math.sin(i)))
const y = program.buffer(2 ** 20)
const dims = program.uniform(Uint32Array.of(3072, 0, 0, 0))

console.log(`${gpuLine(gpu)}; ${runs} runs, median (p10..p90)`)
const copy = `@group(0) @binding(0) var<storage, read> x : array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out : array<vec4<u32>>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id : vec3<u32>, @builtin(num_workgroups) n : vec3<u32>) {
  for (var i = id.x; i < ${BYTES / 16}u; i += n.x * 256u) { out[i] = x[i]; }
}`
const copying = [await program.wgsl('copy', copy, [weights, other], () => [132 * 16, 1, 1])]
const reading = [await program.wgsl('read', readOnly(BYTES / 16), [weights, y, program.uniform(new Uint32Array(4))], () => [132 * 8, 1, 1])]
const rates = (us: readonly number[], bytes: number) => us.map((t) => bytes / t / 1000)
const copyRates = rates(await timePasses(gpu, [copying], 10), 2 * BYTES)
const readRates = rates(await timePasses(gpu, [reading], 10), BYTES)
console.log(`floor: copying 1 GiB, read and written bytes ${spread(copyRates, 0)} GB/s; reading it ${spread(readRates, 0)} GB/s`)

const rowsOf = [['matrix, bf16', 'MB', 'us each', 'GB/s read', 'share of copy', 'share of read']]
for (const { name, rows, cols, count } of MATRICES) {
  const height = tileRows('bf16')
  const bytes = tileBytes('bf16', cols)
  const tiles = Math.ceil(rows / height) * count
  const places = Math.max(1, Math.min(128, Math.floor(BYTES / (tiles * bytes)), Math.ceil(4e8 / (tiles * bytes))))
  const pass = await Promise.all(
    Array.from({ length: places }, async (_, place) => {
      const words = Uint32Array.from({ length: tiles * TILE_WORDS }, (_, i) => {
        const tile = Math.floor(i / TILE_WORDS)
        return [((place * tiles + tile) * bytes) / 16, 0, (tile * height) % 2 ** 17, cols, height][i % TILE_WORDS] ?? 0
      })
      const buffers = [dims, program.count('step'), weights, program.upload(words), x, y]
      return program.wgsl(name, packedMatmul('bf16'), buffers, () => [tiles, 1, 1])
    }),
  )
  const us = (await timePasses(gpu, [pass], runs)).map((t) => t / places)
  const rate = rates(us, tiles * bytes)
  const share = (of: readonly number[]) => `${((median(rate) / median(of)) * 100).toFixed(0)} %`
  rowsOf.push([name, ((tiles * bytes) / 1e6).toFixed(1), spread(us), spread(rate, 0), share(copyRates), share(readRates)])
}
console.log(table(rowsOf))
await context.destroy()
