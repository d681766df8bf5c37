// Compiles the tensor-core kernels on Dawn's null backend and prints what is wrong with them, as JSON: [case, message][]. A process of its
// own: Dawn takes a test's thread down with it.
/// <reference types="@webgpu/types" />
import { loadDawn } from '../../kernels/gpu/context.js'
import { tensorAttention } from '../../kernels/gpu/wgsl/tensor-attention.js'
import { combineTensorParts, packQueries } from '../../kernels/gpu/wgsl/tensor-parts.js'
import { planTensorAttention, type TensorShape } from '../../kernels/gpu/wgsl/tensor-shape.js'

const FEATURES = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'] as const

/** heads, key width, value width, value offset, rope width, streams */
const SHAPES = [
  [64, 128, 128, 0, 64, 4],
  [64, 512, 512, 0, 64, 1],
  [16, 128, 128, 128, 0, 1],
  [6, 22, 22, 0, 10, 2],
  [18, 18, 26, 18, 0, 1],
  [48, 128, 64, 0, 32, 1],
  [80, 64, 128, 0, 32, 1],
  [1, 10, 18, 10, 0, 1],
  [24, 152, 152, 0, 44, 1],
] as const

const dawn = await loadDawn()
Object.assign(globalThis, dawn.globals)
// Kept: Dawn ends with it, under whoever is at work.
const gpu = dawn.create(['backend=null', 'enable-dawn-features=allow_unsafe_apis'])
const adapter = await gpu.requestAdapter()
const requiredFeatures = FEATURES.filter((name) => adapter?.features.has(name)) as GPUFeatureName[]
const device = await adapter?.requestDevice({ requiredFeatures })
if (!device || requiredFeatures.length < FEATURES.length) throw new Error(`the null backend lacks one of ${FEATURES.join()}`)
const errors: [string, string][] = []
let compiled = 0
for (const [heads, keyWidth, valueWidth, valueOffset, ropeDim, streams] of SHAPES) {
  const { shape, planned } = shapeOf(heads, keyWidth, valueWidth, valueOffset, ropeDim, streams)
  const tilings = [{}, { ahead: 1 }, { ahead: 2 }, { buffers: 2 }, { split: 4 }, { headTiles: 1 }].map((other) => ({ ...planned.tiling, ...other }))
  for (const code of [packQueries(shape), combineTensorParts(shape), ...tilings.map((tiling) => tensorAttention(shape, tiling))]) {
    const { messages } = await device.createShaderModule({ code }).getCompilationInfo()
    const name = JSON.stringify([heads, keyWidth, valueWidth, valueOffset, ropeDim, streams])
    for (const m of messages) if (m.type === 'error') errors.push([name, `${m.message}: ${code.split('\n')[m.lineNum - 1]}`])
    compiled++
  }
}
console.log(JSON.stringify({ compiled, errors, languageFeatures: gpu.wgslLanguageFeatures.size }))
process.exit(0)

function shapeOf(heads: number, keyWidth: number, valueWidth: number, valueOffset: number, ropeDim: number, streams: number) {
  const four = (n: number) => Math.ceil(n / 4) * 4
  const rowWidth = four(Math.max(keyWidth, valueOffset + valueWidth))
  const widths = { keyWidth, keyOffset: 0, valueOffset, valueWidth, ropeDim, rowWidth, ropeRowWidth: four(ropeDim) }
  const planned = planTensorAttention(widths, heads, 49_152)
  if (!planned) throw new Error('no tiling')
  const { groupHeads } = planned
  const perStream = Math.ceil(heads / groupHeads)
  const rows = 640
  const groups = Array.from({ length: streams * perStream }, (_, g) => ({
    region: Math.floor(g / perStream) * rows * rowWidth,
    slot: g * groupHeads,
  }))
  const slots = groups.flatMap((_, g) =>
    Array.from({ length: groupHeads }, (_, i) => {
      const head = (g % perStream) * groupHeads + i
      return head < heads ? { query: (Math.floor(g / perStream) * heads + head) * four(keyWidth), rope: head * four(ropeDim) } : undefined
    }),
  )
  const queries = { queryWidth: streams * heads * four(keyWidth), ropeWidth: heads * four(ropeDim), ropeRegion: streams * rows * rowWidth }
  const shape: TensorShape = { ...widths, ...queries, groups, groupHeads, slots, scale: 0.1, parts: planned.workgroups }
  return { shape, planned }
}
