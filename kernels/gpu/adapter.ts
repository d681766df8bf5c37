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
}

/** What kernels may use of a device. */
export interface DeviceFacts {
  readonly tensorCores: boolean
  /** Bytes of workgroup memory, and threads of a workgroup. */
  readonly workgroupStorage: number
  readonly workgroupThreads: number
}
