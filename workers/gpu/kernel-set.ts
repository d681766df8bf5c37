// The kernels of a layer that exist twice: hand-written WGSL, and gpu.js versions for devices that cannot run it. gpu.js compiles
// everything else in either case.
/// <reference types="@webgpu/types" />
import type { Command, RowSet, Shaped } from '../../kernels/gpu/program.js'
import type { RowWrite } from '../../kernels/gpu/wgsl/cache-rows.js'
import type { RowSource } from '../../kernels/gpu/wgsl/tensor-rows.js'
import type { DeviceMatrices, Tile } from './weights.js'

/** An RMS norm: its weight, [n], and what is added to the mean square. */
export interface RmsNorm {
  readonly weight: Shaped
  readonly epsilon: number
}

/** Products of tiles with rows of x, which are normed first if there is a norm. y may have planes: tiles say where. */
export interface Product {
  readonly label: string
  readonly weights: DeviceMatrices
  readonly tiles: readonly Tile[]
  readonly x: Shaped
  readonly y: Shaped
  readonly rowSet?: RowSet
  /** y is float16, two a word. On tensor cores only. */
  readonly halves?: boolean
  readonly norm?: RmsNorm | undefined
  /** In the place of x: what it is made of on the way, and the buffers of that. On tensor cores only. */
  readonly source?: { readonly rows: RowSource; readonly buffers: readonly GPUBuffer[] } | undefined
}

/** Vectors that each row of the step writes to the cache. */
export interface CacheWrite {
  readonly x: Shaped
  readonly rows: RowWrite
}

/** What gpu.js kernels read of a step beside the buffers. */
export interface StepTables {
  /** Block tables as floats. */
  readonly pageTable: Shaped
  /** [2, rows] as floats: first entry of the block table, and length. */
  readonly rowTable: Shaped
  /** Row of the cache that row t of the step writes. */
  cacheRow(t: number): number
}

export interface KernelSet {
  product(product: Product): Promise<Command[]>
  writeCache(cache: GPUBuffer, writes: readonly CacheWrite[]): Promise<Command[]>
  /** The most likely token of each wanted row, to GpuBuffers.greedy; none where the host has to look for it. */
  argmax(): Promise<Command[]>
  /** From the queries to the heads' weighted sums. */
  attend(cache: GPUBuffer): Promise<Command[]>
}
