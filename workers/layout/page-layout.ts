// How whole pages of a layer's cache cross between a device and the coordinator: one array of bytes, region after region (each stream,
// then the rope keys, then the coefficients), and in each region page after page.
import { type AttentionShape, PAGE_TOKENS } from '../protocol.js'
import { type CacheRows, streamsOf } from './attention-plan.js'

export interface PageLayout {
  /** Byte offset of each stream of these shards. */
  readonly streams: readonly number[]
  readonly ropeStream: number
  readonly coefficientStream: number
  readonly bytes: number
}

/** The regions of `count` pages of the ranks' shards. A region that the model does not have is empty. */
export function layoutPages(a: AttentionShape, shards: readonly number[], rows: CacheRows, count: number): PageLayout {
  let bytes = 0
  const take = (rowBytes: number) => {
    const at = bytes
    bytes += count * PAGE_TOKENS * rowBytes
    return at
  }
  const streams = streamsOf(a, shards).map(() => take(rows.stream.bytes))
  const ropeStream = take(rows.rope.bytes)
  const coefficientStream = take(rows.coefficients.bytes)
  return { streams, ropeStream, coefficientStream, bytes }
}
