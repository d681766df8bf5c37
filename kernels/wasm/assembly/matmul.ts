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

/**
 * 8 rows of a tile for 4 tokens over a block of columns. w: first column's 8 rows; x: [columns][4 tokens].
 * y: token t's 8 outputs at y + t * yStride; if `resume`, the sums continue from the stored values.
 */
function stripFourTokens<T>(w: usize, x: usize, columns: usize, y: usize, yStride: usize, resume: bool): void {
  const y1 = y + yStride, y2 = y1 + yStride, y3 = y2 + yStride
  const zero = f32x4.splat(0)
  let a0 = zero, b0 = zero, a1 = zero, b1 = zero, a2 = zero, b2 = zero, a3 = zero, b3 = zero
  if (resume) {
    a0 = v128.load(y); b0 = v128.load(y, 16); a1 = v128.load(y1); b1 = v128.load(y1, 16)
    a2 = v128.load(y2); b2 = v128.load(y2, 16); a3 = v128.load(y3); b3 = v128.load(y3, 16)
  }
  const high = i32x4.splat(0xffff0000)
  const end = x + (columns << 4)
  for (; x < end; x += 16) {
    let lo: v128, hi: v128
    if (sizeof<T>() == 2) {
      const wv = v128.load(w)
      lo = i32x4.shl(wv, 16); hi = v128.and(wv, high)
      w += 64
    } else {
      lo = v128.load(w); hi = v128.load(w, 16)
      w += 128
    }
    let xv = v128.load32_splat(x, 0); a0 = madd(a0, lo, xv); b0 = madd(b0, hi, xv)
    xv = v128.load32_splat(x, 4); a1 = madd(a1, lo, xv); b1 = madd(b1, hi, xv)
    xv = v128.load32_splat(x, 8); a2 = madd(a2, lo, xv); b2 = madd(b2, hi, xv)
    xv = v128.load32_splat(x, 12); a3 = madd(a3, lo, xv); b3 = madd(b3, hi, xv)
  }
  v128.store(y, a0); v128.store(y, b0, 16); v128.store(y1, a1); v128.store(y1, b1, 16)
  v128.store(y2, a2); v128.store(y2, b2, 16); v128.store(y3, a3); v128.store(y3, b3, 16)
}

/** dst [k][4] from up to 4 rows of x [tokens][k]; absent tokens become 0. */
function interleave(dst: usize, x: usize, xStride: usize, k: usize, tokens: i32): void {
  for (let t = 0; t < 4; t++) {
    let q = dst + (<usize>t << 2)
    if (t < tokens) {
      let p = x + <usize>t * xStride
      for (let i: usize = 0; i < k; i++, p += 4, q += 16) store<f32>(q, load<f32>(p))
    } else {
      for (let i: usize = 0; i < k; i++, q += 16) store<f32>(q, 0)
    }
  }
}

// Four tokens together cost as much as 2.7 single tokens. So three tokens are computed as a group, two are not.
function matmul<T>(
  w: usize, tiles: usize, k: usize, x: usize, xStride: usize, y: usize, yStride: usize, tokens: i32,
  batch: i32, wBatch: usize, xBatch: usize, yBatch: usize, scratch: usize,
): void {
  const groups = (tokens + 1) >> 2
  const grouped = min(groups << 2, tokens)
  const columnBytes: usize = sizeof<T>() * 32
  const stripBytes: usize = sizeof<T>() * 8
  const groupBytes = k << 4
  const block = blockColumns<T>()
  for (let b = 0; b < batch; b++) {
    if (b == 0 || xBatch != 0) for (let g = 0; g < groups; g++)
      interleave(scratch + <usize>g * groupBytes, x + <usize>(g << 2) * xStride, xStride, k, min(4, tokens - (g << 2)))
    for (let tile: usize = 0; tile < tiles; tile++) {
      const wTile = w + tile * k * columnBytes
      const yTile = y + (tile << 7)
      if (groups > 0) {
        // At least once: without columns the outputs are zeros (a shard without heads).
        let c: usize = 0
        do {
          const columns = min(block, k - c)
          for (let g = 0; g < groups; g++) {
            const xBlock = scratch + <usize>g * groupBytes + (c << 4)
            const yGroup = yTile + <usize>(g << 2) * yStride
            for (let strip: usize = 0; strip < 4; strip++)
              stripFourTokens<T>(wTile + c * columnBytes + strip * stripBytes, xBlock, columns, yGroup + (strip << 5), yStride, c > 0)
          }
          c += block
        } while (c < k)
      }
      for (let t = grouped; t < tokens; t++)
        tileOneToken<T>(wTile, x + <usize>t * xStride, yTile + <usize>t * yStride, k)
    }
    w += wBatch; x += xBatch; y += yBatch
  }
}

/**
 * y[t][b][r] = sum over k of w[b][r][k] * x[t][b][k], for `tokens` rows and `batch` matrices of the same shape (heads).
 * y needs room for 32 * tiles values a row, and for tokens rounded up to 4 rows; scratch: ceil(tokens/4) * k * 16 bytes.
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
