// The kernels that a layer is made of and that there are two of: hand-written WGSL, and gpu.js versions for devices that lack what
// those need. Everything else is compiled by gpu.js in either case.
/// <reference types="@webgpu/types" />
import type { Command, RowSet, Shaped } from '../../kernels/gpu/program.js'
import type { RowWrite } from '../../kernels/gpu/wgsl/cache-rows.js'

/** An RMS norm: its weight, [n], and what is added to the mean square. */
export interface RmsNorm {
  readonly weight: Shaped
  readonly epsilon: number
}

/** Products of tiles with rows of x, which are normed first if there is a norm; y may have planes, at places that the tiles say. */
export interface Product {
  readonly name: string
  readonly weights: GPUBuffer
  readonly tiles: readonly (readonly number[])[]
  readonly x: Shaped
  readonly y: Shaped
  readonly rowSet?: RowSet
  readonly norm?: RmsNorm | undefined
}

/** Vectors that each row of the step writes to the cache. */
export interface CacheWrite {
  readonly x: Shaped
  readonly rows: RowWrite
}

export interface KernelSet {
  product(product: Product): Promise<Command[]>
  writeCache(cache: GPUBuffer, writes: readonly CacheWrite[]): Promise<Command[]>
  /** From the queries to the heads' weighted sums. */
  attend(cache: GPUBuffer): Promise<Command[]>
}
