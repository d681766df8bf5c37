// Matrix times one or more activation rows. Owns the packed layout's arithmetic; knows nothing of models.
//
// Packed matrix: tiles of 32 rows, column by column. A column of a tile is 32 values:
//   f32:  128 bytes, rows in order
//   bf16: 64 bytes = 4 vectors; vector j holds rows 8j..8j+3 in its low halves and 8j+4..8j+7 in its high halves
// so a row is recovered by one shift or one mask, and vector lanes are outputs, never parts of one sum.
// Each output is one accumulator over ascending k, so one token or many give the same bits.

import { madd } from './madd'

/** Columns of a tile that stay in the L1 cache while all tokens pass over them (16 KiB in either format). */
// @ts-ignore: decorator
@inline function blockColumns<T>(): usize { return sizeof<T>() == 2 ? 256 : 128 }

/** y[32] of one tile for one token. w: [k][32] packed, x: [k], y: [32]. */
function tileOneToken<T>(w: usize, x: usize, y: usize, columns: usize): void {
  let p = w
  const end = x + (columns << 2)
  let a0 = f32x4.splat(0), a1 = f32x4.splat(0), a2 = f32x4.splat(0), a3 = f32x4.splat(0)
  let a4 = f32x4.splat(0), a5 = f32x4.splat(0), a6 = f32x4.splat(0), a7 = f32x4.splat(0)
  if (sizeof<T>() == 2) {
    // Each vector is used as soon as it is loaded: with all four alive at once, or two columns a turn, registers spill.
    const high = i32x4.splat(0xffff0000)
    for (; x < end; x += 4) {
      const xv = v128.load32_splat(x)
      let w0 = v128.load(p, 0); a0 = madd(a0, i32x4.shl(w0, 16), xv); a1 = madd(a1, v128.and(w0, high), xv)
      w0 = v128.load(p, 16); a2 = madd(a2, i32x4.shl(w0, 16), xv); a3 = madd(a3, v128.and(w0, high), xv)
      w0 = v128.load(p, 32); a4 = madd(a4, i32x4.shl(w0, 16), xv); a5 = madd(a5, v128.and(w0, high), xv)
      w0 = v128.load(p, 48); a6 = madd(a6, i32x4.shl(w0, 16), xv); a7 = madd(a7, v128.and(w0, high), xv)
      p += 64
    }
  } else {
    for (; x < end; x += 4) {
      const xv = v128.load32_splat(x)
      a0 = madd(a0, v128.load(p, 0), xv); a1 = madd(a1, v128.load(p, 16), xv)
      a2 = madd(a2, v128.load(p, 32), xv); a3 = madd(a3, v128.load(p, 48), xv)
      a4 = madd(a4, v128.load(p, 64), xv); a5 = madd(a5, v128.load(p, 80), xv)
      a6 = madd(a6, v128.load(p, 96), xv); a7 = madd(a7, v128.load(p, 112), xv)
      p += 128
    }
  }
  v128.store(y, a0, 0); v128.store(y, a1, 16); v128.store(y, a2, 32); v128.store(y, a3, 48)
  v128.store(y, a4, 64); v128.store(y, a5, 80); v128.store(y, a6, 96); v128.store(y, a7, 112)
}

/** Rows of activations that are computed together at most: as many accumulators as the registers hold. */
// @ts-ignore: decorator
@inline const MOST: i32 = ASC_FEATURE_RELAXED_SIMD ? 6 : 5

/**
 * 8 rows of a tile for n (2..6) tokens over a block of columns. w: first column's 8 rows; x: [columns][n tokens].
 * y: token t's 8 outputs at y + t * yStride; if `resume`, the sums continue from the stored values.
 */
