// Where a tensor's elements lie in a file. Plain data: it crosses to the loader threads.
import type { FileIdentity } from './byte-reader.js'

/** 'u8': a packed matrix of a converted checkpoint. */
export type StoredType = 'f32' | 'f16' | 'bf16' | 'f64' | 'u8'

export const STORED_BYTES: Readonly<Record<StoredType, number>> = { f64: 8, f32: 4, f16: 2, bf16: 2, u8: 1 }

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
}

export function elements(shape: readonly number[]): number {
  return shape.reduce((n, d) => n * d, 1)
}
