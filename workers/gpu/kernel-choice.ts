// Which kernels a rank's device runs, and what follows from that for the rest of a step: decided here and nowhere else.
import { gpuCacheFormat } from '../../kernels/cache-formats.js'
import type { AdapterFacts } from '../../kernels/gpu/adapter.js'
import { PRODUCT_STORAGE, PRODUCT_THREADS } from '../../kernels/gpu/wgsl/tensor-matmul-tiling.js'
import { WEIGHT_FORMATS } from '../../kernels/weight-formats.js'
import type { RunPlan } from '../protocol.js'
import type { DeviceLayout } from './weights.js'

/** What the WGSL kernels need of a workgroup: threads, and bytes of memory. */
const WGSL_THREADS = 256
const WGSL_STORAGE = 16_384

export interface KernelChoice {
  /** gpu.js kernels only, WGSL, or WGSL with attention on tensor cores. Part of the determinism key, as `products` is. */
  readonly name: 'gpu.js' | 'wgsl' | 'tensor'
  /** Products read packed weights, or float16 tiles on tensor cores. */
  readonly products: DeviceLayout
  /** Of products on tensor cores: activations are two float16 a scalar, nearly float32, where the cache is float32 as well. */
  readonly pair: boolean
  /** Kernels read float32 only: weights are uploaded as float32, and tables have float copies. */
  readonly floats: boolean
  /** No command holds positions of one step, so a step can be encoded before its positions are known. */
  readonly encodesAhead: boolean
}

/** Throws Error for formats that the kernels of this adapter cannot read. tensorCores: attention fits the device's. */
export function chooseKernels(run: RunPlan, adapter: AdapterFacts, tensorCores: boolean): KernelChoice {
  const { workgroupThreads: threads, workgroupStorage: storage } = adapter
  if (run.gpu?.kernels !== 'gpu.js' && threads >= WGSL_THREADS && storage >= WGSL_STORAGE) {
    const tiles = WEIGHT_FORMATS[run.weights].tensorTiles && adapter.tensorCores && threads >= PRODUCT_THREADS && storage >= PRODUCT_STORAGE
    return {
      name: tensorCores ? 'tensor' : 'wgsl',
      products: tiles ? 'tiles' : 'packed',
      // Activations as a pair of f16 where the cache keeps all of float32.
      pair: gpuCacheFormat(run.cache).perWord === 1,
      floats: false,
      encodesAhead: true,
    }
  }
  if (!gpuCacheFormat(run.cache).gpuJs || !WEIGHT_FORMATS[run.weights].floatTiles) {
    const has = `this adapter has ${threads} threads and ${storage} bytes a workgroup`
    throw new Error(`gpu.js kernels (${has}) need an f32 cache and f32 or bf16 weights, not ${run.cache} and ${run.weights}`)
  }
  return { name: 'gpu.js', products: 'packed', pair: false, floats: true, encodesAhead: false }
}
