// Widths of a head's query, each derived here and nowhere else. Pure functions of the attention's shape.
import type { AttentionShape } from '../protocol.js'
import { cacheWidth } from './attention-plan.js'

/** Scalars of a head's query: columns without rope, then columns with. */
export function queryWidth(a: AttentionShape): number {
  return a.nopeDim + a.ropeDim
}

/** The same where both parts are padded to whole vectors, as attention on a GPU reads them. */
export function paddedQueryWidth(a: AttentionShape): number {
  return cacheWidth(a.nopeDim) + cacheWidth(a.ropeDim)
}

/** Whether queries come out of the query latent by a product of their own. */
export function queriesFromLatent(a: AttentionShape): boolean {
  return a.queryRank > 0 && !a.factors
}

/** Outputs of queryB for a head: its query, or with factors the coefficients of its query. */
export function queryRows(a: AttentionShape): number {
  return a.factors ? a.factors.queryRank : queryWidth(a)
}
