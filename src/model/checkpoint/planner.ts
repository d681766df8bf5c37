// What a shard plan is made of: pieces of tensors and where they go, with every tensor checked as it is asked for.
import type { PackedMatrix } from '../../../kernels/packing.js'
import { type MatrixPiece, type MemoryName, SHARDS, type VectorPiece } from '../../../workers/protocol.js'
import { CheckpointError } from '../../errors.js'
import type { TensorSource } from './tensor-source.js'

/** One tensor's way into the memories. As [rows, cols]: cols is its last dimension, rows all others. */
export interface TensorPlan {
  readonly source: TensorSource
  readonly rows: number
  readonly cols: number
  readonly pieces: readonly MatrixPiece[]
  readonly vectors: readonly VectorPiece[]
}

export function eachShard(of: (s: number) => MatrixPiece[]): MatrixPiece[] {
  return Array.from({ length: SHARDS }, (_, s) => of(s)).flat()
}

export function shardMemory(index: number): MemoryName {
  return { kind: 'shard', index }
}

export function rankMemory(index: number): MemoryName {
  return { kind: 'rank', index }
}

/** A matrix that is whole rows of its tensor, from `row` on. */
export function rowsOf(memory: MemoryName, matrix: PackedMatrix, row: number): MatrixPiece {
  return piece(memory, matrix, { row, rows: matrix.rows, col: 0, cols: matrix.cols })
}

/** A matrix that is whole columns of its tensor, from `col` on. */
export function columnsOf(memory: MemoryName, matrix: PackedMatrix, col: number): MatrixPiece {
  return piece(memory, matrix, { row: 0, rows: matrix.rows, col, cols: matrix.cols })
}

/** A rectangle of a tensor as rows packedRow.. of a matrix. */
export function piece(
  memory: MemoryName,
  matrix: PackedMatrix,
  area: { row: number; rows: number; col: number; cols: number },
  packedRow = 0,
): MatrixPiece {
  return { memory, ptr: matrix.ptr, format: matrix.format, packedCols: matrix.cols, ...area, packedRow, packedCol: 0, transposed: false }
}

/** Where a plan's tensors come from. */
export interface TensorFinder {
  has(name: string): boolean
  /** Throws if there is no such tensor of that shape. */
  find(name: string, shape: readonly number[]): TensorSource
}

export class Planner {
  readonly #finder: TensorFinder
  readonly plans: TensorPlan[] = []

  constructor(finder: TensorFinder) {
    this.#finder = finder
  }

  matrix(name: string, shape: readonly number[], pieces: readonly MatrixPiece[]): void {
    const source = this.#finder.find(name, shape)
    const cols = shape.at(-1) as number
    const rows = shape.slice(0, -1).reduce((n, d) => n * d, 1)
    const taken = pieces.filter((p) => p.rows > 0 && p.cols > 0)
    if (shape.length === 2 && source.strides?.[0] === 1 && source.strides[1] === rows) {
      // A transposed view of a contiguous matrix: read that one, and turn the pieces instead.
      const { strides: _, ...contiguous } = source
      const turned = taken.map((p) => ({ ...p, row: p.col, rows: p.cols, col: p.row, cols: p.rows, transposed: !p.transposed }))
      this.plans.push({ source: contiguous, rows: cols, cols: rows, pieces: turned, vectors: [] })
      return
    }
    this.plans.push({ source, rows, cols, pieces: taken, vectors: [] })
  }

  vector(name: string, n: number, vectors: readonly VectorPiece[]): void {
    this.plans.push({ source: this.#finder.find(name, [n]), rows: 1, cols: n, pieces: [], vectors })
  }

  /** A tensor that must be right but is not loaded. */
  skip(name: string, shape: readonly number[]): void {
    this.#finder.find(name, shape)
  }
}

/** The tensors of a checkpoint, each of which must be asked for. */
export class CheckpointTensors implements TensorFinder {
  readonly #tensors: ReadonlyMap<string, TensorSource>
  readonly #used = new Set<string>()

  constructor(tensors: ReadonlyMap<string, TensorSource>) {
    this.#tensors = tensors
  }

  has(name: string): boolean {
    return this.#tensors.has(name)
  }

  /** Throws TENSOR_SURPLUS if a tensor was never asked for. */
  checkSurplus(): void {
    const surplus = [...this.#tensors.keys()].filter((name) => !this.#used.has(name))
    if (surplus.length === 0) return
    throw new CheckpointError('TENSOR_SURPLUS', {
      what: `the checkpoint has ${surplus.length} tensors that its variant does not, among them ${surplus[0]}`,
      expected: `${this.#used.size} tensors`,
      actual: `${this.#tensors.size}`,
      remedy: 'Check that config.json belongs to these weights.',
    })
  }

  find(name: string, shape: readonly number[], dtype?: TensorSource['dtype']): TensorSource {
    const source = this.#tensors.get(name)
    if (!source) {
      throw new CheckpointError('TENSOR_MISSING', {
        what: `the checkpoint has no ${name}`,
        expected: `a tensor [${shape.join(', ')}]`,
        remedy: 'Check that all shards of the checkpoint are there and config.json belongs to them.',
      })
    }
    if (source.shape.join() !== shape.join()) {
      throw new CheckpointError('TENSOR_SHAPE', {
        what: `${name} has another shape than config.json says`,
        expected: `[${shape.join(', ')}]`,
        actual: `[${source.shape.join(', ')}]`,
        remedy: 'Check that config.json belongs to these weights.',
      })
    }
    if ((source.dtype === 'u8') !== (dtype === 'u8')) {
      throw new CheckpointError('TENSOR_DTYPE', {
        what: `${name} has the type ${source.dtype}`,
        expected: dtype ?? 'a floating-point type',
        actual: source.dtype,
        remedy: 'Convert the original checkpoint again.',
      })
    }
    this.#used.add(name)
    return source
  }
}
