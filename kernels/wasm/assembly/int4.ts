// Matrix times activation rows with int4 weights. Owns the packed layout's arithmetic; knows nothing of models.
//
// Packed matrix: tiles of 16 rows, each a sequence of blocks of 32 columns. A block is 288 bytes:
//   256  weights + 8, two in a byte: the low halves are 4 groups of 4 columns as those of int8.ts, the high halves the groups after them
//    32  scales: 16 float16, one a row
// Activations are quantized per row and block of 32 columns to -127..127. A weight is a 7-bit operand of the relaxed dot product as it
// is, and the 16-bit sums of a block cannot overflow (8 sums of at most 2 * 15 * 127), so they are widened once a block. 8 times the sum
// of the activations is subtracted. The integers of a block are exact in any order; blocks add up in ascending order, by separate
// multiplies and adds: every build has the same bits.
import { largestOf, rounded, scaled } from './int8'
import { groupStart } from './matmul'

const BLOCK: usize = 288

/**
 * Quantizes row t of a group of n rows: to q [blocks][8 groups of 4 columns][n rows][4 bytes], each block followed by scales [n] and
 * by 8 times the sums of the integers [n]. scale = max |x| / 127, value = x * (127 / max |x|) to nearest, ties to even; a block of zeros
 * has scale 0. Columns past k are 0.
 */
function quantizeRow(x: usize, k: usize, q: usize, t: usize, n: usize): void {
  const step = n << 2
  q += t << 2
  for (let c: usize = 0; c < k; c += 32) {
    const count = min<usize>(32, k - c)
    const most = largestOf(x, count)
    const inverse: f32 = most > 0 ? <f32>127 / most : 0
    const inv = f32x4.splat(inverse)
    let sum = i32x4.splat(0)
    let i: usize = 0
    let p = q
    for (; i + 16 <= count; i += 16) {
      const at = x + (i << 2)
      const a = i16x8.narrow_i32x4_s(rounded(v128.load(at), inv), rounded(v128.load(at, 16), inv))
      const b = i16x8.narrow_i32x4_s(rounded(v128.load(at, 32), inv), rounded(v128.load(at, 48), inv))
      const bytes = i8x16.narrow_i16x8_s(a, b)
      sum = i32x4.add(sum, i32x4.dot_i16x8_s(i16x8.add(a, b), i16x8.splat(1)))
      v128.store32_lane(p, bytes, 0); p += step
      v128.store32_lane(p, bytes, 1); p += step
      v128.store32_lane(p, bytes, 2); p += step
      v128.store32_lane(p, bytes, 3); p += step
    }
    let total = i32x4.extract_lane(sum, 0) + i32x4.extract_lane(sum, 1) + i32x4.extract_lane(sum, 2) + i32x4.extract_lane(sum, 3)
    for (; i < count; i++) {
      const v = <i32>nearest<f32>(load<f32>(x + (i << 2)) * inverse)
      total += v
      store<i8>(q + (i >> 2) * step + (i & 3), <i8>v)
    }
    for (; i < 32; i++) store<i8>(q + (i >> 2) * step + (i & 3), 0)
    store<f32>(q + (step << 3), most / <f32>127)
    store<i32>(q + step * 9, total << 3)
    x += 128; q += step * 10
  }
}

/**
 * acc + the products of 4 columns of 4 rows, exact: a sum of 2 columns in each pair of 16-bit lanes, or one in each 32-bit lane with
 * `adds` (see int8.ts). x: 4 signed bytes in all lanes; w: 0..15.
 */
// @ts-ignore: decorator
@inline function dot2(adds: bool, acc: v128, x: v128, w: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD && adds) return i32x4.relaxed_dot_i8x16_i7x16_add_s(x, w, acc)
  if (ASC_FEATURE_RELAXED_SIMD) return i16x8.add(acc, i16x8.relaxed_dot_i8x16_i7x16_s(x, w))
  const xe = i16x8.extend_low_i8x16_s(x)
  const low = i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(w), xe), high = i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(w), xe)
  return i16x8.add(acc, i16x8.narrow_i32x4_s(low, high))
}

// @ts-ignore: decorator
@inline function lowHalves(w: v128): v128 { return v128.and(w, i8x16.splat(15)) }

// @ts-ignore: decorator
@inline function highHalves(w: v128): v128 { return v128.and(i16x8.shr_u(w, 4), i8x16.splat(15)) }

/** A block's contribution to 4 outputs: its sums less `offset`, times the scales. scale: of the rows; at: the activations' scale. */
// @ts-ignore: decorator
@inline function contribution(adds: bool, sums: v128, offset: v128, xScale: v128, scale: v128): v128 {
  const whole = ASC_FEATURE_RELAXED_SIMD && adds ? sums : i32x4.dot_i16x8_s(sums, i16x8.splat(1))
  return scaled(i32x4.sub(whole, offset), xScale, scale)
}

