// Where the queries of a rank's heads are before they are rotated, for models whose queries go to latent space: attention on tensor
// cores and the product before it read them there, so that no dispatch only rotates.
import type { Shaped } from '../../kernels/gpu/program.js'
import { queriesFromLatent } from '../layout/attention-geometry.js'
import { cacheWidth } from '../layout/attention-plan.js'
import type { GpuBuffers } from './buffers.js'
import type { GpuPlan } from './plan.js'

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