// @ts-ignore: decorator
@inline function strip<T>(n: i32, w: usize, x: usize, columns: usize, y: usize, yStride: usize, resume: bool): void {
  const y1 = y + yStride, y2 = y1 + yStride, y3 = y2 + yStride, y4 = y3 + yStride, y5 = y4 + yStride
  const zero = f32x4.splat(0)
  let a0 = zero, b0 = zero, a1 = zero, b1 = zero, a2 = zero, b2 = zero
  let a3 = zero, b3 = zero, a4 = zero, b4 = zero, a5 = zero, b5 = zero
  if (resume) {
    a0 = v128.load(y); b0 = v128.load(y, 16); a1 = v128.load(y1); b1 = v128.load(y1, 16)
    if (n > 2) { a2 = v128.load(y2); b2 = v128.load(y2, 16) }
    if (n > 3) { a3 = v128.load(y3); b3 = v128.load(y3, 16) }
    if (n > 4) { a4 = v128.load(y4); b4 = v128.load(y4, 16) }
    if (n > 5) { a5 = v128.load(y5); b5 = v128.load(y5, 16) }
  }
  const step = <usize>(n << 2)
  const mask = i32x4.splat(0xffff0000)
  const end = x + columns * step
  // The test is at the end, so that the compiler moves constants out of the loop.
  if (columns > 0) do {
    let low: v128, high: v128
    if (sizeof<T>() == 2) {
      high = v128.load(w)
      low = i32x4.shl(high, 16)
      // With 6 tokens there is no register left for the mask.
      high = n > 5 ? i32x4.shl(i32x4.shr_u(high, 16), 16) : v128.and(high, mask)
      w += 64
    } else {
      low = v128.load(w); high = v128.load(w, 16)
      w += 128
    }
    let v = v128.load32_splat(x, 0); a0 = madd(a0, low, v); b0 = madd(b0, high, v)
    v = v128.load32_splat(x, 4); a1 = madd(a1, low, v); b1 = madd(b1, high, v)
    if (n > 2) { v = v128.load32_splat(x, 8); a2 = madd(a2, low, v); b2 = madd(b2, high, v) }
    if (n > 3) { v = v128.load32_splat(x, 12); a3 = madd(a3, low, v); b3 = madd(b3, high, v) }
    if (n > 4) { v = v128.load32_splat(x, 16); a4 = madd(a4, low, v); b4 = madd(b4, high, v) }
    if (n > 5) { v = v128.load32_splat(x, 20); a5 = madd(a5, low, v); b5 = madd(b5, high, v) }
    x += step
  } while (x < end)
  v128.store(y, a0); v128.store(y, b0, 16); v128.store(y1, a1); v128.store(y1, b1, 16)
  if (n > 2) { v128.store(y2, a2); v128.store(y2, b2, 16) }
  if (n > 3) { v128.store(y3, a3); v128.store(y3, b3, 16) }
  if (n > 4) { v128.store(y4, a4); v128.store(y4, b4, 16) }
  if (n > 5) { v128.store(y5, a5); v128.store(y5, b5, 16) }
}

/** The same of 16 rows for 2 tokens: 8 rows have too few independent sums. */
// @ts-ignore: decorator
@inline function wideStrip<T>(w: usize, x: usize, columns: usize, y: usize, yStride: usize, resume: bool): void {
  const y1 = y + yStride
  const zero = f32x4.splat(0)
  let a0 = zero, b0 = zero, c0 = zero, d0 = zero, a1 = zero, b1 = zero, c1 = zero, d1 = zero
  if (resume) {
    a0 = v128.load(y); b0 = v128.load(y, 16); c0 = v128.load(y, 32); d0 = v128.load(y, 48)
    a1 = v128.load(y1); b1 = v128.load(y1, 16); c1 = v128.load(y1, 32); d1 = v128.load(y1, 48)
  }
  const mask = i32x4.splat(0xffff0000)
  const end = x + (columns << 3)
  if (columns > 0) do {
    const u = v128.load32_splat(x, 0), v = v128.load32_splat(x, 4)
    if (sizeof<T>() == 2) {
      let pair = v128.load(w), low = i32x4.shl(pair, 16)
      a0 = madd(a0, low, u); a1 = madd(a1, low, v)
      low = v128.and(pair, mask); b0 = madd(b0, low, u); b1 = madd(b1, low, v)
      pair = v128.load(w, 16); low = i32x4.shl(pair, 16); c0 = madd(c0, low, u); c1 = madd(c1, low, v)
      low = v128.and(pair, mask); d0 = madd(d0, low, u); d1 = madd(d1, low, v)
      w += 64
    } else {
      let four = v128.load(w); a0 = madd(a0, four, u); a1 = madd(a1, four, v)
      four = v128.load(w, 16); b0 = madd(b0, four, u); b1 = madd(b1, four, v)
      four = v128.load(w, 32); c0 = madd(c0, four, u); c1 = madd(c1, four, v)
      four = v128.load(w, 48); d0 = madd(d0, four, u); d1 = madd(d1, four, v)
      w += 128
    }
    x += 8
  } while (x < end)
  v128.store(y, a0); v128.store(y, b0, 16); v128.store(y, c0, 32); v128.store(y, d0, 48)
  v128.store(y1, a1); v128.store(y1, b1, 16); v128.store(y1, c1, 32); v128.store(y1, d1, 48)
}

