// Compiles the tensor-core kernels on Dawn's null backend and prints what is wrong with them, as JSON: [case, message][]. A process of its
// own: Dawn takes a test's thread down with it.
/// <reference types="@webgpu/types" />
import { CACHE_FORMATS } from '../../kernels/cache-formats.js'
import { loadDawn } from '../../kernels/gpu/context.js'
import { argmaxRows } from '../../kernels/gpu/wgsl/argmax.js'
import { FIRST_QUERY, writeLatentRows } from '../../kernels/gpu/wgsl/latent-rows.js'
import { tensorAttention } from '../../kernels/gpu/wgsl/tensor-attention.js'
import { productBytes, productThreads, tensorProduct } from '../../kernels/gpu/wgsl/tensor-matmul.js'
import { stepsOf } from '../../kernels/gpu/wgsl/tensor-matmul-shape.js'
import { PRODUCT_STORAGE, PRODUCT_THREADS, tilingsOf } from '../../kernels/gpu/wgsl/tensor-matmul-tiling.js'
import { combineTensorParts, packQueries, ropeQueries } from '../../kernels/gpu/wgsl/tensor-parts.js'
import { headColumns, headRows, OWN_THREADS, ownRows, packRows, plainRows, sumRows, swigluRows } from '../../kernels/gpu/wgsl/tensor-rows.js'
import { planPromptRows, type TensorShape } from '../../kernels/gpu/wgsl/tensor-shape.js'
import { repackWeights } from '../../kernels/gpu/wgsl/tensor-weights.js'
import { widenRows } from '../../workers/gpu/embed-rows.js'
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
  const columns = { tokens: 16, scores: 'columns' } as const
  const others = [
    {},
    { headTiles: 2 },
    { walk: 'tiles' },
    { walk: 'pages' },
    columns,
    { ...columns, headTiles: 2 },
    { ...columns, split: 4 },
  ] as const
  const tilings = others.map((other) => ({ ...planned.tiling, ...other }))
  const name = JSON.stringify([heads, keyWidth, valueWidth, valueOffset, ropeDim, streams])
  await compile(
    name,
    packQueries(shape),
    ...(ropeDim > 0 ? [rowsBesideQueries(shape)] : []),
    combineTensorParts(shape, 1, true),
    combineTensorParts(shape, 1, false),
    ...tilings.map((tiling) => tensorAttention(shape, tiling, 1)),
  )
  const prompt = planPromptRows(shape, shape.rowHeads, planned.tiling, 49_152)
  if (prompt) await compile(`${name} prompt`, combineTensorParts(shape, prompt.rows, true), tensorAttention(shape, prompt.tiling, prompt.rows))
}
for (const k of [16, 128, 768, 1000, 1024, 2470, 3072]) {
  const steps = stepsOf(k)
  for (const pair of [false, true]) {
    const tilings = [16, 1600, 5000, 12_000, 19_760, 50_304].flatMap((outputs) => tilingsOf([outputs], pair).map(({ tiling }) => tiling))
    for (const tiling of tilings)
      if (productBytes(tiling, pair) > PRODUCT_STORAGE || productThreads(tiling) > PRODUCT_THREADS) errors.push([`product over ${k}`, 'too large'])
    await compile(`product over ${k}`, ...tilings.flatMap((tiling) => [tensorProduct(steps, tiling, pair), tensorProduct(steps, tiling, pair, true)]))
    for (const epsilon of [undefined, 1e-6]) {
      const heads = { width: 8, stride: 64, planeRows: 64, planes: 4, factor: 0.5 }
      const gate = { stride: 80, from: 16 }
      const sources = [
        plainRows(64),
        headColumns(64, 3, 12, 8),
        swigluRows(96, 48),
        sumRows(64, 64),
        headRows({ ...heads, gate }),
        headRows({ ...heads, gate: undefined }),
      ]
      await compile(`rows of ${k}`, ...sources.map((source) => packRows({ regions: 3, steps, pair, epsilon, source })))
      const ones = tilings.filter((tiling) => tiling.rows === 16 && productThreads(tiling) % OWN_THREADS === 0)
      const withOwn = ones.flatMap((tiling) =>
        sources.map((source) => tensorProduct(steps, tiling, pair, false, ownRows({ steps, pair, epsilon, source }, productThreads(tiling)))),
      )
      await compile(`rows of ${k} that a product packs`, ...withOwn)
    }
  }
  await compile(`weights of ${k}`, repackWeights(steps))
}
await compile('ends of a step', argmaxRows(50_304), widenRows(3072), widenRows(7))
console.log(JSON.stringify({ compiled, errors, languageFeatures: gpu.wgslLanguageFeatures.size }))
process.exit(0)

function rowsBesideQueries(shape: TensorShape): string {
  const half = shape.ropeDim / 2
  const raw = { stride: 999, from: 3, headWidth: 30, nope: 20, half, paddedWidth: 32, paddedNope: 20 }
  const rows = { stride: 999, streams: 2, streamsFrom: 10, width: 26, rowWidth: 28, regionStride: 6400, epsilon: 1e-5 }
  const rope = { from: 71, half, region: 12_800, rowWidth: 2 * half + 2 }
  const f16 = CACHE_FORMATS.f16.gpu
  if (!f16) throw new Error('float16 caches are on no GPU')
  return writeLatentRows({ ...rows, rope }, f16, ropeQueries(shape, raw, FIRST_QUERY))
}

async function compile(name: string, ...codes: string[]): Promise<void> {
  for (const code of codes) {
    const { messages } = await (device as GPUDevice).createShaderModule({ code }).getCompilationInfo()
    for (const m of messages) if (m.type === 'error') errors.push([name, `${m.message}: ${code.split('\n')[m.lineNum - 1]}`])
    compiled++
  }
}
