// What translated kernels call: memory with checked bounds, and WGSL's functions. Scalars are JavaScript numbers, float32 ones rounded
// after every operation; vectors are arrays that nobody changes while two names share them.
import { f16FromF32Bits, f32BitsFromF16 } from '../../../kernels/float-formats.js'
import { SIDE } from './types.js'

/** A buffer, or an array in workgroup memory. */
export class Memory {
  readonly name: string
  readonly bytes: number
  readonly u32: Uint32Array
  readonly i32: Int32Array
  readonly f32: Float32Array
  readonly u16: Uint16Array

  constructor(name: string, { buffer, byteOffset, byteLength }: Pick<Uint8Array, 'buffer' | 'byteOffset' | 'byteLength'>) {
    this.name = name
    this.bytes = byteLength
    this.u32 = new Uint32Array(buffer, byteOffset, byteLength / 4)
    this.i32 = new Int32Array(buffer, byteOffset, byteLength / 4)
    this.f32 = new Float32Array(buffer, byteOffset, byteLength / 4)
    this.u16 = new Uint16Array(buffer, byteOffset, byteLength / 2)
  }
}

/** A subgroup matrix: 16 x 16, row by row. */
export type Matrix = Float32Array

const bitsOf = new DataView(new ArrayBuffer(4))
const half = (value: number) => {
  bitsOf.setFloat32(0, value)
  return f16FromF32Bits(bitsOf.getUint32(0))
}
const single = (halfBits: number) => {
  bitsOf.setUint32(0, f32BitsFromF16(halfBits))
  return bitsOf.getFloat32(0)
}

/** Booleans count as numbers. */
type Value = number | readonly number[]
/** Applies to scalars, and to vectors element by element; a scalar beside a vector stands for all of its elements. */
function map(f: (...scalars: number[]) => number, ...values: Value[]): Value {
  const width = values.find((v) => typeof v === 'object') as readonly number[] | undefined
  if (!width) return f(...(values as number[]))
  return width.map((_, i) => f(...values.map((v) => (typeof v === 'object' ? (v[i] as number) : v))))
}

const { fround, imul } = Math

/** By type and operator. */
export const OPERATORS: Readonly<Record<string, (a: number, b: number) => number | boolean>> = {
  'f32+': (a, b) => fround(a + b),
  'f32-': (a, b) => fround(a - b),
  'f32*': (a, b) => fround(a * b),
  'f32/': (a, b) => fround(a / b),
  'f32%': (a, b) => fround(a % b),
  'u32+': (a, b) => (a + b) >>> 0,
  'u32-': (a, b) => (a - b) >>> 0,
  'u32*': (a, b) => imul(a, b) >>> 0,
  'u32/': (a, b) => (b === 0 ? a : Math.floor(a / b)),
  'u32%': (a, b) => (b === 0 ? 0 : a % b),
  'u32&': (a, b) => (a & b) >>> 0,
  'u32|': (a, b) => (a | b) >>> 0,
  'u32^': (a, b) => (a ^ b) >>> 0,
  'u32<<': (a, b) => (a << b) >>> 0,
  'u32>>': (a, b) => a >>> b,
  'i32+': (a, b) => (a + b) | 0,
  'i32-': (a, b) => (a - b) | 0,
  'i32*': (a, b) => imul(a, b),
  'i32/': (a, b) => (b === 0 ? a : Math.trunc(a / b)),
  'i32%': (a, b) => (b === 0 ? 0 : a % b),
  'i32&': (a, b) => a & b,
  'i32|': (a, b) => a | b,
  'i32^': (a, b) => a ^ b,
  'i32<<': (a, b) => a << b,
  'i32>>': (a, b) => a >> b,
  '==': (a, b) => a === b,
  '!=': (a, b) => a !== b,
  '<': (a, b) => a < b,
  '>': (a, b) => a > b,
  '<=': (a, b) => a <= b,
  '>=': (a, b) => a >= b,
}

const signed = (byte: number) => (byte << 24) >> 24

