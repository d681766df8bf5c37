// Values that a pickle can make, and what is said of one that is damaged.
import { CheckpointError } from '../../errors.js'

/** A tensor as the pickle describes it; sizes in elements. */
export interface PickledTensor {
  readonly kind: 'tensor'
  readonly storage: PickledStorage
  readonly offset: number
  readonly shape: readonly number[]
  readonly strides: readonly number[]
}

export interface PickledStorage {
  readonly kind: 'storage'
  /** As in torch: FloatStorage, BFloat16Storage, ... */
  readonly type: string
  /** Name of the zip entry below data/. */
  readonly key: string
  readonly elements: number
}

export interface Callable {
  readonly kind: 'global'
  readonly name: string
}

/** A value that is looked at no further: a numpy scalar, a set, bytes. */
export interface Opaque {
  readonly kind: 'opaque'
  readonly type: string
}

export type Value = undefined | boolean | number | string | Value[] | Map<Value, Value> | PickledTensor | PickledStorage | Callable | Opaque

type Kind = Extract<Value, { kind: string }>['kind']

export function isKind<K extends Kind>(value: Value, kind: K): value is Extract<Value, { kind: K }> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Map) && value.kind === kind
}

export function isTensor(value: unknown): value is PickledTensor {
  return typeof value === 'object' && value !== null && (value as { kind?: unknown }).kind === 'tensor'
}

/** A value as a message names it. */
export function describe(value: unknown): string {
  if (value === undefined) return 'None'
  if (Array.isArray(value)) return 'a list'
  if (value instanceof Map) return 'a dict'
  if (typeof value === 'object' && value !== null) return 'type' in value ? String(value.type) : 'an object'
  return typeof value
}

export function damaged(path: string, what: string, expected: string, cause?: unknown): CheckpointError {
  return new CheckpointError('CHECKPOINT_INVALID', {
    what: `${path}: ${what}`,
    expected,
    remedy: 'Save the state dict again with torch.save, or fetch the file again.',
    cause,
  })
}