// A function for each number of tokens, so that each has its own registers. They are exported because the optimizer inlines a function
// that has one caller otherwise, and then the registers of all of them spill.
export function strip2F32(w: usize, x: usize, columns: usize, y: usize, yStride: usize, resume: bool): void { wideStrip<u32>(w, x, columns, y, yStride, resume) }
export function strip3F32(w: usize, x: usize, columns: usize, y: usize, yStride: usize, resume: bool): void { strip<u32>(3, w, x, columns, y, yStride, resume) }
export function strip4F32(w: usize, x: usize, columns: usize, y: usize, yStride: usize, resume: bool): void { strip<u32>(4, w, x, columns, y, yStride, resume) }
export function strip5F32(w: usize, x: usize, columns: usize, y: usize, yStride: usize, resume: bool): void { strip<u32>(5, w, x, columns, y, yStride, resume) }
export function strip6F32(w: usize, x: usize, columns: usize, y: usize, yStride: usize, resume: bool): void { strip<u32>(6, w, x, columns, y, yStride, resume) }
export function strip2Bf16(w: usize, x: usize, columns: usize, y: usize, yStride: usize, resume: bool): void { wideStrip<u16>(w, x, columns, y, yStride, resume) }
export function strip3Bf16(w: usize, x: usize, columns: usize, y: usize, yStride: usize, resume: bool): void { strip<u16>(3, w, x, columns, y, yStride, resume) }
export function strip4Bf16(w: usize, x: usize, columns: usize, y: usize, yStride: usize, resume: bool): void { strip<u16>(4, w, x, columns, y, yStride, resume) }
export function strip5Bf16(w: usize, x: usize, columns: usize, y: usize, yStride: usize, resume: bool): void { strip<u16>(5, w, x, columns, y, yStride, resume) }
export function strip6Bf16(w: usize, x: usize, columns: usize, y: usize, yStride: usize, resume: bool): void { strip<u16>(6, w, x, columns, y, yStride, resume) }

/** A block of a tile for the n tokens of a group, strip by strip. */
function tileGroup<T>(n: i32, w: usize, x: usize, columns: usize, y: usize, yStride: usize, resume: bool): void {
  const strips = w + sizeof<T>() * 32
  const step: usize = sizeof<T>() * (n == 2 ? 16 : 8)
  for (; w < strips; w += step, y += n == 2 ? 64 : 32) {
    if (sizeof<T>() == 2) {
      if (n == 6) strip6Bf16(w, x, columns, y, yStride, resume)
      else if (n == 5) strip5Bf16(w, x, columns, y, yStride, resume)
      else if (n == 4) strip4Bf16(w, x, columns, y, yStride, resume)
      else if (n == 3) strip3Bf16(w, x, columns, y, yStride, resume)
      else strip2Bf16(w, x, columns, y, yStride, resume)
    } else {
      if (n == 6) strip6F32(w, x, columns, y, yStride, resume)
      else if (n == 5) strip5F32(w, x, columns, y, yStride, resume)
      else if (n == 4) strip4F32(w, x, columns, y, yStride, resume)
      else if (n == 3) strip3F32(w, x, columns, y, yStride, resume)
      else strip2F32(w, x, columns, y, yStride, resume)
    }
  }
}

