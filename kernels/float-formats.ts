// bfloat16 and float16 as bits. Both widen to float32 exactly; narrowing rounds to nearest, ties to even.

/** float32 bits -> bfloat16 bits. A NaN stays a NaN. */
export function bf16FromF32Bits(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff
}

/** float32 bits -> float16 bits. Values above the largest float16 become infinite. */
export function f16FromF32Bits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000
  const magnitude = bits & 0x7fffffff
  if (magnitude > 0x7f800000) return sign | 0x7e00
  if (magnitude >= 0x47800000) return sign | 0x7c00
  const exponent = (magnitude >>> 23) - 112
  const significand = (magnitude & 0x7fffff) | 0x800000
  // Below the smallest normal number fewer bits are kept.
  const drop = exponent > 0 ? 13 : 14 - exponent
  if (drop > 24) return sign
  const half = exponent > 0 ? (exponent << 10) + ((significand >>> 13) & 0x3ff) : significand >>> drop
  const rest = significand & ((1 << drop) - 1)
  const middle = 1 << (drop - 1)
  return sign | (half + (rest > middle || (rest === middle && (half & 1) === 1) ? 1 : 0))
}

/** float16 bits -> float32 bits. */
export function f32BitsFromF16(half: number): number {
  const sign = (half & 0x8000) << 16
  const exponent = (half >>> 10) & 0x1f
  const fraction = half & 0x3ff
  if (exponent === 0x1f) return sign | 0x7f800000 | (fraction << 13)
  if (exponent !== 0) return sign | ((exponent + 112) << 23) | (fraction << 13)
  if (fraction === 0) return sign
  const shift = Math.clz32(fraction) - 21
  return sign | ((113 - shift) << 23) | (((fraction << shift) & 0x3ff) << 13)
}

const bits = new Uint32Array(1)
const value = new Float32Array(bits.buffer)

/** The float nearest to x among bfloat16 values (through float32). */
export function roundToBf16(x: number): number {
  value[0] = x
  bits[0] = bf16FromF32Bits(bits[0] as number) << 16
  return value[0]
}

/** The same of float16. */
export function roundToF16(x: number): number {
  value[0] = x
  bits[0] = f32BitsFromF16(f16FromF32Bits(bits[0] as number))
  return value[0]
}

/** The nearest integer, ties to even. */
export function roundHalfEven(v: number): number {
  const r = Math.round(v)
  return r - v === 0.5 && r % 2 !== 0 ? r - 1 : r
}
