// Packs weights at load: row-major blocks of a checkpoint to the tiles that the kernels read. The layouts are described in
// matmul.ts and int8.ts; the records of kernels/weight-formats.ts pack single elements in JavaScript, for rows that do not fill a tile.

/** Index of the first of n 16-bit values whose exponent (the bits of mask) is all ones, or -1. */
export function nonFinite16(p: usize, n: i32, mask: i32): i32 {
  const m = i16x8.splat(<i16>mask)
  let i = 0
  for (; i + 8 <= n; i += 8) {
    if (v128.any_true(i16x8.eq(v128.and(v128.load(p + (<usize>i << 1)), m), m))) break
  }
  for (; i < n; i++) if ((<i32>load<u16>(p + (<usize>i << 1)) & mask) == mask) return i
  return -1
}

/** The same for float32. */
export function nonFinite32(p: usize, n: i32): i32 {
  const m = i32x4.splat(0x7f800000)
  let i = 0
  for (; i + 4 <= n; i += 4) {
    if (v128.any_true(i32x4.eq(v128.and(v128.load(p + (<usize>i << 2)), m), m))) break
  }
  for (; i < n; i++) if ((load<u32>(p + (<usize>i << 2)) & 0x7f800000) == 0x7f800000) return i
  return -1
}

/** Index of the first of n int8 blocks with a scale that is not finite, or -1. */
export function nonFiniteScales(p: usize, n: i32): i32 {
  for (let i = 0; i < n; i++) if (nonFinite32(p + <usize>i * 608 + 512, 16) >= 0) return i
  return -1
}

/** float32 from n bfloat16 values. dst has room for n rounded up to 8; src is read as far. */
export function widenBf16(src: usize, dst: usize, n: usize): void {
  for (let i: usize = 0; i < n; i += 8) {
    const v = v128.load(src + (i << 1))
    v128.store(dst + (i << 2), i32x4.shl(i32x4.extend_low_i16x8_u(v), 16))
    v128.store(dst + (i << 2), i32x4.shl(i32x4.extend_high_i16x8_u(v), 16), 16)
  }
}

/** float32 from n finite float16 values: the exponent is moved by an exact multiplication, which subnormal ones need. */
export function widenF16(src: usize, dst: usize, n: usize): void {
  const sign = i32x4.splat(0x8000), rest = i32x4.splat(0x7fff), up = f32x4.splat(5.192296858534828e33)
  for (let i: usize = 0; i < n; i += 4) {
    const v = v128.load16x4_u(src + (i << 1))
    const magnitude = f32x4.mul(i32x4.shl(v128.and(v, rest), 13), up)
    v128.store(dst + (i << 2), v128.or(magnitude, i32x4.shl(v128.and(v, sign), 16)))
  }
}

/** bfloat16 from n finite float32 values, to nearest, ties to even. src is read and dst written up to n rounded up to 4. */
export function narrowBf16(src: usize, dst: usize, n: usize): void {
  const half = i32x4.splat(0x7fff), one = i32x4.splat(1)
  for (let i: usize = 0; i < n; i += 4) {
    const v = v128.load(src + (i << 2))
    const r = i32x4.shr_u(i32x4.add(v, i32x4.add(half, v128.and(i32x4.shr_u(v, 16), one))), 16)
    v128.store64_lane(dst + (i << 1), i16x8.narrow_i32x4_u(r, r), 0)
  }
}

/** 8 rows x 8 columns of 16-bit values to 8 columns of 8 rows, rows in the order 0 4 1 5 2 6 3 7. dst: columns 64 bytes apart. */
// @ts-ignore: decorator
@inline function transpose8(src: usize, stride: usize, dst: usize): void {
  const r0 = v128.load(src), r4 = v128.load(src + 4 * stride)
  const r1 = v128.load(src + stride), r5 = v128.load(src + 5 * stride)
  const r2 = v128.load(src + 2 * stride), r6 = v128.load(src + 6 * stride)
  const r3 = v128.load(src + 3 * stride), r7 = v128.load(src + 7 * stride)
  const a0 = i16x8.shuffle(r0, r4, 0, 8, 1, 9, 2, 10, 3, 11), a1 = i16x8.shuffle(r0, r4, 4, 12, 5, 13, 6, 14, 7, 15)
  const b0 = i16x8.shuffle(r1, r5, 0, 8, 1, 9, 2, 10, 3, 11), b1 = i16x8.shuffle(r1, r5, 4, 12, 5, 13, 6, 14, 7, 15)
  const c0 = i16x8.shuffle(r2, r6, 0, 8, 1, 9, 2, 10, 3, 11), c1 = i16x8.shuffle(r2, r6, 4, 12, 5, 13, 6, 14, 7, 15)
  const d0 = i16x8.shuffle(r3, r7, 0, 8, 1, 9, 2, 10, 3, 11), d1 = i16x8.shuffle(r3, r7, 4, 12, 5, 13, 6, 14, 7, 15)
  const e0 = i32x4.shuffle(a0, b0, 0, 4, 1, 5), e1 = i32x4.shuffle(a0, b0, 2, 6, 3, 7)
  const f0 = i32x4.shuffle(c0, d0, 0, 4, 1, 5), f1 = i32x4.shuffle(c0, d0, 2, 6, 3, 7)
  const g0 = i32x4.shuffle(a1, b1, 0, 4, 1, 5), g1 = i32x4.shuffle(a1, b1, 2, 6, 3, 7)
  const h0 = i32x4.shuffle(c1, d1, 0, 4, 1, 5), h1 = i32x4.shuffle(c1, d1, 2, 6, 3, 7)
  v128.store(dst, i64x2.shuffle(e0, f0, 0, 2)); v128.store(dst, i64x2.shuffle(e0, f0, 1, 3), 64)
  v128.store(dst, i64x2.shuffle(e1, f1, 0, 2), 128); v128.store(dst, i64x2.shuffle(e1, f1, 1, 3), 192)
  v128.store(dst, i64x2.shuffle(g0, h0, 0, 2), 256); v128.store(dst, i64x2.shuffle(g0, h0, 1, 3), 320)
  v128.store(dst, i64x2.shuffle(g1, h1, 0, 2), 384); v128.store(dst, i64x2.shuffle(g1, h1, 1, 3), 448)
}

