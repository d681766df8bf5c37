// Matrix times activation rows with int8 weights. Owns the packed layout's arithmetic; knows nothing of models.
//
// Packed matrix: tiles of 16 rows, each a sequence of blocks of 32 columns. A block is 608 bytes:
//   512  weights: 8 groups of 4 columns; in a group 4 vectors of 4 rows, each row's 4 columns together (one 32-bit lane)
//    64  scales: 16 float32, one a row
//    32  sums: 16 int16, of each row's weights
// Activations are quantized per row and block of 32 columns to -63..63 and stored plus 64, so that the second operand of the
// relaxed dot product is a 7-bit number; 64 times the row's sum is subtracted again. The integers of a block are exact in
// any order; blocks add up in ascending order, by separate multiplies and adds: every build has the same bits.

const BLOCK: usize = 608

/** To the nearest integers, ties to even. */
// @ts-ignore: decorator
@inline export function rounded(v: v128, inverse: v128): v128 { return i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v, inverse))) }

/**
 * q [k rounded up to 32] bytes (value + 64) and scales [blocks] of one row: scale = max |x| / 63, value = x * (63 / max |x|)
 * to nearest, ties to even; a block of zeros has scale 0. Columns past k are value 0.
 */
function quantizeRow(x: usize, k: usize, q: usize, scales: usize): void {
  for (let c: usize = 0; c < k; c += 32) {
    const n = min<usize>(32, k - c)
    let m = f32x4.splat(0)
    let i: usize = 0
    for (; i + 4 <= n; i += 4) m = f32x4.pmax(m, f32x4.abs(v128.load(x + (i << 2))))
    let most = max<f32>(max<f32>(f32x4.extract_lane(m, 0), f32x4.extract_lane(m, 1)), max<f32>(f32x4.extract_lane(m, 2), f32x4.extract_lane(m, 3)))
    for (let j = i; j < n; j++) most = max<f32>(most, abs<f32>(load<f32>(x + (j << 2))))
    store<f32>(scales, most / <f32>63)
    const inverse: f32 = most > 0 ? <f32>63 / most : 0
    i = 0
    const inv = f32x4.splat(inverse), offset = i8x16.splat(64)
    for (; i + 16 <= n; i += 16) {
      const p = x + (i << 2)
      const a = i16x8.narrow_i32x4_s(rounded(v128.load(p), inv), rounded(v128.load(p, 16), inv))
      const b = i16x8.narrow_i32x4_s(rounded(v128.load(p, 32), inv), rounded(v128.load(p, 48), inv))
      v128.store(q + i, i8x16.add(i8x16.narrow_i16x8_s(a, b), offset))
    }
    for (; i < n; i++) store<u8>(q + i, <u8>(<i32>nearest<f32>(load<f32>(x + (i << 2)) * inverse) + 64))
    for (; i < 32; i++) store<u8>(q + i, 64)
    x += 128; q += 32; scales += 4
  }
}

/** acc + the products of 4 columns of 4 rows, exact. w signed, x 0..127; without relaxed SIMD both signed, and x the same in all lanes. */
// @ts-ignore: decorator
@inline export function dot4(acc: v128, w: v128, x: v128): v128 {
  // Not relaxed_dot_i8x16_i7x16_add_s: Node 20's baseline compiler miscompiles it if its result replaces its last operand.
  if (ASC_FEATURE_RELAXED_SIMD) return i32x4.add(acc, i32x4.extadd_pairwise_i16x8_s(i16x8.relaxed_dot_i8x16_i7x16_s(w, x)))
  const xe = i16x8.extend_low_i8x16_s(x)
  const low = i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(w), xe), high = i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(w), xe)
  return i32x4.add(acc, i32x4.add(
    i8x16.shuffle(low, high, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27),
    i8x16.shuffle(low, high, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31),
  ))
}

/** Contribution of a block to the outputs of its 4 rows: (dot - 64 sum) times (activation scale times weight scale). j: rows 4j.. */
// @ts-ignore: decorator
@inline function scaled(dot: v128, block: usize, j: usize, xScale: v128): v128 {
  const exact = i32x4.sub(dot, i32x4.shl(v128.load16x4_s(block + 576 + (j << 3)), 6))
  return f32x4.mul(f32x4.convert_i32x4_s(exact), f32x4.mul(xScale, v128.load(block + 512 + (j << 4))))
}

/** y[16] of one tile for one token. */
function tileOneToken(w: usize, blocks: usize, q: usize, scales: usize, y: usize): void {
  let f0 = f32x4.splat(0), f1 = f32x4.splat(0), f2 = f32x4.splat(0), f3 = f32x4.splat(0)
  for (let b: usize = 0; b < blocks; b++) {
    let d0 = i32x4.splat(0), d1 = i32x4.splat(0), d2 = i32x4.splat(0), d3 = i32x4.splat(0)
    const end = q + 32
    let p = w
    for (; q < end; q += 4, p += 64) {
      const x = v128.load32_splat(q)
      d0 = dot4(d0, v128.load(p), x)
      d1 = dot4(d1, v128.load(p, 16), x)
      d2 = dot4(d2, v128.load(p, 32), x)
      d3 = dot4(d3, v128.load(p, 48), x)
    }
    const s = v128.load32_splat(scales)
    f0 = f32x4.add(f0, scaled(d0, w, 0, s)); f1 = f32x4.add(f1, scaled(d1, w, 1, s))
    f2 = f32x4.add(f2, scaled(d2, w, 2, s)); f3 = f32x4.add(f3, scaled(d3, w, 3, s))
    w += BLOCK; scales += 4
  }
  v128.store(y, f0); v128.store(y, f1, 16); v128.store(y, f2, 32); v128.store(y, f3, 48)
}

