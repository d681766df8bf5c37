// Are products on tensor cores right, do all kernels give a row the same bits, and how fast is each? Matrices of the 2.9 B model; a
// pass has as many of each, from different places of 1 GiB, as hold 400 MB, or 64. A variant that fails a check is not timed.
// Usage: node dist/bench/diagnostics/gpu-tensor-matmul.js [runs] [adapter] [rows, with commas] [part of a matrix's name]
/// <reference types="@webgpu/types" />
import type { Dispatch } from '../../kernels/gpu/program.js'
import { MATMUL_ROWS, packedMatmul, TILE_WORDS, tileBytes, tileRows } from '../../kernels/gpu/wgsl/packed-matmul.js'
import { type ProductTiling, tensorProduct } from '../../kernels/gpu/wgsl/tensor-matmul.js'
import { blockTable, panels, stepsOf, type TensorRows, weightVectors } from '../../kernels/gpu/wgsl/tensor-matmul-shape.js'
import { packRows, plainRows, regionsOfGroup, regionTable } from '../../kernels/gpu/wgsl/tensor-rows.js'
import { fillRandom, gpuLine, ONE_ROW, openGpu, randomF16, readBack, readOnly } from '../gpu-measure.js'
import { median, table } from '../measure.js'

const runs = Number(process.argv[2] ?? 7)
const BYTES = 2 ** 30
const CAPACITY = 2048
const MATRICES = [
  { name: 'gate and up', rows: 19_760, cols: 3072, count: 1 },
  { name: 'down, 4 shards', rows: 3072, cols: 2470, count: 4 },
  { name: 'inputs', rows: 1600, cols: 3072, count: 1 },
  { name: 'query b', rows: 4608, cols: 1024, count: 1 },
  { name: 'output, 4 shards', rows: 3072, cols: 768, count: 4 },
  { name: 'key up, 96 heads', rows: 128, cols: 128, count: 96 },
  { name: 'logits', rows: 50_304, cols: 3072, count: 1 },
] as const

interface Variant {
  readonly tiling: ProductTiling
  readonly pair: boolean
}

const tiled = (
  rows: number,
  columns: number,
  down: number,
  across: number,
  helpers: number,
  steps: number,
  buffers: 1 | 2 = 1,
  pair = false,
): Variant => ({
  tiling: { rows, columns, down, across, helpers, steps, buffers },
  pair,
})
const FIRST = tiled(16, 64, 1, 4, 0, 4)
/** By rows: variants for every matrix; and those for the first matrix alone. Bits are compared with FIRST's. */
const SWEEP: readonly (readonly [rows: number, all: readonly Variant[], first: readonly Variant[]])[] = [
  [
    1,
    [FIRST, tiled(16, 32, 1, 2, 6, 8), tiled(16, 16, 1, 1, 7, 32), tiled(16, 16, 1, 1, 3, 8), tiled(16, 64, 1, 4, 4, 8), tiled(16, 80, 1, 5, 11, 8)],
    [tiled(16, 160, 1, 10, 6, 8)],
  ],
  [
    16,
    [FIRST, tiled(16, 32, 1, 2, 6, 8), tiled(16, 16, 1, 1, 7, 32), tiled(16, 64, 1, 4, 4, 8)],
    [tiled(16, 160, 1, 10, 6, 8), tiled(16, 64, 1, 4, 0, 8, 1, true)],
  ],
  [
    64,
    [
      tiled(64, 64, 2, 2, 4, 4),
      tiled(64, 16, 4, 1, 4, 8),
      tiled(64, 48, 2, 3, 2, 8),
      tiled(64, 64, 2, 4, 0, 4),
      tiled(64, 96, 2, 3, 2, 4),
      tiled(64, 160, 2, 5, 6, 4),
    ],
    [tiled(64, 80, 2, 5, 6, 4), tiled(64, 160, 2, 5, 10, 4)],
  ],
  [2048, [tiled(128, 128, 2, 4, 0, 2), tiled(128, 128, 4, 2, 0, 2)], [tiled(128, 128, 2, 4, 0, 2, 1, true)]],
]