/** Whole tiles of 32 rows of bfloat16, rows `stride` bytes apart, to [tiles][cols][32]. */
export function packTiles16(src: usize, stride: usize, tiles: usize, cols: usize, dst: usize): void {
  for (let tile: usize = 0; tile < tiles; tile++) {
    for (let j: usize = 0; j < 4; j++) {
      const rows = src + ((tile << 5) + (j << 3)) * stride
      const out = dst + tile * (cols << 6) + (j << 4)
      let c: usize = 0
      for (; c + 8 <= cols; c += 8) transpose8(rows + (c << 1), stride, out + (c << 6))
      for (; c < cols; c++) {
        for (let r: usize = 0; r < 8; r++)
          store<u16>(out + (c << 6) + ((r & 3) << 2) + ((r >> 2) << 1), load<u16>(rows + r * stride + (c << 1)))
      }
    }
  }
}

/** The same of float32: 128 bytes a column, rows in order. */
export function packTiles32(src: usize, stride: usize, tiles: usize, cols: usize, dst: usize): void {
  for (let tile: usize = 0; tile < tiles; tile++) {
    for (let j: usize = 0; j < 8; j++) {
      const rows = src + ((tile << 5) + (j << 2)) * stride
      const out = dst + tile * (cols << 7) + (j << 4)
      let c: usize = 0
      for (; c + 4 <= cols; c += 4) {
        const p = rows + (c << 2), q = out + (c << 7)
        const r0 = v128.load(p), r1 = v128.load(p + stride), r2 = v128.load(p + 2 * stride), r3 = v128.load(p + 3 * stride)
        const a = i32x4.shuffle(r0, r1, 0, 4, 1, 5), b = i32x4.shuffle(r0, r1, 2, 6, 3, 7)
        const d = i32x4.shuffle(r2, r3, 0, 4, 1, 5), e = i32x4.shuffle(r2, r3, 2, 6, 3, 7)
        v128.store(q, i64x2.shuffle(a, d, 0, 2)); v128.store(q, i64x2.shuffle(a, d, 1, 3), 128)
        v128.store(q, i64x2.shuffle(b, e, 0, 2), 256); v128.store(q, i64x2.shuffle(b, e, 1, 3), 384)
      }
      for (; c < cols; c++) for (let r: usize = 0; r < 4; r++) store<u32>(out + (c << 7) + (r << 2), load<u32>(rows + r * stride + (c << 2)))
    }
  }
}

/** Source columns become packed rows: whole tiles of 32 columns of `rows` source rows to [tiles][rows][32]. bfloat16. */
export function packColumns16(src: usize, stride: usize, tiles: usize, rows: usize, dst: usize): void {
  for (let tile: usize = 0; tile < tiles; tile++) {
    let p = src + (tile << 6)
    for (let r: usize = 0; r < rows; r++, p += stride, dst += 64) {
      for (let j: usize = 0; j < 64; j += 16) {
        const v = v128.load(p + j)
        v128.store(dst + j, i16x8.shuffle(v, v, 0, 4, 1, 5, 2, 6, 3, 7))
      }
    }
  }
}

/** The same of float32. */
export function packColumns32(src: usize, stride: usize, tiles: usize, rows: usize, dst: usize): void {
  for (let tile: usize = 0; tile < tiles; tile++) {
    let p = src + (tile << 7)
    for (let r: usize = 0; r < rows; r++, p += stride, dst += 128) memory.copy(dst, p, 128)
  }
}

/**
 * Whole tiles of 16 packed rows of float32 to int8 blocks [tiles][ceil(cols / 32)]. Element (row, col) lies at
 * src + row * rowStep + col * colStep. Scales and integers as packElements of kernels/int8-weights.ts computes them, in float64.
 */
export function quantizeTiles(src: usize, rowStep: usize, colStep: usize, tiles: usize, cols: usize, dst: usize): void {
  const blocks = (cols + 31) >> 5
  for (let tile: usize = 0; tile < tiles; tile++) {
    for (let b: usize = 0; b < blocks; b++, dst += 608) {
      const n = min<usize>(32, cols - (b << 5))
      memory.fill(dst, 0, 512)
      for (let r: usize = 0; r < 16; r++) {
        let p = src + ((tile << 4) + r) * rowStep + (b << 5) * colStep
        let most: f32 = 0
        for (let i: usize = 0, q = p; i < n; i++, q += colStep) most = max<f32>(most, abs<f32>(load<f32>(q)))
        const inverse: f64 = most > 0 ? <f64>127 / <f64>most : 0
        const out = dst + ((r >> 2) << 4) + ((r & 3) << 2)
        let sum: i32 = 0
        for (let i: usize = 0; i < n; i++, p += colStep) {
          const v = <i32>nearest<f64>(<f64>load<f32>(p) * inverse)
          store<i8>(out + ((i >> 2) << 6) + (i & 3), <i8>v)
          sum += v
        }
        store<f32>(dst + 512 + (r << 2), <f32>(<f64>most / 127))
        store<i16>(dst + 576 + (r << 1), <i16>sum)
      }
    }
  }
}
