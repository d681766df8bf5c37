// How fast is attention for rows of a prompt, by rows of a workgroup and tiling, and are a row's bits those that it has alone? MLRA-4 of
// 2.9 B parameters at one rank: 4 streams with 24 heads each. For one rank of the authors' shape: 1 5 '' 131072,524288,2097152 64 1
// Usage: node dist/bench/diagnostics/gpu-prompt-attention.js [rows] [runs] [adapter] [contexts] [heads] [streams]
/// <reference types="@webgpu/types" />
import type { Dispatch } from '../../kernels/gpu/program.js'
import { tensorAttention } from '../../kernels/gpu/wgsl/tensor-attention.js'
import { combineGroups, combineTensorParts, FEW_PARTS } from '../../kernels/gpu/wgsl/tensor-parts.js'
import {
  packedQueryWidth,
  planTensorAttention,
  SIDE,
  slotsOf,
  type TensorShape,
  type TensorTiling,
  workgroupsOfParts,
} from '../../kernels/gpu/wgsl/tensor-shape.js'
import { fillRandom, gpuLine, ONE_ROW, openGpu } from '../gpu-measure.js'
import { median, table } from '../measure.js'

const count = Number(process.argv[2] ?? 768)
const runs = Number(process.argv[3] ?? 5)
const PAGE = 64
const HEADS = Number(process.argv[6] ?? 24)
const STREAMS = Number(process.argv[7] ?? 4)
const LATENT = 128
const ROPE = 64
const PART_BYTES = 256 << 20
const widths = { keyWidth: LATENT, keyOffset: 0, valueOffset: 0, valueWidth: LATENT, rowWidth: LATENT, ropeDim: ROPE, ropeRowWidth: ROPE }
const LENGTHS = (process.argv[5] ?? '1000,4000,16000').split(',').map(Number)

const gpu = await openGpu(process.argv[4] || undefined)
const { program, context } = gpu
const planned = planTensorAttention(widths, HEADS, context.adapter.workgroupStorage)
if (!planned) throw new Error('the tensor-core kernel has no tiling for this shape')
const longest = Math.max(...LENGTHS)
const pages = Math.ceil(longest / PAGE)
const shape: TensorShape = {
  ...widths,
  groups: Array.from({ length: STREAMS }, (_, s) => ({ region: s * pages * PAGE * LATENT })),
  groupHeads: planned.groupHeads,
  rowHeads: HEADS,
  queryRows: count,
  slots: Array.from({ length: STREAMS * HEADS }, () => ({ query: 0, rope: 0 })),
  queryWidth: 0,
  ropeWidth: 0,
  ropeRegion: STREAMS * pages * PAGE * LATENT,
  scale: 1 / Math.sqrt(192),
  parts: planned.workgroups,
}
const cache = program.buffer(pages * PAGE * (STREAMS * LATENT + ROPE) * 2)
await fillRandom(gpu, cache, 'f16')
const queries = program.buffer((count * STREAMS * HEADS + SIDE) * packedQueryWidth(shape) * 2)
await fillRandom(gpu, queries, 'f16')
const table0 = Uint32Array.from({ length: pages }, (_, i) => (i * 37) % pages)
const blockTable = program.upload(table0)
const z = program.buffer(PART_BYTES)
const state = program.buffer((PART_BYTES / LATENT) * 2)
const width = STREAMS * planned.groupHeads * LATENT
const outs = [program.buffer(count * width * 4), program.buffer(count * width * 4)] as const
const wrong = program.buffer(16)
const different = `@group(0) @binding(0) var<storage, read> a : array<u32>; @group(0) @binding(1) var<storage, read> b : array<u32>;
@group(0) @binding(2) var<storage, read_write> wrong : array<atomic<u32>>; @group(0) @binding(3) var<uniform> n : vec4<u32>;
@compute @workgroup_size(256) fn main(@builtin(global_invocation_id) id : vec3<u32>, @builtin(num_workgroups) g : vec3<u32>) {
  for (var i = id.x; i < n.x; i += g.x * 256u) { if (a[i] != b[i]) { atomicAdd(&wrong[0], 1u); } if (a[i] != 0u) { atomicAdd(&wrong[1], 1u); } } }`

interface Variant {
  readonly rows: number
  readonly change: Partial<TensorTiling>
}
const COLUMNS = { tokens: 16, scores: 'columns' } as const
const TOKENS = { tokens: 32, scores: 'tokens' } as const
/** The first of an order of sums is what others of that order are compared with. */
const VARIANTS: readonly Variant[] = [TOKENS, COLUMNS].flatMap((order) =>
  [1, 2, 4].flatMap((rows) => [1, 2].map((headTiles) => ({ rows, change: { ...order, headTiles } }))),
)

/** What fixes the order of sums. */
const order = (variant: Variant | undefined) => variant?.change.scores