const gpu = await openGpu(process.argv[3] || undefined)
const wantedRows = process.argv[4]?.split(',').map(Number)
const wantedName = process.argv[5] ?? ''
const { program, context } = gpu
const { queue } = context.device
/** Rows that products are made for. */
let rowsNow = 1
const submit = async (dispatches: readonly Dispatch[]) => {
  const encoder = context.device.createCommandEncoder()
  program.encode(encoder, dispatches, { ...ONE_ROW, rows: rowsNow })
  queue.submit([encoder.finish()])
  await context.settle(queue.onSubmittedWorkDone())
}
/** Milliseconds of passes, the first warms up. */
const time = async (passes: readonly (readonly Dispatch[])[], warmMs: number) => {
  const once = async (timed: boolean) => {
    const encoder = context.device.createCommandEncoder()
    for (let i = 0; i < (timed ? runs : 1); i++) {
      const pass = encoder.beginComputePass(timed ? gpu.timer.pass('run') : {})
      for (const { pipeline, bindGroup, groups } of passes[i % passes.length] as readonly Dispatch[]) {
        pass.setPipeline(pipeline)
        pass.setBindGroup(0, bindGroup)
        pass.dispatchWorkgroups(...groups(ONE_ROW))
      }
      pass.end()
    }
    if (timed) gpu.timer.resolve(encoder)
    queue.submit([encoder.finish()])
    await context.settle(queue.onSubmittedWorkDone())
  }
  const until = performance.now() + warmMs
  do await once(false)
  while (performance.now() < until)
  await once(true)
  return median((await gpu.timer.take()).map(({ start, end }) => end - start))
}

const slack = 1 << 20
const weights = program.buffer(BYTES + slack)
await fillRandom(gpu, weights, 'f16')
const scale = (i: number) => 2 ** -((i * 7) % 5)
/** Of every 8 vectors of weights. */
const wScales = program.upload(Float32Array.from({ length: (BYTES + slack) / 128 }, (_, i) => scale(i)))
const xWidth = 12_288
const xValues = Float32Array.from({ length: CAPACITY * xWidth }, (_, i) => Math.sin(i * 0.37) * 2 ** ((i * 13) % 5))
const x = { values: xValues, buffer: program.upload(xValues) }
const y = program.buffer(CAPACITY * 50_304 * 4)
const reference = program.buffer(64 * 50_304 * 4)
const wrong = program.buffer(16)
const different = `@group(0) @binding(0) var<storage, read> a : array<u32>; @group(0) @binding(1) var<storage, read> b : array<u32>;
@group(0) @binding(2) var<storage, read_write> wrong : array<atomic<u32>>; @group(0) @binding(3) var<uniform> n : vec4<u32>;
@compute @workgroup_size(256) fn main(@builtin(global_invocation_id) id : vec3<u32>, @builtin(num_workgroups) g : vec3<u32>) {
  for (var i = id.x; i < n.x; i += g.x * 256u) { if (a[i] != b[i]) { atomicAdd(&wrong[0], 1u); } } }`

console.log(`${gpuLine(gpu)}; ${runs} runs, median`)
const reading = [await program.wgsl('read', readOnly(BYTES / 16), [weights, y, program.uniform(new Uint32Array(4))], () => [132 * 8, 1, 1])]
const readRate = BYTES / (await time([reading], 400)) / 1e6
console.log(`reading 1 GiB: ${readRate.toFixed(0)} GB/s`)

const timings: (() => Promise<void>)[] = []
/** Times passes of `places` products each, when all are made. */
function later(
  labels: readonly string[],
  passes: readonly (readonly Dispatch[])[],
  places: number,
  bytes: number,
  flops: number,
  rest: readonly string[],
): void {
  const rows = rowsNow
  timings.push(async () => {
    rowsNow = rows
    await submit([])
    const us = ((await time(passes, 25)) / places) * 1000
    out.push([...labels, us.toFixed(1), (bytes / us / 1000).toFixed(0), (flops / us / 1e6).toFixed(1), ...rest])
  })
}
const out: string[][] = [['matrix', 'rows', 'kernel', 'us each', 'GB/s of weights', 'TFLOP/s', 'error', 'bits']]
const name = ({ tiling, pair }: Variant) => `${Object.values(tiling).join(' ')}${pair ? ' pair' : ''}`

