// Compiles the tensor-core kernels on Dawn's null backend and prints what is wrong with them, as JSON: [case, message][]. A process of its
// own: Dawn takes a test's thread down with it.
/// <reference types="@webgpu/types" />
import { loadDawn } from '../../kernels/gpu/context.js'
import { tensorAttention } from '../../kernels/gpu/wgsl/tensor-attention.js'
import { combineTensorParts, packQueries } from '../../kernels/gpu/wgsl/tensor-parts.js'
import { shapeOf, TENSOR_SHAPES } from './tensor-shapes.js'

const FEATURES = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'] as const

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
for (const [heads, keyWidth, valueWidth, valueOffset, ropeDim, streams] of TENSOR_SHAPES) {
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
