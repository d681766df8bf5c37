// Matrix times activation rows with int8 weights. Owns the packed layout's arithmetic; knows nothing of models.
//
// Packed matrix: tiles of 16 rows, each a sequence of blocks of 32 columns. A block is 608 bytes:
//   512  weights: 8 groups of 4 columns; in a group 4 vectors of 4 rows, each row's 4 columns together (one 32-bit lane)
//    64  scales: 16 float32, one a row
//    32  sums: 16 int16, of each row's weights
// Activations are quantized per row and block of 32 columns to -63..63 and stored plus 64, so that the second operand of the
// relaxed dot product is a 7-bit number; 64 times the row's sum is subtracted again. The integers of a block are exact in
// any order; blocks add up in ascending order, by separate multiplies and adds: every build has the same bits.

import { groupStart } from './matmul'

const BLOCK: usize = 608

/** To the nearest integers, ties to even. */
// @ts-ignore: decorator
@inline export function rounded(v: v128, inverse: v128): v128 { return i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v, inverse))) }

/** Largest magnitude of n values at x. */
// @ts-ignore: decorator
@inline export function largestOf(x: usize, n: usize): f32 {
  let m = f32x4.splat(0)
  let i: usize = 0
  for (; i + 4 <= n; i += 4) m = f32x4.pmax(m, f32x4.abs(v128.load(x + (i << 2))))
  let most = max<f32>(max<f32>(f32x4.extract_lane(m, 0), f32x4.extract_lane(m, 1)), max<f32>(f32x4.extract_lane(m, 2), f32x4.extract_lane(m, 3)))
  for (; i < n; i++) most = max<f32>(most, abs<f32>(load<f32>(x + (i << 2))))
  return most
}

/**
 * Quantizes row t of a group of n rows: to q [blocks][8 groups of 4 columns][n rows][4 bytes], each block followed by scales [n]. Bytes
 * are value + 64; scale = max |x| / 63, value = x * (63 / max |x|) to nearest, ties to even; a block of zeros has scale 0. Columns past
 * k are value 0.
 */
function quantizeRow(x: usize, k: usize, q: usize, t: usize, n: usize): void {
  const step = n << 2
  q += t << 2
  for (let c: usize = 0; c < k; c += 32) {
    const count = min<usize>(32, k - c)
    const most = largestOf(x, count)
    store<f32>(q + (step << 3), most / <f32>63)
    const inverse: f32 = most > 0 ? <f32>63 / most : 0
    let i: usize = 0
    const inv = f32x4.splat(inverse), offset = i8x16.splat(64)
    let p = q
    for (; i + 16 <= count; i += 16) {
      const at = x + (i << 2)
      const a = i16x8.narrow_i32x4_s(rounded(v128.load(at), inv), rounded(v128.load(at, 16), inv))
      const b = i16x8.narrow_i32x4_s(rounded(v128.load(at, 32), inv), rounded(v128.load(at, 48), inv))
      const bytes = i8x16.add(i8x16.narrow_i16x8_s(a, b), offset)
      v128.store32_lane(p, bytes, 0); p += step
      v128.store32_lane(p, bytes, 1); p += step
      v128.store32_lane(p, bytes, 2); p += step
      v128.store32_lane(p, bytes, 3); p += step
    }
    for (; i < count; i++) store<u8>(q + (i >> 2) * step + (i & 3), <u8>(<i32>nearest<f32>(load<f32>(x + (i << 2)) * inverse) + 64))
    for (; i < 32; i++) store<u8>(q + (i >> 2) * step + (i & 3), 64)
    x += 128; q += step * 9
  }
}

/**
 * Whether one instruction multiplies and adds, as kernels with `adds` do: Node 20's baseline compiler drops the last operand if the
 * result replaces it, as here.
 */
export function addsDots(n: i32): bool {
  if (!ASC_FEATURE_RELAXED_SIMD) return false
  return i32x4.extract_lane(i32x4.relaxed_dot_i8x16_i7x16_add_s(i8x16.splat(1), i8x16.splat(2), i32x4.splat(n)), 0) == n + 8
}

/**
 * acc + the products of 4 columns of 4 rows, exact. w signed, x 0..127; without relaxed SIMD both signed, and x the same in all lanes.
 * adds: by the one instruction that processors with VNNI have for it; it needs addsDots().
 */
// @ts-ignore: decorator
@inline export function dot4(acc: v128, w: v128, x: v128, adds: bool = false): v128 {
  if (ASC_FEATURE_RELAXED_SIMD && adds) return i32x4.relaxed_dot_i8x16_i7x16_add_s(w, x, acc)
  // Not extadd_pairwise, for which V8 loads the ones from memory each time.
  if (ASC_FEATURE_RELAXED_SIMD) return i32x4.add(acc, i32x4.dot_i16x8_s(i16x8.relaxed_dot_i8x16_i7x16_s(w, x), i16x8.splat(1)))
  const xe = i16x8.extend_low_i8x16_s(x)
  const low = i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(w), xe), high = i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(w), xe)
  return i32x4.add(acc, i32x4.add(
    i8x16.shuffle(low, high, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27),
    i8x16.shuffle(low, high, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31),
  ))
}