/** dst [k][n] from n rows of x [n][k]. */
function interleave(dst: usize, x: usize, xStride: usize, k: usize, n: i32): void {
  const step = <usize>(n << 2)
  for (let t = 0; t < n; t++, x += xStride) {
    let q = dst + (<usize>t << 2)
    for (let p = x, end = x + (k << 2); p < end; p += 4, q += step) store<f32>(q, load<f32>(p))
  }
}

/** First token of group g when `tokens` are cut into `groups` of nearly equal size. */
// @ts-ignore: decorator
@inline export function groupStart(g: i32, groups: i32, tokens: i32): i32 { return g * tokens / groups }

function matmul<T>(
  w: usize, tiles: usize, k: usize, x: usize, xStride: usize, y: usize, yStride: usize, tokens: i32,
  batch: i32, wBatch: usize, xBatch: usize, yBatch: usize, scratch: usize,
): void {
  const groups = (tokens + MOST - 1) / MOST
  const columnBytes: usize = sizeof<T>() * 32
  const block = blockColumns<T>()
  const rowBytes = k << 2
  for (let b = 0; b < batch; b++) {
    if (tokens > 1 && (b == 0 || xBatch != 0)) for (let g = 0; g < groups; g++) {
      const t = groupStart(g, groups, tokens)
      interleave(scratch + <usize>t * rowBytes, x + <usize>t * xStride, xStride, k, groupStart(g + 1, groups, tokens) - t)
    }
    for (let tile: usize = 0; tile < tiles; tile++) {
      const wTile = w + tile * k * columnBytes
      const yTile = y + (tile << 7)
      if (tokens == 1) {
        tileOneToken<T>(wTile, x, yTile, k)
        continue
      }
      // At least once: without columns the outputs are zeros (a shard without heads).
      let c: usize = 0
      do {
        const columns = min(block, k - c)
        const wBlock = wTile + c * columnBytes
        for (let g = 0; g < groups; g++) {
          const t = groupStart(g, groups, tokens), n = groupStart(g + 1, groups, tokens) - t
          const xBlock = scratch + <usize>t * rowBytes + c * <usize>(n << 2)
          const yGroup = yTile + <usize>t * yStride
          tileGroup<T>(n, wBlock, xBlock, columns, yGroup, yStride, c > 0)
        }
        c += block
      } while (c < k)
    }
    w += wBatch; x += xBatch; y += yBatch
  }
}

/**
 * y[t][b][r] = sum over k of w[b][r][k] * x[t][b][k], for `tokens` rows and `batch` matrices of the same shape (heads).
 * y needs room for 32 * tiles values a row; scratch: tokens * k * 4 bytes.
 * Batches are written in ascending order, so a batch stride below 32 * tiles lets each overwrite the padding before it.
 */
export function matmulF32(
  w: usize, tiles: usize, k: usize, x: usize, xStride: usize, y: usize, yStride: usize, tokens: i32,
  batch: i32, wBatch: usize, xBatch: usize, yBatch: usize, scratch: usize,
): void { matmul<u32>(w, tiles, k, x, xStride, y, yStride, tokens, batch, wBatch, xBatch, yBatch, scratch) }

/** As matmulF32, with bfloat16 weights. */
export function matmulBf16(
  w: usize, tiles: usize, k: usize, x: usize, xStride: usize, y: usize, yStride: usize, tokens: i32,
  batch: i32, wBatch: usize, xBatch: usize, yBatch: usize, scratch: usize,
): void { matmul<u16>(w, tiles, k, x, xStride, y, yStride, tokens, batch, wBatch, xBatch, yBatch, scratch) }
