// Where the rows and columns of a logical matrix lie in the memories of shards and ranks. Knows no tensor names and no families.
import { inBatch, type PackedMatrix } from '../../../kernels/packing.js'
import { queryRows } from '../../../workers/layout/attention-geometry.js'
import { ownStreams, segmentHeads, shardHeads, sharedStreams, unitsOf } from '../../../workers/layout/attention-plan.js'
import { cut } from '../../../workers/layout/cuts.js'
import type { ModelLayout } from '../../../workers/layout/model-layout.js'
import type { RankLayout } from '../../../workers/layout/rank-layout.js'
import type { ShardLayer, ShardLayout } from '../../../workers/layout/shard-layout.js'
import { type MatrixPiece, type MemoryName, type ModelShape, SHARDS, type VectorPiece } from '../../../workers/protocol.js'
import type { LogicalMatrix, MatrixPart, VectorPart, VectorSpec, VectorTarget } from '../families/family.js'
import { rankMemory, shardMemory } from './planner.js'

/** Rows (or columns) start..end-1 of a logical matrix, which are those of a packed matrix from `packedRow` on. */
interface Slot {
  readonly memory: MemoryName
  readonly matrix: PackedMatrix
  readonly start: number
  readonly end: number
  readonly packedRow: number
}

/** Which way a logical matrix is cut over shards. */
interface Cut {
  readonly axis: 'rows' | 'columns'
  readonly slots: readonly Slot[]
}

export class Placement {
  readonly #shape: ModelShape
  readonly #layout: ModelLayout

  constructor(shape: ModelShape, layout: ModelLayout) {
    this.#shape = shape
    this.#layout = layout
  }

  /** Pieces of the memories that a part of a tensor fills. layer: undefined for matrices outside layers. */
  pieces({ area, into, row, transposed }: MatrixPart, layer: number | undefined): MatrixPiece[] {
    const { axis, slots } = this.#cut(into, layer)
    // Stored columns are the logical rows of a transposed part.
    const alongRows = (axis === 'rows') !== transposed
    const first = axis === 'rows' ? row : 0
    const count = alongRows ? area.rows : area.cols
    return slots.flatMap(({ memory, matrix, start, end, packedRow }) => {
      const from = Math.max(start, first)
      const to = Math.min(end, first + count)
      if (to <= from) return []
      const offset = from - first
      const taken = alongRows ? { ...area, row: area.row + offset, rows: to - from } : { ...area, col: area.col + offset, cols: to - from }
      return [
        {
          memory,
          ptr: matrix.ptr,
          format: matrix.format,
          packedCols: matrix.cols,
          ...taken,
          packedRow: axis === 'rows' ? packedRow + from - start : row,
          packedCol: axis === 'rows' ? 0 : from - start,
          transposed,
        },
      ]
    })
  }

