// Packs int4 weights at load; int4.ts draws the block. packElements of kernels/int4-weights.ts does the same in JavaScript, for rows that
// do not fill a tile: both compute in float64, in one order.
import { nonFinite16 } from './packing'

/** Index of the first of n int4 blocks with a scale that is not finite, or -1. */
export function nonFiniteScalesInt4(p: usize, n: i32): i32 {
  for (let i = 0; i < n; i++) if (nonFinite16(p + <usize>i * 288 + 256, 16, 0x7c00) >= 0) return i
  return -1
}

/** float16 from float32, to nearest, ties to even; infinite above the largest, and for a NaN. */
function float16(v: f32): u32 {
  const u = reinterpret<u32>(v)
  const sign = (u >> 16) & 0x8000
  const magnitude = u & 0x7fffffff
  if (magnitude >= 0x47800000) return sign | 0x7c00
  if (magnitude >= 0x38800000) return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13)
  return sign | <u32>nearest<f32>(abs<f32>(v) * 16777216)
}

/** float32 from a finite float16. */
export function widenHalf(h: u32): f32 {
  return reinterpret<f32>(((h & 0x8000) << 16) | reinterpret<u32>(reinterpret<f32>((h & 0x7fff) << 13) * <f32>5.192296858534828e33))
}

/** Whole tiles of 16 packed rows of float32 to int4 blocks [tiles][ceil(cols / 32)]. Element (row, col) lies at src + row * rowStep + col * colStep. */
export function quantizeTilesInt4(src: usize, rowStep: usize, colStep: usize, tiles: usize, cols: usize, dst: usize): void {
  const blocks = (cols + 31) >> 5
  for (let tile: usize = 0; tile < tiles; tile++) {
    for (let b: usize = 0; b < blocks; b++, dst += 288) {
      const n = min<usize>(32, cols - (b << 5))
      memory.fill(dst, 0, 256)
      for (let r: usize = 0; r < 16; r++) {
        const p = src + ((tile << 4) + r) * rowStep + (b << 5) * colStep
        let largest: f32 = 0
        for (let i: usize = 0, q = p; i < n; i++, q += colStep) {
          const v = load<f32>(q)
          if (abs<f32>(v) > abs<f32>(largest) || v != v) largest = v
        }
        const scale = float16(-largest / 8)
        const d = <f64>widenHalf(scale)
        const inverse: f64 = d == 0 ? 0 : 1 / d
        const out = dst + ((r >> 2) << 4) + ((r & 3) << 2)
        for (let i: usize = 0, q = p; i < n; i++, q += colStep) {
          const v = <u8>(<i32>min<f64>(7, max<f64>(-8, nearest<f64>(<f64>load<f32>(q) * inverse))) + 8)
          const at = out + (((i >> 2) & 3) << 6) + (i & 3)
          store<u8>(at, load<u8>(at) | (i < 16 ? v : v << 4))
        }
        store<u16>(dst + 256 + (r << 1), <u16>scale)
      }
    }
  }
}