/** WGSL's functions by name; those whose result's type depends on their arguments' take scalars and vectors. */
export const FUNCTIONS = {
  min: (a: Value, b: Value) => map(Math.min, a, b),
  max: (a: Value, b: Value) => map(Math.max, a, b),
  abs: (a: Value) => map(Math.abs, a),
  floor: (a: Value) => map(Math.floor, a),
  round: (a: Value) => map((x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)), a),
  sqrt: (a: Value) => map((x) => fround(Math.sqrt(x)), a),
  inverseSqrt: (a: Value) => map((x) => fround(1 / Math.sqrt(x)), a),
  exp: (a: Value) => map((x) => fround(Math.exp(x)), a),
  exp2: (a: Value) => map((x) => fround(2 ** x), a),
  clamp: (a: Value, low: Value, high: Value) => map((x, l, h) => Math.min(Math.max(x, l), h), a, low, high),
  // One rounding: the product of two float32 is exact in float64; the sum may round twice, in the last of 53 bits.
  fma: (a: Value, b: Value, c: Value) => map((x, y, z) => fround(x * y + z), a, b, c),
  dot: (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, i) => fround(sum + fround(x * (b[i] as number))), 0),
  pack2x16float: (v: readonly number[]) => (half(v[0] as number) | (half(v[1] as number) << 16)) >>> 0,
  unpack2x16float: (word: number) => [single(word & 0xffff), single(word >>> 16)],
  unpack4xI8: (word: number) => [signed(word), signed(word >> 8), signed(word >> 16), signed(word >> 24)],
} as const

export const HELPERS = {
  map,
  /** The place of an element in an array of so many. */
  at(index: number, count: number, name: string): number {
    if (!(index < count)) throw new RangeError(`index ${index} of ${name}, which has ${count} elements`)
    return index
  },
  toU32: (v: Value) => map((x) => (x < 0 ? Math.trunc(x) >>> 0 : Math.min(Math.trunc(Number(x)), 0xffffffff)), v),
  toI32: (v: Value) => map((x) => (x > 0x7fffffff ? x | 0 : Math.trunc(Number(x))), v),
  toF32: (v: Value) => map((x) => fround(Number(x)), v),
  bits(to: 'u32' | 'i32' | 'f32', from: string, v: Value): Value {
    return map((x) => {
      if (from === 'f32') bitsOf.setFloat32(0, x)
      else bitsOf.setUint32(0, x)
      return to === 'f32' ? bitsOf.getFloat32(0) : to === 'u32' ? bitsOf.getUint32(0) : bitsOf.getInt32(0)
    }, v)
  },
  zeros: (): Matrix => new Float32Array(SIDE * SIDE),
  /** offset and stride in bytes, checked here. */
  loadMatrix(memory: Memory, component: 'f16' | 'f32', offset: number, stride: number, columnMajor: boolean): Matrix {
    const size = component === 'f16' ? 2 : 4
    HELPERS.at(offset + (SIDE - 1) * stride + SIDE * size - 1, memory.bytes, `the bytes of ${memory.name}`)
    const matrix = new Float32Array(SIDE * SIDE)
    for (let i = 0; i < SIDE; i++) {
      for (let j = 0; j < SIDE; j++) {
        const place = (offset + i * stride) / size + j
        matrix[columnMajor ? j * SIDE + i : i * SIDE + j] = component === 'f16' ? single(memory.u16[place] as number) : (memory.f32[place] as number)
      }
    }
    return matrix
  },
  storeMatrix(memory: Memory, matrix: Matrix, offset: number, stride: number, columnMajor: boolean): void {
    HELPERS.at(offset + (SIDE - 1) * stride + SIDE * 4 - 1, memory.bytes, `the bytes of ${memory.name}`)
    for (let i = 0; i < SIDE; i++)
      for (let j = 0; j < SIDE; j++) memory.f32[(offset + i * stride) / 4 + j] = matrix[columnMajor ? j * SIDE + i : i * SIDE + j] as number
  },
  /** left x right + sum, each sum over k in float64 and rounded once: hardware has orders of its own. */
  multiply(left: Matrix, right: Matrix, sum: Matrix): Matrix {
    const out = new Float32Array(SIDE * SIDE)
    for (let i = 0; i < SIDE; i++) {
      for (let j = 0; j < SIDE; j++) {
        let total = sum[i * SIDE + j] as number
        for (let k = 0; k < SIDE; k++) total += (left[i * SIDE + k] as number) * (right[k * SIDE + j] as number)
        out[i * SIDE + j] = total
      }
    }
    return out
  },
} as const
