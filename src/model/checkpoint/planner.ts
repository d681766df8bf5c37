// What a shard plan is made of, and the tensors of a checkpoint, each checked as it is asked for.
import type { MatrixPiece, MemoryName, VectorPiece } from '../../../workers/protocol.js'
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

export function shardMemory(index: number): MemoryName {
  return { kind: 'shard', index }
}

export function rankMemory(index: number): MemoryName {
  return { kind: 'rank', index }
}

/** Where a plan's tensors come from. */
export interface TensorFinder {
  has(name: string): boolean
  /** Throws if there is no such tensor of that shape. */
  find(name: string, shape: readonly number[]): TensorSource
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