  /** The ranks' copies of a vector. */
  vectors({ parts, factor, layer }: VectorSpec): VectorPiece[] {
    return this.#layout.ranks.flatMap((rank, r) =>
      parts.flatMap(({ start, count, into, at }: VectorPart) => {
        const ptr = pointerOf(into, rank, layer)
        return ptr === undefined ? [] : [{ memory: rankMemory(r), ptr: ptr + at * 4, start, count, factor }]
      }),
    )
  }

  #cut(into: LogicalMatrix, layer: number | undefined): Cut {
    const { attention: a, intermediate, vocab } = this.#shape
    const whole = (n: number, pick: (shard: ShardLayout) => PackedMatrix) =>
      this.#shards((shard, s) => slotOf(s, pick(shard), cut(n, s), cut(n, s + 1)))
    const inLayer = (pick: (layer: ShardLayer) => PackedMatrix) => (shard: ShardLayout) => pick(layerOf(shard, layer))
    const ofHeads = (matrix: (layer: ShardLayer) => PackedMatrix, each: number) =>
      this.#shards((shard, s) => {
        const { start, end } = segmentHeads(a, s)
        return slotOf(s, matrix(layerOf(shard, layer)), start * each, end * each)
      })
    switch (into.name) {
      case 'queryA':
        return rows(
          whole(
            a.queryRank,
            inLayer((l) => l.queryA),
          ),
        )
      case 'queryB':
        return rows(ofHeads((l) => l.queryB, queryRows(a)))
      case 'outputGate':
        return rows(ofHeads((l) => l.outputGate, a.valueDim))
      case 'attentionOut':
        return columns(ofHeads((l) => l.attentionOut, a.valueDim))
      case 'gate':
        return rows(
          whole(
            intermediate,
            inLayer((l) => inBatch(l.gateUp, 0)),
          ),
        )
      case 'up':
        return rows(
          whole(
            intermediate,
            inLayer((l) => inBatch(l.gateUp, 1)),
          ),
        )
      case 'down':
        return columns(
          whole(
            intermediate,
            inLayer((l) => l.down),
          ),
        )
      case 'embedding':
        return rows(whole(vocab, (shard) => shard.embedding))
      case 'head': {
        // A tied head whose format cannot be gathered has a copy that can.
        const copy = this.#shape.tiedHead ? this.#layout.shards.filter(({ head, embedding }) => head !== embedding) : []
        return rows([...whole(vocab, (shard) => shard.head), ...(copy.length > 0 ? whole(vocab, (shard) => shard.embedding) : [])])
      }
      case 'stream':
        return rows([...this.#ownStream(into.stream, layer), ...this.#sharedStream(into.stream, layer)])
      case 'ropeKey':
        return rows(
          this.#layout.ranks.map((rank, r) => ({
            memory: rankMemory(r),
            matrix: rankLayerOf(rank, layer).shared,
            start: 0,
            end: a.sharedRopeDim,
            packedRow: sharedStreams(a, rank.shards).length * a.stream.width,
          })),
        )
      case 'coefficients':
        return rows(this.#coefficients(into.of === 'key' ? 0 : 1, into.factor, layer))
      case 'keyUp':
        return rows(this.#ofHead(into, (l) => l.keyUp, layer))
      case 'valueUp':
        return rows(this.#ofHead(into, (l) => l.valueUp, layer))
    }
  }

  #shards(of: (shard: ShardLayout, s: number) => Slot): Slot[] {
    return Array.from({ length: SHARDS }, (_, s) => of(this.#layout.shards[s] as ShardLayout, s))
  }

  #ownStream(stream: number, layer: number | undefined): Slot[] {
    const { attention: a } = this.#shape
    return this.#shards((shard, s) => {
      const index = ownStreams(a, s).indexOf(stream)
      return { ...slotOf(s, layerOf(shard, layer).streams, 0, index < 0 ? 0 : a.stream.width), packedRow: index * a.stream.width }
    })
  }

  /** In every rank that attends a stream which other shards attend as well. */
  #sharedStream(stream: number, layer: number | undefined): Slot[] {
    const { attention: a } = this.#shape
    return this.#layout.ranks.flatMap((rank, r) => {
      const index = sharedStreams(a, rank.shards).indexOf(stream)
      if (index < 0) return []
      const { width } = a.stream
      return [{ memory: rankMemory(r), matrix: rankLayerOf(rank, layer).shared, start: 0, end: width, packedRow: index * width }]
    })
  }

  /** By kind (keys, then values), then factor, then head. */
  #coefficients(kind: number, factor: number, layer: number | undefined): Slot[] {
    const { attention: a } = this.#shape
    const rank = a.factors?.rank ?? 0
    return this.#shards((shard, s) => {
      const { start, end } = shardHeads(a, s)
      return { ...slotOf(s, layerOf(shard, layer).coefficients, start, end), packedRow: (kind * rank + factor) * (end - start) }
    })
  }

  /** The shard whose unit attends the stream with the head has the head's matrix. */
  #ofHead({ stream, head }: { stream: number; head: number }, pick: (layer: ShardLayer) => PackedMatrix, layer: number | undefined): Slot[] {
    const { attention: a } = this.#shape
    return this.#shards((shard, s) => {
      const matrix = pick(layerOf(shard, layer))
      const attends = unitsOf(a, s).some((unit) => unit.stream === stream && head >= unit.headStart && head < unit.headEnd)
      return slotOf(s, inBatch(matrix, attends ? head - shardHeads(a, s).start : 0), 0, attends ? matrix.rows : 0)
    })
  }
}

const rows = (slots: readonly Slot[]): Cut => ({ axis: 'rows', slots })
const columns = (slots: readonly Slot[]): Cut => ({ axis: 'columns', slots })

function slotOf(shard: number, matrix: PackedMatrix, start: number, end: number): Slot {
  return { memory: shardMemory(shard), matrix, start, end, packedRow: 0 }
}

function layerOf(shard: ShardLayout, layer: number | undefined): ShardLayer {
  const found = shard.layers[layer ?? -1]
  if (!found) throw new RangeError(`layer ${layer} does not exist`)
  return found
}

function rankLayerOf(rank: RankLayout, layer: number | undefined): RankLayout['layers'][number] {
  const found = rank.layers[layer ?? -1]
  if (!found) throw new RangeError(`layer ${layer} does not exist`)
  return found
}

/** Undefined: the rank does not have the vector. */
function pointerOf(target: VectorTarget, rank: RankLayout, layer: number | undefined): number | undefined {
  if (target.vector === 'final') return rank.finalNorm
  const own = rankLayerOf(rank, layer)
  switch (target.vector) {
    case 'input':
      return own.inputNorm
    case 'mlp':
      return own.mlpNorm
    case 'query':
      return own.queryNorm
    case 'head':
      return own.headNorm
    case 'queryBias':
      return own.queryBias
    case 'stream':
      return own.streamNorms[rank.streams.findIndex((s) => s.stream === target.stream)]
    case 'streamBias':
      return own.streamBiases[rank.streams.findIndex((s) => s.stream === target.stream)]
  }
}
