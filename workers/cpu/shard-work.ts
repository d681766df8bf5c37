// One shard as a rank uses it: kernels over the shard's memory and the rank's scratch there, as named rows.
import type { KernelBackend } from '../../kernels/backend.js'
import { type PackedMatrix, paddedRows } from '../../kernels/packing.js'
import type { Rows } from '../../kernels/rows.js'
import { queryWidth } from '../layout/attention-geometry.js'
import { cacheWidth, contextWidth, segmentHeads, shardHeads } from '../layout/attention-plan.js'
import { part } from '../layout/cuts.js'
import type { ShardLayer, ShardLayout } from '../layout/shard-layout.js'
import type { ModelShape } from '../protocol.js'

export class ShardWork {
  readonly kernels: KernelBackend
  readonly layers: readonly ShardLayer[]
  readonly head: ShardLayout['head']
  readonly embedding: ShardLayout['embedding']
  /** Scratch for matmul, byte offset. */
  readonly #scratch: number
  // Inputs, copied in by the rank. All share one buffer: one is in use at a time.
  readonly normed: Rows
  readonly queryLatent: Rows
  readonly queries: Rows
  /** The shard's heads of `queries`. */
  readonly ownQueries: Rows
  readonly context: Rows
  /** Rows are spaced by whole vectors. */
  readonly segment: Rows
  // Outputs, copied out by the rank; rows are spaced by the padded width.
  readonly queryA: Rows
  readonly queryB: Rows
  readonly streams: Rows
  readonly coefficients: Rows
  readonly absorbed: Rows
  readonly values: Rows
  readonly outputGate: Rows
  readonly attentionOut: Rows
  readonly gateUp: Rows
  /** Columns of gateUp. */
  readonly gate: Rows
  readonly up: Rows
  readonly down: Rows
  readonly logits: Rows
  /** Scalars of a gate row, padding included. */
  readonly gateWidth: number

  constructor(kernels: KernelBackend, layout: ShardLayout, shape: ModelShape, shard: number, rank: number) {
    const a = shape.attention
    const buffers = layout.scratch[rank]
    const first = layout.layers[0]
    if (!buffers || !first) throw new RangeError(`no scratch for rank ${rank} in shard ${shard}`)
    const attends = shardHeads(a, shard)
    const heads = attends.end - attends.start
    const segment = segmentHeads(a, shard)
    const segmentWidth = (segment.end - segment.start) * a.valueDim
    const perHead = queryWidth(a)
    const input = (width: number, stride = width) => kernels.rows(buffers.input, width, stride)
    const padded = (ptr: number, width: number) => kernels.rows(ptr, width, paddedRows(width))
    const byHead = (width: number) => kernels.rows(buffers.output, heads * width, heads * width + paddedRows(width))
    this.kernels = kernels
    this.layers = layout.layers
    this.head = layout.head
    this.embedding = layout.embedding
    this.#scratch = buffers.matmul
    this.normed = input(shape.embed)
    this.queryLatent = input(a.queryRank)
    this.queries = input(a.heads * perHead)
    this.ownQueries = this.queries.columns(attends.start * perHead, heads * perHead)
    this.context = input(heads * contextWidth(a))
    this.segment = input(segmentWidth, cacheWidth(segmentWidth))
    this.queryA = padded(buffers.output, part(a.queryRank, shard))
    this.queryB = padded(buffers.output, first.queryB.rows)
    this.streams = padded(buffers.output, first.streams.rows)
    this.coefficients = padded(buffers.output, first.coefficients.rows)
    this.absorbed = byHead(a.stream.keyWidth)
    this.values = byHead(a.valueDim)
    this.outputGate = padded(buffers.output, segmentWidth)
    this.attentionOut = padded(buffers.output, shape.embed)
    this.gateWidth = paddedRows(part(shape.intermediate, shard))
    this.gateUp = kernels.rows(buffers.output, 2 * this.gateWidth)
    this.gate = this.gateUp.columns(0, this.gateWidth)
    this.up = this.gateUp.columns(this.gateWidth, this.gateWidth)
    this.down = padded(buffers.second, shape.embed)
    this.logits = padded(buffers.output, part(shape.vocab, shard))
  }

  layer(layer: number): ShardLayer {
    return this.layers[layer] as ShardLayer
  }

  /** y[t] = w x[t]; nothing for a matrix that the model does not have. */
  matmul(w: PackedMatrix, x: Rows, y: Rows, tokens: number): void {
    if (w.rows * w.batch > 0) this.kernels.matmul(w, x, y, tokens, this.#scratch)
  }
}