/** 8 rows (vectors j and j + 1) of a tile for 4 tokens, whose quantized rows lie qStride and scales sStride apart. */
function halfTileFourTokens(
  w: usize, j: usize, blocks: usize, q: usize, qStride: usize, scales: usize, sStride: usize, y: usize, yStride: usize,
): void {
  const y1 = y + yStride, y2 = y1 + yStride, y3 = y2 + yStride
  const zero = f32x4.splat(0)
  v128.store(y, zero); v128.store(y, zero, 16); v128.store(y1, zero); v128.store(y1, zero, 16)
  v128.store(y2, zero); v128.store(y2, zero, 16); v128.store(y3, zero); v128.store(y3, zero, 16)
  const offset = j << 4
  for (let b: usize = 0; b < blocks; b++) {
    let a0 = i32x4.splat(0), b0 = i32x4.splat(0), a1 = i32x4.splat(0), b1 = i32x4.splat(0)
    let a2 = i32x4.splat(0), b2 = i32x4.splat(0), a3 = i32x4.splat(0), b3 = i32x4.splat(0)
    const end = q + 32
    let p = w + offset
    for (; q < end; q += 4, p += 64) {
      const u = v128.load(p), v = v128.load(p, 16)
      let x = v128.load32_splat(q); a0 = dot4(a0, u, x); b0 = dot4(b0, v, x)
      let r = q + qStride
      x = v128.load32_splat(r); a1 = dot4(a1, u, x); b1 = dot4(b1, v, x)
      r += qStride
      x = v128.load32_splat(r); a2 = dot4(a2, u, x); b2 = dot4(b2, v, x)
      r += qStride
      x = v128.load32_splat(r); a3 = dot4(a3, u, x); b3 = dot4(b3, v, x)
    }
    let r = scales
    let s = v128.load32_splat(r)
    v128.store(y, f32x4.add(v128.load(y), scaled(a0, w, j, s))); v128.store(y, f32x4.add(v128.load(y, 16), scaled(b0, w, j + 1, s)), 16)
    r += sStride; s = v128.load32_splat(r)
    v128.store(y1, f32x4.add(v128.load(y1), scaled(a1, w, j, s))); v128.store(y1, f32x4.add(v128.load(y1, 16), scaled(b1, w, j + 1, s)), 16)
    r += sStride; s = v128.load32_splat(r)
    v128.store(y2, f32x4.add(v128.load(y2), scaled(a2, w, j, s))); v128.store(y2, f32x4.add(v128.load(y2, 16), scaled(b2, w, j + 1, s)), 16)
    r += sStride; s = v128.load32_splat(r)
    v128.store(y3, f32x4.add(v128.load(y3), scaled(a3, w, j, s))); v128.store(y3, f32x4.add(v128.load(y3, 16), scaled(b3, w, j + 1, s)), 16)
    w += BLOCK; scales += 4
  }
}

/**
 * As matmulF32, with int8 weights: tiles of 16 rows. y needs room for 16 * tiles values a row and tokens rounded up to 4 rows;
 * scratch: for each of those rows k rounded up to 32 bytes, and 4 bytes per block of 32.
 */
export function matmulInt8(
  w: usize, tiles: usize, k: usize, x: usize, xStride: usize, y: usize, yStride: usize, tokens: i32,
  batch: i32, wBatch: usize, xBatch: usize, yBatch: usize, scratch: usize,
): void {
  const groups = (tokens + 1) >> 2
  const grouped = min(groups << 2, tokens)
  const blocks = (k + 31) >> 5
  const qStride = blocks << 5
  const sStride = blocks << 2
  const rows = <usize>max(groups << 2, tokens)
  const scales = scratch + rows * qStride
  for (let b = 0; b < batch; b++) {
    // Matrices with the same input share the quantized activations.
    if (b == 0 || xBatch != 0) {
      for (let t = 0; t < tokens; t++) quantizeRow(x + <usize>t * xStride, k, scratch + <usize>t * qStride, scales + <usize>t * sStride)
      // Rows of a group past the last token: their values do not matter, their outputs are not used.
      for (let t = <usize>tokens; t < rows; t++) { memory.fill(scratch + t * qStride, 64, qStride); memory.fill(scales + t * sStride, 0, sStride) }
    }
    for (let tile: usize = 0; tile < tiles; tile++) {
      const wTile = w + tile * blocks * BLOCK
      const yTile = y + (tile << 6)
      for (let g = 0; g < groups; g++) {
        const t = <usize>(g << 2)
        const yGroup = yTile + t * yStride
        halfTileFourTokens(wTile, 0, blocks, scratch + t * qStride, qStride, scales + t * sStride, sStride, yGroup, yStride)
        halfTileFourTokens(wTile, 2, blocks, scratch + t * qStride, qStride, scales + t * sStride, sStride, yGroup + 32, yStride)
      }
      for (let t = <usize>grouped; t < <usize>tokens; t++)
        tileOneToken(wTile, blocks, scratch + t * qStride, scales + t * sStride, yTile + t * yStride)
    }
    w += wBatch; x += xBatch; y += yBatch
  }
}