async function build({ rows, change }: Variant, length: number, pagesOfPart: number, out: GPUBuffer) {
  const tiling = { ...(planned as NonNullable<typeof planned>).tiling, ...change }
  const first = length - count + 1
  const lengths = Array.from({ length: count }, (_, t) => first + t)
  const parts = Math.ceil(Math.ceil(length / PAGE) / pagesOfPart)
  const facts = lengths.flatMap((n) => [0, n, pagesOfPart, Math.ceil(Math.ceil(n / PAGE) / pagesOfPart)])
  const rowTable = program.upload(Uint32Array.from(facts))
  const entries = Array.from({ length: Math.ceil(count / rows) }, (_, e) => [e * rows, Math.min(rows, count - e * rows), 0, 0])
  const entryTable = program.upload(Uint32Array.from(entries.flat()))
  const perRound = Math.floor(PART_BYTES / (parts * STREAMS * slotsOf(shape, rows) * LATENT * 4))
  const sizes = program.uniform(Uint32Array.of(perRound, parts, entries.length, 0))
  const attending: Dispatch[] = []
  const combining: Dispatch[] = []
  const few = parts <= FEW_PARTS
  const both: Dispatch[] = []
  for (let k = 0; k * perRound < entries.length; k++) {
    const inRound = Math.min(perRound, entries.length - k * perRound)
    const across = workgroupsOfParts(tiling, parts, STREAMS * inRound)
    const round = program.uniform(Uint32Array.of(k, 0, 0, 0))
    const attend = await program.wgsl(
      'attention',
      tensorAttention(shape, tiling, rows),
      [rowTable, entryTable, blockTable, queries, cache, z, state, round, sizes],
      () => [across, STREAMS, inRound],
    )
    const combine = await program.wgsl(
      'combine parts',
      combineTensorParts(shape, rows, few),
      [rowTable, entryTable, z, state, out, round, sizes],
      () => [...combineGroups(shape, few), rows * inRound],
    )
    attending.push(attend)
    combining.push(combine)
    both.push(attend, combine)
  }
  return { attending, combining, both, parts }
}

const submit = async (passes: readonly (readonly Dispatch[])[], timed: boolean) => {
  const encoder = context.device.createCommandEncoder()
  for (const dispatches of passes) {
    const pass = encoder.beginComputePass(timed ? gpu.timer.pass('attention') : {})
    for (const { pipeline, bindGroup, groups } of dispatches) {
      pass.setPipeline(pipeline)
      pass.setBindGroup(0, bindGroup)
      pass.dispatchWorkgroups(...groups(ONE_ROW))
    }
    pass.end()
  }
  if (timed) gpu.timer.resolve(encoder)
  context.device.queue.submit([encoder.finish()])
  await context.settle(context.device.queue.onSubmittedWorkDone())
}
const time = async (dispatches: readonly Dispatch[]) => {
  const until = performance.now() + 30
  do await submit([dispatches], false)
  while (performance.now() < until)
  await submit(Array<readonly Dispatch[]>(runs).fill(dispatches), true)
  return median((await gpu.timer.take()).map(({ start, end }) => end - start))
}

console.log(`${gpuLine(gpu)}; ${count} rows, ${runs} runs, median`)
const lines = [['context', 'pages a part', 'rows', 'tiling', 'attention ms', 'TFLOP/s', 'combine ms', 'bits']]
const later: (() => Promise<void>)[] = []
for (const length of LENGTHS) {
  // No more parts than the plan's, as in the engine.
  const least = Math.ceil(Math.ceil(length / PAGE) / planned.workgroups)
  for (const pagesOfPart of [Math.max(least, length > 2048 ? 8 : length > 1024 ? 4 : 1)]) {
    for (const [i, variant] of VARIANTS.entries()) {
      if (variant.rows > count) continue
      const label = [String(length), String(pagesOfPart), String(variant.rows), JSON.stringify(variant.change)]
      try {
        const isFirst = order(variant) !== order(VARIANTS[i - 1])
        const built = await build(variant, length, pagesOfPart, outs[isFirst ? 0 : 1])
        await submit([built.both], false)
        context.device.queue.writeBuffer(wrong, 0, new Uint32Array(4))
        const compare = await program.wgsl(
          'different',
          different,
          [outs[0], outs[1], wrong, program.uniform(Uint32Array.of(count * width, 0, 0, 0))],
          () => [1024, 1, 1],
        )
        await submit([[compare]], false)
        const staging = context.device.createBuffer({ size: 16, usage: 9 })
        const encoder = context.device.createCommandEncoder()
        encoder.copyBufferToBuffer(wrong, 0, staging, 0, 16)
        context.device.queue.submit([encoder.finish()])
        await context.settle(staging.mapAsync(1))
        const [differ, filled] = new Uint32Array(staging.getMappedRange().slice(0))
        staging.destroy()
        const bits = isFirst ? `${filled} values` : differ === 0 ? 'equal' : `${differ} differ`
        const flops = Array.from({ length: count }, (_, t) => length - t).reduce((a, b) => a + b, 0) * STREAMS * HEADS * (2 * LATENT + ROPE) * 2
        later.push(async () => {
          const attention = await time(built.attending)
          const combine = await time(built.combining)
          lines.push([...label, attention.toFixed(3), (flops / attention / 1e9).toFixed(1), combine.toFixed(3), bits])
        })
      } catch (cause) {
        lines.push([...label, cause instanceof Error ? cause.message.slice(0, 90) : String(cause), '', '', ''])
      }
    }
  }
}
for (const run of later) await run()
console.log(table(lines))
await context.destroy()
