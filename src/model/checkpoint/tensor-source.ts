// Where a tensor's elements lie in a file. Plain data: it crosses to the loader threads.
import { STORED_BYTES, type StoredType } from '../../../workers/protocol.js'
import type { FileIdentity } from './byte-reader.js'

export { STORED_BYTES, type StoredType }

export interface TensorSource {
  readonly name: string
  readonly path: string
  readonly file: FileIdentity
  /** Byte offset of the first element. */
  readonly offset: number
  readonly dtype: StoredType
  readonly shape: readonly number[]
  /** Elements from one index to the next, by dimension; undefined when row-major and contiguous. */
  readonly strides?: readonly number[]
  /** Dimensions that the strides are of, where a dimension of `shape` is several in the file. Row-major it has the elements of `shape`. */
  readonly stridedShape?: readonly number[]
}

export function elements(shape: readonly number[]): number {
  return shape.reduce((n, d) => n * d, 1)
}