// @ts-ignore: decorator
@inline function scalesOf(p: usize): v128 {
  // The exponent is moved by an exact multiplication, which subnormal scales need.
  return f32x4.mul(v128.and(i32x4.shl(v128.load16x4_s(p), 13), i32x4.splat(0x8fffe000)), f32x4.splat(5.192296858534828e33))
}

/** y[16] of one tile for one token. The loops test at their ends, so that the compiler moves constants out of them. */
// @ts-ignore: decorator
@inline function tileOneToken(adds: bool, w: usize, blocks: usize, x: usize, y: usize): void {
  let f0 = f32x4.splat(0), f1 = f32x4.splat(0), f2 = f32x4.splat(0), f3 = f32x4.splat(0)
  for (let b: usize = 0; b < blocks; b++) {
    const zero = i16x8.splat(0)
    let d0 = zero, d1 = zero, d2 = zero, d3 = zero
    const end = x + 16
    do {
      const u = v128.load32_splat(x), v = v128.load32_splat(x, 16)
      let pair = v128.load(w)
      d0 = dot2(adds, dot2(adds, d0, u, lowHalves(pair)), v, highHalves(pair))
      pair = v128.load(w, 16)
      d1 = dot2(adds, dot2(adds, d1, u, lowHalves(pair)), v, highHalves(pair))
      pair = v128.load(w, 32)
      d2 = dot2(adds, dot2(adds, d2, u, lowHalves(pair)), v, highHalves(pair))
      pair = v128.load(w, 48)
      d3 = dot2(adds, dot2(adds, d3, u, lowHalves(pair)), v, highHalves(pair))
      x += 4; w += 64
    } while (x < end)
    const s = v128.load32_splat(x, 16), offset = v128.load32_splat(x, 20)
    f0 = f32x4.add(f0, contribution(adds, d0, offset, s, scalesOf(w))); f1 = f32x4.add(f1, contribution(adds, d1, offset, s, scalesOf(w + 8)))
    f2 = f32x4.add(f2, contribution(adds, d2, offset, s, scalesOf(w + 16))); f3 = f32x4.add(f3, contribution(adds, d3, offset, s, scalesOf(w + 24)))
    w += BLOCK - 256; x += 24
  }
  v128.store(y, f0); v128.store(y, f1, 16); v128.store(y, f2, 32); v128.store(y, f3, 48)
}

/** y[0..7] += the block's contribution for one token. x: its scale; n scales further on lies its offset. */
// @ts-ignore: decorator
@inline function addBlock(adds: bool, y: usize, a: v128, b: v128, x: usize, step: usize, scaleA: v128, scaleB: v128): void {
  const s = v128.load32_splat(x), offset = v128.load32_splat(x + step)
  v128.store(y, f32x4.add(v128.load(y), contribution(adds, a, offset, s, scaleA)))
  v128.store(y, f32x4.add(v128.load(y, 16), contribution(adds, b, offset, s, scaleB)), 16)
}

/** 8 rows of a tile for n (2..4) tokens. w: their first weights; scales: their first scales; x: as quantizeRow writes it. */
// @ts-ignore: decorator
@inline function strip(n: i32, adds: bool, w: usize, scales: usize, blocks: usize, x: usize, y: usize, yStride: usize): void {
  const y1 = y + yStride, y2 = y1 + yStride, y3 = y2 + yStride
  const zero = f32x4.splat(0)
  const step = <usize>(n << 2)
  v128.store(y, zero); v128.store(y, zero, 16); v128.store(y1, zero); v128.store(y1, zero, 16)
  if (n > 2) { v128.store(y2, zero); v128.store(y2, zero, 16) }
  if (n > 3) { v128.store(y3, zero); v128.store(y3, zero, 16) }
  for (let b: usize = 0; b < blocks; b++) {
    let a0 = zero, b0 = zero, a1 = zero, b1 = zero, a2 = zero, b2 = zero, a3 = zero, b3 = zero
    const end = x + (step << 2)
    do {
      const r = x + (step << 2)
      let p = v128.load(w), q = v128.load(w, 16)
      let u = lowHalves(p), v = lowHalves(q)
      let t = v128.load32_splat(x); a0 = dot2(adds, a0, t, u); b0 = dot2(adds, b0, t, v)
      t = v128.load32_splat(x, 4); a1 = dot2(adds, a1, t, u); b1 = dot2(adds, b1, t, v)
      if (n > 2) { t = v128.load32_splat(x, 8); a2 = dot2(adds, a2, t, u); b2 = dot2(adds, b2, t, v) }
      if (n > 3) { t = v128.load32_splat(x, 12); a3 = dot2(adds, a3, t, u); b3 = dot2(adds, b3, t, v) }
      u = highHalves(p); v = highHalves(q)
      t = v128.load32_splat(r); a0 = dot2(adds, a0, t, u); b0 = dot2(adds, b0, t, v)
      t = v128.load32_splat(r, 4); a1 = dot2(adds, a1, t, u); b1 = dot2(adds, b1, t, v)
      if (n > 2) { t = v128.load32_splat(r, 8); a2 = dot2(adds, a2, t, u); b2 = dot2(adds, b2, t, v) }
      if (n > 3) { t = v128.load32_splat(r, 12); a3 = dot2(adds, a3, t, u); b3 = dot2(adds, b3, t, v) }
      x += step; w += 64
    } while (x < end)
    x += step << 2
    const s = scalesOf(scales), t = scalesOf(scales + 8)
    addBlock(adds, y, a0, b0, x, step, s, t)
    addBlock(adds, y1, a1, b1, x + 4, step, s, t)
    if (n > 2) addBlock(adds, y2, a2, b2, x + 8, step, s, t)
    if (n > 3) addBlock(adds, y3, a3, b3, x + 12, step, s, t)
    w += BLOCK - 256; scales += BLOCK; x += step << 1
  }
}

