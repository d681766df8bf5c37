// Where a tensor's elements lie in a file. Plain data: it crosses to the loader threads.

export type StoredType = 'f32' | 'f16' | 'bf16'

export const STORED_BYTES: Readonly<Record<StoredType, number>> = { f32: 4, f16: 2, bf16: 2 }

export interface TensorSource {
  readonly name: string
  readonly path: string
  /** Byte offset of the first element. */
  readonly offset: number
  readonly dtype: StoredType
  /** Row-major and contiguous. */
  readonly shape: readonly number[]
}

export function elements(shape: readonly number[]): number {
  return shape.reduce((n, d) => n * d, 1)
}
