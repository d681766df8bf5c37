// Where the queries of a rank's heads are before they are rotated, for models whose queries go to latent space: attention on tensor
// cores and the product before it read them there, so that no dispatch only rotates.
import type { Shaped } from '../../kernels/gpu/program.js'
import { packedQueryWidth } from '../../kernels/gpu/wgsl/tensor-shape.js'
import { queriesFromLatent } from '../layout/attention-geometry.js'
import { cacheWidth } from '../layout/attention-plan.js'
import type { GpuBuffers } from './buffers.js'
import type { Product } from './kernel-set.js'
import type { GpuPlan } from './plan.js'
import type { Tile } from './weights.js'

export interface RawQueries {
  readonly x: Shaped
  /** First column of the rank's first head, and columns of a head: those that do not rotate, then those that do. */
  readonly from: number
  readonly headWidth: number
  readonly nope: number
  readonly half: number
  /** Columns of a head, and of its part that does not rotate, where queries lie rotated. */
  readonly paddedWidth: number
  readonly paddedNope: number
}

/** undefined: queries are rotated by a dispatch of their own. */
export function rawQueries(plan: GpuPlan, b: GpuBuffers): RawQueries | undefined {
  const { a, columns, headStart, kernels, tensor } = plan
  if (kernels.products !== 'tiles' || !tensor || !a.absorbed || a.factors || a.sharedRopeDim !== a.ropeDim) return undefined
  const fromLatent = queriesFromLatent(a)
  const headWidth = a.nopeDim + a.ropeDim
  return {
    x: fromLatent ? b.rawQueries : b.inputs,
    from: (fromLatent ? 0 : columns.queryB) + headStart * headWidth,
    headWidth,
    nope: a.nopeDim,
    half: a.ropeDim / 2,
    paddedWidth: cacheWidth(a.nopeDim) + cacheWidth(a.ropeDim),
    paddedNope: cacheWidth(a.nopeDim),
  }
}

/**
 * Where keyUp's outputs go: as float16 to the packed queries of attention on tensor cores, where queries are raw; else as they are to
 * buffers of their own.
 */
export function absorbedQueries(plan: GpuPlan, b: GpuBuffers, tiles: readonly Tile[]): Pick<Product, 'tiles' | 'y' | 'halves'> {
  const { tensor, a } = plan
  if (!tensor || !rawQueries(plan, b)) return { tiles, y: b.absorbed }
  const { groupHeads, rowHeads, queryRows } = tensor.shape
  const width = packedQueryWidth(tensor.shape)
  const stride = cacheWidth(a.stream.keyWidth)
  const packed = (y: number) => {
    const place = Math.floor(y / stride)
    return (Math.floor(place / groupHeads) * queryRows * rowHeads + (place % groupHeads)) * width + (y % stride)
  }
  return { tiles: tiles.map((tile) => ({ ...tile, y: packed(tile.y) })), y: { buffer: b.packedQueries, dims: [rowHeads * width] }, halves: true }
}
