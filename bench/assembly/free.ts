// A matrix-vector product as it is written when the order of sums is free: row-major bfloat16 weights, lanes and two accumulators are parts
// of one sum. Beside the library's kernel it shows what the fixed order costs.
import { madd } from '../../kernels/wasm/assembly/madd'

// @ts-ignore: decorator
@inline function sumOf(a: v128, b: v128): f32 {
  const v = f32x4.add(a, b)
  return f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1) + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3))
}

/** y[rows] = w x. w: [rows][k] bfloat16; rows a multiple of 4, k of 8. */
export function matvecFree(w: usize, rows: usize, k: usize, x: usize, y: usize): void {
  const high = i32x4.splat(0xffff0000)
  const bytes = k << 1
  for (let r: usize = 0; r < rows; r += 4, w += bytes << 2, y += 16) {
    let a0 = f32x4.splat(0), b0 = f32x4.splat(0), a1 = f32x4.splat(0), b1 = f32x4.splat(0)
    let a2 = f32x4.splat(0), b2 = f32x4.splat(0), a3 = f32x4.splat(0), b3 = f32x4.splat(0)
    let p = w, q = x
    const end = w + bytes
    // x holds even columns of a group of 8, then odd ones: a word's low half is even.
    for (; p < end; p += 16, q += 32) {
      const even = v128.load(q), odd = v128.load(q, 16)
      let r0 = p
      let v = v128.load(r0); a0 = madd(a0, i32x4.shl(v, 16), even); b0 = madd(b0, v128.and(v, high), odd)
      r0 += bytes; v = v128.load(r0); a1 = madd(a1, i32x4.shl(v, 16), even); b1 = madd(b1, v128.and(v, high), odd)
      r0 += bytes; v = v128.load(r0); a2 = madd(a2, i32x4.shl(v, 16), even); b2 = madd(b2, v128.and(v, high), odd)
      r0 += bytes; v = v128.load(r0); a3 = madd(a3, i32x4.shl(v, 16), even); b3 = madd(b3, v128.and(v, high), odd)
    }
    store<f32>(y, sumOf(a0, b0)); store<f32>(y, sumOf(a1, b1), 4); store<f32>(y, sumOf(a2, b2), 8); store<f32>(y, sumOf(a3, b3), 12)
  }
}
