// What is used of gpu.js 2.24.1, whose types do not cover its WebGPU mode: compiled kernels, whose pipelines are recorded into
// encoders of our own (a call of a kernel submits by itself). Pinned: these are its internals.

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
// biome-ignore lint/suspicious/noExplicitAny: gpu.js reads the source; how often an argument is indexed is its own affair.
export type KernelArray = any

/** What `this` is in a kernel's source. */
export interface KernelThread {
  readonly thread: { readonly x: number; readonly y: number; readonly z: number }
  readonly constants: KernelArray
}

export type GpuJsSource = (this: KernelThread, ...args: KernelArray[]) => number

export interface GpuJsKernel {
  build(...args: readonly BufferHandle[]): Promise<void>
  /** 'webgpu' when it is really compiled for the device. */
  readonly constructor: { readonly mode?: string }
  readonly computePipeline: GPUComputePipeline
  readonly bindGroupLayout: GPUBindGroupLayout
  readonly paramsLayout: { readonly byteLength: number; readonly arrayArgs: readonly { readonly index: number; readonly dimsOffset: number }[] }
  readonly workgroupSize: readonly [number, number, number]
  outputBuffer: GPUBuffer | null
}
