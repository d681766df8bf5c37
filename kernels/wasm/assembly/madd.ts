// Multiply-add of this build: one rounding with relaxed SIMD, two without. Every kernel's dot products and weighted
// sums go through it, in all of their paths, so that one build has one result.

// @ts-ignore: decorator
@inline export function madd(acc: v128, a: v128, b: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, acc)
  return f32x4.add(acc, f32x4.mul(a, b))
}

/** Whether madd rounds once: (1 + 2^-12)^2 - (1 + 2^-11) is 2^-24, or 0 when the product is rounded. */
export function fusesMultiplyAdd(): bool {
  const a = f32x4.splat(1.000244140625)
  return f32x4.extract_lane(madd(f32x4.splat(-1.00048828125), a, a), 0) != 0
}
