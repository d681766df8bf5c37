// Attention over a part of a row's cached tokens, and the parts of four shards made one.
import { exp4 } from './math'

// @ts-ignore: decorator
@inline function weigh(max: f32, sum: f32, largest: f32): f32 {
  return sum == 0 ? 0 : f32x4.extract_lane(exp4(f32x4.splat(max - largest)), 0)
}

// @ts-ignore: decorator
@inline function larger(max: f32, sum: f32, largest: f32): f32 {
  return sum == 0 ? largest : max > largest ? max : largest
}

/**
 * dst[t][h] = (((w0 z0 + w1 z1) + w2 z2) + w3 z3) / (((w0 s0 + w1 s1) + w2 s2) + w3 s3), wi = exp(mi - largest m); a shard whose sum is 0
 * has no cached tokens of the row, and weighs 0. a to d: each shard's z, [tokens] rows of [heads][width]; toMax, toSum: bytes from a row of
 * z to the row's [heads] maxima and sums. width a multiple of 4.
 */
export function combinePartials(
  dst: usize, dstStride: usize, a: usize, b: usize, c: usize, d: usize, srcStride: usize, toMax: usize, toSum: usize,
  heads: usize, width: usize, tokens: i32,
): void {
  for (let t = 0; t < tokens; t++) {
    let at: usize = 0
    for (let h: usize = 0; h < heads; h++) {
      const m = toMax + (h << 2), s = toSum + (h << 2)
      const m0 = load<f32>(a + m), m1 = load<f32>(b + m), m2 = load<f32>(c + m), m3 = load<f32>(d + m)
      const s0 = load<f32>(a + s), s1 = load<f32>(b + s), s2 = load<f32>(c + s), s3 = load<f32>(d + s)
      const largest = larger(m3, s3, larger(m2, s2, larger(m1, s1, larger(m0, s0, -3.4028234663852886e38))))
      const w0 = weigh(m0, s0, largest), w1 = weigh(m1, s1, largest), w2 = weigh(m2, s2, largest), w3 = weigh(m3, s3, largest)
      const sum = f32x4.splat(((w0 * s0 + w1 * s1) + w2 * s2) + w3 * s3)
      const v0 = f32x4.splat(w0), v1 = f32x4.splat(w1), v2 = f32x4.splat(w2), v3 = f32x4.splat(w3)
      for (let i: usize = 0; i < width; i += 4) {
        let z = f32x4.mul(v128.load(a + at), v0)
        z = f32x4.add(z, f32x4.mul(v128.load(b + at), v1))
        z = f32x4.add(z, f32x4.mul(v128.load(c + at), v2))
        z = f32x4.add(z, f32x4.mul(v128.load(d + at), v3))
        v128.store(dst + at, f32x4.div(z, sum))
        at += 16
      }
    }
    a += srcStride; b += srcStride; c += srcStride; d += srcStride; dst += dstStride
  }
}