// Exported for the reason that matmul.ts gives.
export function strip1Int4(w: usize, blocks: usize, x: usize, y: usize): void { tileOneToken(false, w, blocks, x, y) }
export function strip2Int4(w: usize, scales: usize, blocks: usize, x: usize, y: usize, yStride: usize): void { strip(2, false, w, scales, blocks, x, y, yStride) }
export function strip3Int4(w: usize, scales: usize, blocks: usize, x: usize, y: usize, yStride: usize): void { strip(3, false, w, scales, blocks, x, y, yStride) }
export function strip4Int4(w: usize, scales: usize, blocks: usize, x: usize, y: usize, yStride: usize): void { strip(4, false, w, scales, blocks, x, y, yStride) }
export function strip1Int4Dot(w: usize, blocks: usize, x: usize, y: usize): void { tileOneToken(true, w, blocks, x, y) }
export function strip2Int4Dot(w: usize, scales: usize, blocks: usize, x: usize, y: usize, yStride: usize): void { strip(2, true, w, scales, blocks, x, y, yStride) }
export function strip3Int4Dot(w: usize, scales: usize, blocks: usize, x: usize, y: usize, yStride: usize): void { strip(3, true, w, scales, blocks, x, y, yStride) }
export function strip4Int4Dot(w: usize, scales: usize, blocks: usize, x: usize, y: usize, yStride: usize): void { strip(4, true, w, scales, blocks, x, y, yStride) }

// @ts-ignore: decorator
@inline function matmul(
  adds: bool, w: usize, tiles: usize, k: usize, x: usize, xStride: usize, y: usize, yStride: usize, tokens: i32,
  batch: i32, wBatch: usize, xBatch: usize, yBatch: usize, scratch: usize,
): void {
  const groups = (tokens + 3) >> 2
  const blocks = (k + 31) >> 5
  const rowBytes = blocks * 40
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
          if (adds) strip1Int4Dot(wTile, blocks, xGroup, yGroup)
          else strip1Int4(wTile, blocks, xGroup, yGroup)
          continue
        }
        let scales = wTile + 256
        for (let half = wTile; half < wTile + 64; half += 32, scales += 16, yGroup += 32) {
          if (n == 4) { if (adds) strip4Int4Dot(half, scales, blocks, xGroup, yGroup, yStride); else strip4Int4(half, scales, blocks, xGroup, yGroup, yStride) }
          else if (n == 3) { if (adds) strip3Int4Dot(half, scales, blocks, xGroup, yGroup, yStride); else strip3Int4(half, scales, blocks, xGroup, yGroup, yStride) }
          else if (adds) strip2Int4Dot(half, scales, blocks, xGroup, yGroup, yStride)
          else strip2Int4(half, scales, blocks, xGroup, yGroup, yStride)
        }
      }
    }
    w += wBatch; x += xBatch; y += yBatch
  }
}

/**
 * As matmulF32, with int4 weights: tiles of 16 rows. y needs room for 16 * tiles values a row;
 * scratch: for each token k rounded up to 32 bytes, and 8 bytes per block of 32.
 */
export function matmulInt4(
  w: usize, tiles: usize, k: usize, x: usize, xStride: usize, y: usize, yStride: usize, tokens: i32,
  batch: i32, wBatch: usize, xBatch: usize, yBatch: usize, scratch: usize,
): void { matmul(false, w, tiles, k, x, xStride, y, yStride, tokens, batch, wBatch, xBatch, yBatch, scratch) }

/** The same integers, thus the same bits, where addsDots() holds. */
export function matmulInt4Dot(
  w: usize, tiles: usize, k: usize, x: usize, xStride: usize, y: usize, yStride: usize, tokens: i32,
  batch: i32, wBatch: usize, xBatch: usize, yBatch: usize, scratch: usize,
): void { matmul(true, w, tiles, k, x, xStride, y, yStride, tokens, batch, wBatch, xBatch, yBatch, scratch) }
