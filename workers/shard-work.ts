// One shard as a rank uses it: kernels over the shard's memory and the rank's scratch there, as named rows.
import type { KernelSpace } from '../kernels/backend.js'
import { paddedRows } from '../kernels/packing.js'
import type { Rows } from '../kernels/rows.js'
import { cacheWidth, part, type ShardLayer, type ShardLayout, unitOf } from './model-layout.js'
import type { ModelShape } from './protocol.js'

export class ShardWork {
  readonly space: KernelSpace
  readonly layers: readonly ShardLayer[]
  readonly head: ShardLayout['head']
  /** Scratch for matmul, byte offset. */
  readonly scratch: number
  // Inputs, copied in by the rank. All share one buffer: one is in use at a time.
  readonly normed: Rows
  readonly queryLatent: Rows
  readonly queries: Rows
  /** The unit's heads of `queries`. */
  readonly unitQueries: Rows
  readonly context: Rows
  readonly segment: Rows
  // Outputs, copied out by the rank; rows are spaced by the padded width.
  readonly queryA: Rows
  readonly latent: Rows
  readonly queryB: Rows
  readonly absorbed: Rows
  readonly values: Rows
  readonly attentionOut: Rows
  readonly gate: Rows
  readonly up: Rows
  readonly down: Rows
  readonly logits: Rows
  /** Scalars of a gate row, padding included. */
  readonly gateWidth: number

  constructor(space: KernelSpace, layout: ShardLayout, shape: ModelShape, shard: number, rank: number) {
    const a = shape.attention
    const buffers = layout.scratch[rank]
    if (!buffers) throw new RangeError(`no scratch for rank ${rank} in shard ${shard}`)
    const unit = unitOf(shape, shard)
    const unitHeads = unit.headEnd - unit.headStart
    const heads = part(a.heads, shard)
    const queryWidth = a.nopeDim + a.ropeDim
    const input = (width: number) => space.rows(buffers.input, width)
    const padded = (ptr: number, width: number) => space.rows(ptr, width, paddedRows(width))
    this.space = space
    this.layers = layout.layers
    this.head = layout.head
    this.scratch = buffers.matmul
    this.normed = input(shape.embed)
    this.queryLatent = input(a.queryRank)
    this.queries = input(a.heads * queryWidth)
    this.unitQueries = this.queries.columns(unit.headStart * queryWidth, unitHeads * queryWidth)
    this.context = input(unitHeads * cacheWidth(a.latentDim))
    this.segment = input(heads * a.nopeDim)
    this.queryA = padded(buffers.output, part(a.queryRank, shard))
    this.latent = padded(buffers.output, a.latentDim)
    this.queryB = padded(buffers.output, heads * queryWidth)
    this.absorbed = space.rows(buffers.output, unitHeads * a.latentDim, unitHeads * a.latentDim + paddedRows(a.latentDim))
    this.values = space.rows(buffers.output, unitHeads * a.nopeDim, unitHeads * a.nopeDim + paddedRows(a.nopeDim))
    this.attentionOut = padded(buffers.output, shape.embed)
    this.gate = padded(buffers.output, part(shape.intermediate, shard))
    this.up = padded(buffers.second, part(shape.intermediate, shard))
    this.down = padded(buffers.second, shape.embed)
    this.logits = padded(buffers.output, part(shape.vocab, shard))
    this.gateWidth = paddedRows(part(shape.intermediate, shard))
  }
}