for (const [index, matrix] of MATRICES.entries()) {
  if (!matrix.name.includes(wantedName)) continue
  const { cols, count } = matrix
  const steps = stepsOf(cols)
  const each = weightVectors(matrix.rows, steps)
  const bytes = each * count * 16
  const places = Math.max(1, Math.min(64, Math.floor(BYTES / bytes), Math.ceil(4e8 / bytes)))
  const packed = { false: await pack(matrix, false, steps), true: index === 0 ? await pack(matrix, true, steps) : undefined }
  for (const [rows, all, first] of SWEEP) {
    if (wantedRows && !wantedRows.includes(rows)) continue
    if (matrix.name === 'logits' && (rows === 16 || rows > 64)) continue
    rowsNow = rows
    // By order of sums: bits are compared among variants of the same.
    const seen = new Set<string>()
    const variants = [...all, ...(index === 0 ? first : [])]
    for (const variant of variants) {
      const activations = variant.pair ? packed.true : packed.false
      if (!activations) continue
      try {
        const make = async (place: number) => product(variant, matrix, place * each * count, activations)
        const one = await make(0)
        await submit([one])
        const error = await check(rows, matrix, activations, variant.pair)
        const key = `${index} ${variant.pair}`
        const values = rows * matrix.rows * count
        let bits = ''
        if (rows <= 64) {
          const compared = seen.has(key) ? await differences(values) : undefined
          bits = compared === undefined ? 'reference' : compared === 0 ? 'equal' : `${compared} of ${values} differ`
          if (!seen.has(key)) await copy(values)
          seen.add(key)
        } else bits = await againstFew(variant, matrix, activations, rows)
        const passes = [await Promise.all(Array.from({ length: places }, (_, place) => make(place)))]
        later([matrix.name, String(rows), name(variant)], passes, places, bytes, 2 * rows * matrix.rows * cols * count, [
          error.toExponential(1),
          bits,
        ])
      } catch (cause) {
        out.push([matrix.name, String(rows), name(variant), cause instanceof Error ? cause.message.slice(0, 120) : String(cause), '', '', '', ''])
      }
    }
    if (rows <= 64) await today(matrix, rows)
  }
}
// An idle card runs at a fraction of its clock, so everything was compiled before, and what follows leaves no gap.
await time([reading], 600)
for (const run of timings) await run()
console.log(table(out))
await context.destroy()

interface Packed {
  readonly tiles: GPUBuffer
  readonly scales: GPUBuffer
  readonly regions: readonly { from: number; to: number; scale: number; cols: number }[]
  readonly steps: number
}

/** Activations of a matrix, and the time that packing takes. */
async function pack({ cols, count }: (typeof MATRICES)[number], pair: boolean, steps: number): Promise<Packed> {
  const P = pair ? 2 : 1
  const vectors = panels(CAPACITY) * steps * P * 32
  const regions = Array.from({ length: count }, (_, i) => ({ from: i * cols, to: i * vectors, scale: i * CAPACITY, cols }))
  const tiles = program.buffer(count * vectors * 16)
  const scales = program.buffer(count * CAPACITY * 4)
  const groups = Math.ceil(regions.length / regionsOfGroup(steps))
  const code = packRows({ regions: regions.length, steps, pair, epsilon: undefined, source: plainRows(xWidth) })
  const buffers = [program.upload(regionTable(regions)), tiles, scales, undefined, x.buffer]
  await submit([await program.wgsl('pack', code, buffers, () => [groups, CAPACITY, 1])])
  for (const n of [1, 64, 2048]) {
    const one = await program.wgsl('pack', code, buffers, () => [groups, n, 1])
    later([`pack ${count} x ${cols}`, String(n), pair ? 'pair' : 'single'], [Array(20).fill(one) as Dispatch[]], 20, n * count * cols * 4, 0, [
      '',
      '',
    ])
  }
  return { tiles, scales, regions, steps }
}

async function product(
  { tiling, pair }: Variant,
  { rows, count }: (typeof MATRICES)[number],
  firstVector: number,
  activations: Packed,
): Promise<Dispatch> {
  const { steps } = activations
  const each = weightVectors(rows, steps)
  const matrices: TensorRows[] = activations.regions.map(({ to, scale }, i) => ({
    w: firstVector + i * each,
    x: to,
    xScale: scale,
    y: i * rows,
    rows,
  }))
  const blocks = blockTable(matrices, tiling.columns, steps)
  const dims = program.uniform(Uint32Array.of(0, rows * count, 0, 0))
  const buffers = [dims, program.count('step'), weights, program.upload(blocks), activations.tiles, activations.scales, wScales, y]
  const n = rowsNow
  return program.wgsl('product', tensorProduct(steps, tiling, pair), buffers, () => [Math.ceil(n / tiling.rows), blocks.length / 8, 1])
}

