// Types of the parts of gpu.js 2.24.1 that are used; its own types do not cover its WebGPU mode. Pipelines of compiled kernels are
// recorded into command encoders of this project, because calling a kernel submits at once. These are internals: the version is pinned.

export interface GpuJs {
  readonly GPU: new (options: { mode: 'webgpu' }) => GpuJsInstance
  readonly WebGPUContext: { acquire(): Promise<{ device: GPUDevice }> }
  readonly WebGPUBufferResult: new (settings: { buffer: GPUBuffer; output: number[]; context: object; kernel: null }) => BufferHandle
}

export interface BufferHandle {
  readonly buffer: GPUBuffer
  readonly output: number[]
}

export interface GpuJsInstance {
  createKernel(source: GpuJsSource, settings: object): { readonly kernel: GpuJsKernel }
  destroy(): Promise<void>
}

/** An array argument ([x], [y][x] or [z][y][x]) or the constants of a kernel. */
// biome-ignore lint/suspicious/noExplicitAny: gpu.js compiles the source; the depth of an argument is known only there.
export type KernelArray = any

/** `this` in a kernel's source. */
export interface KernelThread {
  readonly thread: { readonly x: number; readonly y: number; readonly z: number }
  readonly constants: KernelArray
}

export type GpuJsSource = (this: KernelThread, ...args: KernelArray[]) => number

export interface GpuJsKernel {
  build(...args: readonly BufferHandle[]): Promise<void>
  /** 'webgpu' if it was compiled for the device; gpu.js may fall back to the CPU without an error. */
  readonly constructor: { readonly mode?: string }
  readonly computePipeline: GPUComputePipeline
  readonly bindGroupLayout: GPUBindGroupLayout
  readonly paramsLayout: { readonly byteLength: number; readonly arrayArgs: readonly { readonly index: number; readonly dimsOffset: number }[] }
  readonly workgroupSize: readonly [number, number, number]
  outputBuffer: GPUBuffer | null
}
