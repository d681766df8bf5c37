// What this machine gives a WebAssembly thread: reading memory, and multiplying in registers. Floors for the benchmarks.
import { madd } from '../../kernels/wasm/assembly/madd'
export { matvecFree } from './free'

/** Reads `bytes` (a multiple of 64) and returns their sum as integers, so that no load is dropped. */
export function read(p: usize, bytes: usize): i32 {
  let a = i32x4.splat(0), b = i32x4.splat(0), c = i32x4.splat(0), d = i32x4.splat(0)
  const end = p + bytes
  for (; p < end; p += 64) {
    a = i32x4.add(a, v128.load(p)); b = i32x4.add(b, v128.load(p, 16))
    c = i32x4.add(c, v128.load(p, 32)); d = i32x4.add(d, v128.load(p, 48))
  }
  a = i32x4.add(i32x4.add(a, b), i32x4.add(c, d))
  return i32x4.extract_lane(a, 0) + i32x4.extract_lane(a, 1) + i32x4.extract_lane(a, 2) + i32x4.extract_lane(a, 3)
}

/** `n` rounds of 12 independent multiply-adds of 4 lanes: 96 floating-point operations a round, no memory. */
export function multiply(n: i32): f32 {
  const x = f32x4.splat(0.999), y = f32x4.splat(0.001)
  let a = x, b = x, c = x, d = x, e = x, f = x, g = x, h = x, i = x, j = x, k = x, l = x
  for (let r = 0; r < n; r++) {
    a = madd(y, a, x); b = madd(y, b, x); c = madd(y, c, x); d = madd(y, d, x); e = madd(y, e, x); f = madd(y, f, x)
    g = madd(y, g, x); h = madd(y, h, x); i = madd(y, i, x); j = madd(y, j, x); k = madd(y, k, x); l = madd(y, l, x)
  }
  a = f32x4.add(f32x4.add(f32x4.add(a, b), f32x4.add(c, d)), f32x4.add(f32x4.add(e, f), f32x4.add(g, h)))
  a = f32x4.add(a, f32x4.add(f32x4.add(i, j), f32x4.add(k, l)))
  return f32x4.extract_lane(a, 0)
}