/** Greatest error of some outputs, over the sum of the magnitudes of the products. */
async function check(rows: number, { rows: height, cols, count }: (typeof MATRICES)[number], { steps }: Packed, pair: boolean): Promise<number> {
  const width = height * count
  const values = await readBack(gpu, y, Math.min(rows, 64) * width)
  let worst = 0
  for (let n = 0; n < 48; n++) {
    const row = n === 0 ? 0 : (n * 37) % Math.min(rows, 64)
    const column = n === 1 ? width - 1 : (n * 7919) % width
    const i = Math.floor(column / height)
    const r = column % height
    let sum = 0
    let size = 0
    for (let k = 0; k < cols; k++) {
      const tile = (Math.floor(r / 16) * steps + Math.floor(k / 16)) * 256 + (r % 16) * 16 + (k % 16)
      const w = randomF16(i * weightVectors(height, steps) * 8 + tile)
      const product = w * (x.values[row * xWidth + i * cols + k] as number)
      sum += product
      size += product * product
    }
    const s = scale((i * weightVectors(height, steps) + Math.floor(r / 16) * steps * 32) / 8 + (r % 16))
    const expected = sum * s
    worst = Math.max(worst, Math.abs((values[row * width + column] as number) - expected) / (Math.sqrt(size) * s))
  }
  if (!(worst < (pair ? 1e-4 : 2e-3))) throw new Error(`error ${worst}`)
  return worst
}

async function copy(values: number): Promise<void> {
  const encoder = context.device.createCommandEncoder()
  encoder.copyBufferToBuffer(y, 0, reference, 0, values * 4)
  queue.submit([encoder.finish()])
}

async function differences(values: number): Promise<number> {
  queue.writeBuffer(wrong, 0, new Uint32Array(4))
  await submit([
    await program.wgsl('different', different, [reference, y, wrong, program.uniform(Uint32Array.of(values, 0, 0, 0))], () => [1024, 1, 1]),
  ])
  return new Uint32Array((await readBack(gpu, wrong, 1)).buffer)[0] as number
}

/** The first 64 rows of many against a tiling for few. */
async function againstFew(variant: Variant, matrix: (typeof MATRICES)[number], activations: Packed, rows: number): Promise<string> {
  const values = 64 * matrix.rows * matrix.count
  await copy(values)
  rowsNow = 16
  const few = { ...FIRST, pair: variant.pair }
  await submit([await product(few, matrix, 0, activations)])
  const compared = await differences(16 * matrix.rows * matrix.count)
  rowsNow = rows
  return compared === 0 ? 'equal' : `${compared} differ`
}

/** The kernel that adapters without subgroup matrices take. */
async function today({ name, rows: height, cols, count }: (typeof MATRICES)[number], rows: number): Promise<void> {
  const tall = tileRows('bf16')
  const bytes = tileBytes('bf16', cols)
  const tiles = Math.ceil(height / tall) * count
  const places = Math.max(1, Math.min(64, Math.floor(BYTES / (tiles * bytes)), Math.ceil(4e8 / (tiles * bytes))))
  const dims = program.uniform(Uint32Array.of(cols, height * count, 0, 0))
  const pass = await Promise.all(
    Array.from({ length: places }, async (_, place) => {
      const words = Uint32Array.from({ length: tiles * TILE_WORDS }, (_, i) => {
        const tile = Math.floor(i / TILE_WORDS)
        return [((place * tiles + tile) * bytes) / 16, 0, tile * tall, cols, tall][i % TILE_WORDS] ?? 0
      })
      const buffers = [dims, program.count('step'), weights, program.upload(words), x.buffer, y]
      return program.wgsl(name, packedMatmul('bf16'), buffers, () => [tiles, Math.ceil(rows / MATMUL_ROWS), 1])
    }),
  )
  later([name, String(rows), 'packed-matmul'], [pass], places, tiles * bytes, 2 * rows * height * cols * count, ['', ''])
}
