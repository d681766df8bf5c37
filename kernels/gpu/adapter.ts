// GPU adapters as plain data: it crosses threads, and needs no GPU types.

/** What to acquire. */
export interface GpuRequest {
  /** Part of the adapter's name; undefined: the first hardware adapter. */
  readonly adapter: string | undefined
  /** Bounds checks in shaders and validation by Dawn: slower, for finding errors. */
  readonly checks: boolean
}

export interface AdapterFacts {
  readonly vendor: string
  readonly architecture: string
  readonly device: string
  /** Driver and version, as the driver says them. */
  readonly description: string
  readonly software: boolean
  /** It lists subgroup matrices of 16 x 16 x 16 from f16 to f32 for subgroups of 32: what the tensor-core kernels need. */
  readonly tensorCores: boolean
  /** Bytes of workgroup memory, and threads of a workgroup. */
  readonly workgroupStorage: number
  readonly workgroupThreads: number
}

/** What an adapter has. */
export interface AdapterDescription extends AdapterFacts {
  /** By which `adapter` can ask for it. */
  readonly name: string
  /** WebGPU features, Dawn's experimental ones included. */
  readonly features: readonly string[]
  /** The limits that decide which models and kernels fit. */
  readonly limits: Readonly<Record<string, number>>
}

/**
 * Names from the message of Dawn where no adapter has the name that was asked for: ` * backend: 'vulkan', name: 'NVIDIA H100'`. Each
 * once, in order; only of backends that compute on a real device or Vulkan's software ones.
 */
export function adapterNames(message: string): string[] {
  const found = message.matchAll(/backend: '(vulkan|metal|d3d12)', name: '(.*)'$/gim)
  return [...new Set([...found].map(([, , name]) => name as string))]
}