/** What the stored activations add to a block's sums of 4 rows, negated: -64 times the sums of their weights. */
// @ts-ignore: decorator
@inline function offsets(sums: usize): v128 { return i32x4.neg(i32x4.shl(v128.load16x4_s(sums), 6)) }

/** An exact sum times (activation scale times weight scale). */
// @ts-ignore: decorator
@inline export function scaled(exact: v128, xScale: v128, scale: v128): v128 {
  return f32x4.mul(f32x4.convert_i32x4_s(exact), f32x4.mul(xScale, scale))
}

/** y[16] of one tile for one token. The loops test at their ends, so that the compiler moves constants out of them. */
// @ts-ignore: decorator
@inline function tileOneToken(adds: bool, w: usize, blocks: usize, x: usize, y: usize): void {
  let f0 = f32x4.splat(0), f1 = f32x4.splat(0), f2 = f32x4.splat(0), f3 = f32x4.splat(0)
  for (let b: usize = 0; b < blocks; b++) {
    let d0 = offsets(w + 576), d1 = offsets(w + 584), d2 = offsets(w + 592), d3 = offsets(w + 600)
    const end = x + 32
    do {
      const v = v128.load32_splat(x)
      d0 = dot4(d0, v128.load(w), v, adds)
      d1 = dot4(d1, v128.load(w, 16), v, adds)
      d2 = dot4(d2, v128.load(w, 32), v, adds)
      d3 = dot4(d3, v128.load(w, 48), v, adds)
      x += 4; w += 64
    } while (x < end)
    const s = v128.load32_splat(x)
    f0 = f32x4.add(f0, scaled(d0, s, v128.load(w))); f1 = f32x4.add(f1, scaled(d1, s, v128.load(w, 16)))
    f2 = f32x4.add(f2, scaled(d2, s, v128.load(w, 32))); f3 = f32x4.add(f3, scaled(d3, s, v128.load(w, 48)))
    w += BLOCK - 512; x += 4
  }
  v128.store(y, f0); v128.store(y, f1, 16); v128.store(y, f2, 32); v128.store(y, f3, 48)
}

/** y[0..7] += the block's contribution for one token. */
// @ts-ignore: decorator
@inline function addBlock(y: usize, a: v128, b: v128, x: usize, scaleA: v128, scaleB: v128): void {
  const s = v128.load32_splat(x)
  v128.store(y, f32x4.add(v128.load(y), scaled(a, s, scaleA)))
  v128.store(y, f32x4.add(v128.load(y, 16), scaled(b, s, scaleB)), 16)
}

/** 8 rows of a tile for n (2..4) tokens. w: their first weights; sums: their first sums; x: as quantizeRow writes it. */
// @ts-ignore: decorator
@inline function strip(n: i32, adds: bool, w: usize, sums: usize, blocks: usize, x: usize, y: usize, yStride: usize): void {
  const y1 = y + yStride, y2 = y1 + yStride, y3 = y2 + yStride
  const zero = f32x4.splat(0)
  const step = <usize>(n << 2)
  v128.store(y, zero); v128.store(y, zero, 16); v128.store(y1, zero); v128.store(y1, zero, 16)
  if (n > 2) { v128.store(y2, zero); v128.store(y2, zero, 16) }
  if (n > 3) { v128.store(y3, zero); v128.store(y3, zero, 16) }
  for (let b: usize = 0; b < blocks; b++) {
    let a0 = offsets(sums), b0 = offsets(sums + 8)
    let a1 = a0, b1 = b0, a2 = a0, b2 = b0, a3 = a0, b3 = b0
    const end = x + (step << 3)
    do {
      const u = v128.load(w), v = v128.load(w, 16)
      let q = v128.load32_splat(x); a0 = dot4(a0, u, q, adds); b0 = dot4(b0, v, q, adds)
      q = v128.load32_splat(x, 4); a1 = dot4(a1, u, q, adds); b1 = dot4(b1, v, q, adds)
      if (n > 2) { q = v128.load32_splat(x, 8); a2 = dot4(a2, u, q, adds); b2 = dot4(b2, v, q, adds) }
      if (n > 3) { q = v128.load32_splat(x, 12); a3 = dot4(a3, u, q, adds); b3 = dot4(b3, v, q, adds) }
      x += step; w += 64
    } while (x < end)
    const s = v128.load(w), t = v128.load(w, 16)
    addBlock(y, a0, b0, x, s, t)
    addBlock(y1, a1, b1, x + 4, s, t)
    if (n > 2) addBlock(y2, a2, b2, x + 8, s, t)
    if (n > 3) addBlock(y3, a3, b3, x + 12, s, t)
    w += BLOCK - 512; x += step; sums += BLOCK
  }
}

