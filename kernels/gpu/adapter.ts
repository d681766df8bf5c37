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
}