// Exported for the reason that matmul.ts gives.
export function strip1Int8(w: usize, blocks: usize, x: usize, y: usize): void { tileOneToken(false, w, blocks, x, y) }
export function strip2Int8(w: usize, sums: usize, blocks: usize, x: usize, y: usize, yStride: usize): void { strip(2, false, w, sums, blocks, x, y, yStride) }
export function strip3Int8(w: usize, sums: usize, blocks: usize, x: usize, y: usize, yStride: usize): void { strip(3, false, w, sums, blocks, x, y, yStride) }
export function strip4Int8(w: usize, sums: usize, blocks: usize, x: usize, y: usize, yStride: usize): void { strip(4, false, w, sums, blocks, x, y, yStride) }
export function strip1Int8Dot(w: usize, blocks: usize, x: usize, y: usize): void { tileOneToken(true, w, blocks, x, y) }
export function strip2Int8Dot(w: usize, sums: usize, blocks: usize, x: usize, y: usize, yStride: usize): void { strip(2, true, w, sums, blocks, x, y, yStride) }
export function strip3Int8Dot(w: usize, sums: usize, blocks: usize, x: usize, y: usize, yStride: usize): void { strip(3, true, w, sums, blocks, x, y, yStride) }
export function strip4Int8Dot(w: usize, sums: usize, blocks: usize, x: usize, y: usize, yStride: usize): void { strip(4, true, w, sums, blocks, x, y, yStride) }

// @ts-ignore: decorator
@inline function matmul(
  adds: bool, w: usize, tiles: usize, k: usize, x: usize, xStride: usize, y: usize, yStride: usize, tokens: i32,
  batch: i32, wBatch: usize, xBatch: usize, yBatch: usize, scratch: usize,
): void {
  const groups = (tokens + 3) >> 2
  const blocks = (k + 31) >> 5
  const rowBytes = blocks * 36
  for (let b = 0; b < batch; b++) {
    // Matrices with the same input share the quantized activations.
    if (b == 0 || xBatch != 0) for (let g = 0; g < groups; g++) {
      const first = groupStart(g, groups, tokens), n = <usize>(groupStart(g + 1, groups, tokens) - first)
      const at = <usize>first
      for (let t: usize = 0; t < n; t++) quantizeRow(x + (at + t) * xStride, k, scratch + at * rowBytes, t, n)
    }
    for (let tile: usize = 0; tile < tiles; tile++) {
      const wTile = w + tile * blocks * BLOCK
      for (let g = 0; g < groups; g++) {
        const first = groupStart(g, groups, tokens), n = groupStart(g + 1, groups, tokens) - first
        const xGroup = scratch + <usize>first * rowBytes
        let yGroup = y + (tile << 6) + <usize>first * yStride
        if (n == 1) {
          if (adds) strip1Int8Dot(wTile, blocks, xGroup, yGroup)
          else strip1Int8(wTile, blocks, xGroup, yGroup)
          continue
        }
        let sums = wTile + 576
        for (let half = wTile; half < wTile + 64; half += 32, sums += 16, yGroup += 32) {
          if (n == 4) { if (adds) strip4Int8Dot(half, sums, blocks, xGroup, yGroup, yStride); else strip4Int8(half, sums, blocks, xGroup, yGroup, yStride) }
          else if (n == 3) { if (adds) strip3Int8Dot(half, sums, blocks, xGroup, yGroup, yStride); else strip3Int8(half, sums, blocks, xGroup, yGroup, yStride) }
          else if (adds) strip2Int8Dot(half, sums, blocks, xGroup, yGroup, yStride)
          else strip2Int8(half, sums, blocks, xGroup, yGroup, yStride)
        }
      }
    }
    w += wBatch; x += xBatch; y += yBatch
  }
}

/**
 * As matmulF32, with int8 weights: tiles of 16 rows. y needs room for 16 * tiles values a row;
 * scratch: for each token k rounded up to 32 bytes, and 4 bytes per block of 32.
 */
export function matmulInt8(
  w: usize, tiles: usize, k: usize, x: usize, xStride: usize, y: usize, yStride: usize, tokens: i32,
  batch: i32, wBatch: usize, xBatch: usize, yBatch: usize, scratch: usize,
): void { matmul(false, w, tiles, k, x, xStride, y, yStride, tokens, batch, wBatch, xBatch, yBatch, scratch) }

/** The same integers, thus the same bits, where addsDots() holds. */
export function matmulInt8Dot(
  w: usize, tiles: usize, k: usize, x: usize, xStride: usize, y: usize, yStride: usize, tokens: i32,
  batch: i32, wBatch: usize, xBatch: usize, yBatch: usize, scratch: usize,
): void { matmul(true, w, tiles, k, x, xStride, y, yStride, tokens, batch, wBatch, xBatch, yBatch, scratch) }
