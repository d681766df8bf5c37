// Attention over an int8 cache. A cached row is its integers (-127..127, zeros in the padding), then float32 scale, int32 sum of
// the key columns, and a scale of the values' own where they lie beside the keys; meta: bytes from a row's start to the scale.
// Scores are int8 dot products with queries of 7 bits: exact integers, then two multiplications. Weighted sums are those of
// attention.ts over the page's integers as float32, with the value scale in the weights.
import { accumulate, softmaxPage } from './attention'
import { dot4, rounded } from './int8'

/** Largest magnitude of n values; NaN if a value is NaN. */
function largest(x: usize, n: usize): f32 {
  let m = f32x4.splat(0)
  let i: usize = 0
  for (; i + 4 <= n; i += 4) m = f32x4.max(m, f32x4.abs(v128.load(x + (i << 2))))
  let most = max<f32>(max<f32>(f32x4.extract_lane(m, 0), f32x4.extract_lane(m, 1)), max<f32>(f32x4.extract_lane(m, 2), f32x4.extract_lane(m, 3)))
  for (; i < n; i++) most = max<f32>(most, abs<f32>(load<f32>(x + (i << 2))))
  return most
}

/** n integers from n values. Returns their scale: max |x| / 127; value = x * (127 / max |x|) to nearest, ties to even. */
function quantize(dst: usize, src: usize, n: usize): f32 {
  const most = largest(src, n)
  const inverse: f32 = most > 0 ? <f32>127 / most : 0
  for (let i: usize = 0; i < n; i++) store<i8>(dst + i, <i8>(<i32>nearest<f32>(load<f32>(src + (i << 2)) * inverse)))
  return most / <f32>127
}

/** A cached row from n values: columns before `split` with one scale, those from it on with another. keys: columns of the sum. */
export function cacheRowInt8(dst: usize, src: usize, n: usize, padded: usize, keys: usize, split: usize): void {
  const first = min(n, split)
  const meta = dst + padded
  store<f32>(meta, quantize(dst, src, first))
  if (split < padded) store<f32>(meta, quantize(dst + first, src + (first << 2), n - first), 8)
  memory.fill(dst + n, 0, padded - n)
  let sum: i32 = 0
  for (let i: usize = 0; i < keys; i++) sum += <i32>load<i8>(dst + i)
  store<i32>(meta, sum, 4)
}

/**
 * dst [ceil(n / 4)][headLanes][4] bytes (value + 64) from src [rows][heads][n], then [headLanes] scales: max |x| / 63 of a head. Columns
 * past n and lanes past the last head are value 0. Strides as those of transposeHeads.
 */
export function quantizeHeads(
  dst: usize, src: usize, stride: usize, heads: usize, headLanes: usize, n: usize, rows: usize, rowStride: usize,
): void {
  const laneBytes = headLanes << 2
  const groups = (n + 3) >> 2
  let scales = dst + groups * laneBytes
  memory.fill(dst, 64, groups * laneBytes)
  memory.fill(scales, 0, laneBytes)
  for (let r: usize = 0; r < rows; r++, src += rowStride) {
    for (let h: usize = 0; h < heads; h++, dst += 4, scales += 4) quantizeHead(dst, laneBytes, src + h * stride, n, scales)
  }
}

/** One head of these: a group of 4 columns every laneBytes. */
function quantizeHead(out: usize, laneBytes: usize, src: usize, n: usize, scale: usize): void {
  const offset = i8x16.splat(64)
  const most = largest(src, n)
  const inverse: f32 = most > 0 ? <f32>63 / most : 0
  store<f32>(scale, most / <f32>63)
  const inv = f32x4.splat(inverse)
  let i: usize = 0
  for (; i + 4 <= n; i += 4, out += laneBytes) {
    const v = rounded(v128.load(src + (i << 2)), inv)
    const words = i16x8.narrow_i32x4_s(v, v)
    v128.store32_lane(out, i8x16.add(i8x16.narrow_i16x8_s(words, words), offset), 0)
  }
  for (let j: usize = 0; i < n; i++, j++) store<u8>(out + j, <u8>(<i32>nearest<f32>(load<f32>(src + (i << 2)) * inverse) + 64))
}

/** acc + the products of 4 columns of a cached row, the same in all lanes, with those of 4 heads. */
// @ts-ignore: decorator
@inline function dotRow(acc: v128, row: v128, q: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return dot4(acc, row, q)
  return dot4(acc, q, row)
}

/** The score of a dot product: 64 times the row's sum is subtracted, then the result is scaled. meta: of the cached row. */
// @ts-ignore: decorator
@inline function score(dot: v128, meta: usize, queryScales: v128): v128 {
  const exact = i32x4.sub(dot, i32x4.splat(load<i32>(meta, 4) << 6))
  return f32x4.mul(f32x4.convert_i32x4_s(exact), f32x4.mul(queryScales, v128.load32_splat(meta)))
}

/** out[t][h] = query h . cached row t. q: as quantizeHeads writes it, `groups` of 4 columns; out: [tokens][headLanes]. */
export function dotInt8(q: usize, c: usize, cStride: usize, meta: usize, groups: usize, out: usize, headLanes: usize, tokens: usize): void {
  const laneBytes = headLanes << 2
  const scales = q + groups * laneBytes
  let t: usize = 0
  for (; t + 4 <= tokens; t += 4) {
    const m0 = c + meta, m1 = m0 + cStride, m2 = m1 + cStride, m3 = m2 + cStride
    let h: usize = 0
    for (; h + 32 <= laneBytes; h += 32) {
      let a0 = i32x4.splat(0), b0 = i32x4.splat(0), a1 = i32x4.splat(0), b1 = i32x4.splat(0)
      let a2 = i32x4.splat(0), b2 = i32x4.splat(0), a3 = i32x4.splat(0), b3 = i32x4.splat(0)
      let p = c, qp = q + h
      for (let i: usize = 0; i < groups; i++) {
        const u = v128.load(qp), v = v128.load(qp, 16)
        let r = p
        let x = v128.load32_splat(r); a0 = dotRow(a0, x, u); b0 = dotRow(b0, x, v)
        r += cStride
        x = v128.load32_splat(r); a1 = dotRow(a1, x, u); b1 = dotRow(b1, x, v)
        r += cStride
        x = v128.load32_splat(r); a2 = dotRow(a2, x, u); b2 = dotRow(b2, x, v)
        r += cStride
        x = v128.load32_splat(r); a3 = dotRow(a3, x, u); b3 = dotRow(b3, x, v)
        qp += laneBytes; p += 4
      }
      const s = v128.load(scales + h), w = v128.load(scales + h, 16)
      let o = out + h
      v128.store(o, score(a0, m0, s)); v128.store(o, score(b0, m0, w), 16); o += laneBytes
      v128.store(o, score(a1, m1, s)); v128.store(o, score(b1, m1, w), 16); o += laneBytes
      v128.store(o, score(a2, m2, s)); v128.store(o, score(b2, m2, w), 16); o += laneBytes
      v128.store(o, score(a3, m3, s)); v128.store(o, score(b3, m3, w), 16)
    }
    if (h < laneBytes) {
      let a0 = i32x4.splat(0), a1 = i32x4.splat(0), a2 = i32x4.splat(0), a3 = i32x4.splat(0)
      let p = c, qp = q + h
      for (let i: usize = 0; i < groups; i++) {
        const u = v128.load(qp)
        let r = p
        a0 = dotRow(a0, v128.load32_splat(r), u); r += cStride
        a1 = dotRow(a1, v128.load32_splat(r), u); r += cStride
        a2 = dotRow(a2, v128.load32_splat(r), u); r += cStride
        a3 = dotRow(a3, v128.load32_splat(r), u)
        qp += laneBytes; p += 4
      }
      const s = v128.load(scales + h)
      let o = out + h
      v128.store(o, score(a0, m0, s)); o += laneBytes; v128.store(o, score(a1, m1, s)); o += laneBytes
      v128.store(o, score(a2, m2, s)); o += laneBytes; v128.store(o, score(a3, m3, s))
    }
    c += cStride << 2
    out += laneBytes << 2
  }
  for (; t < tokens; t++) {
    for (let h: usize = 0; h < laneBytes; h += 16) {
      let a = i32x4.splat(0)
      let p = c, qp = q + h
      for (let i: usize = 0; i < groups; i++) {
        a = dotRow(a, v128.load32_splat(p), v128.load(qp))
        qp += laneBytes; p += 4
      }
      v128.store(out + h, score(a, c + meta, v128.load(scales + h)))
    }
    c += cStride
    out += laneBytes
  }
}

/** dst [tokens][n] float32 from the integers of n columns, a multiple of 4; scores[t][h] times the scale of row t's values. */
function widenValues(c: usize, cStride: usize, scale: usize, n: usize, dst: usize, scores: usize, headLanes: usize, tokens: usize): void {
  for (let t: usize = 0; t < tokens; t++, c += cStride, scale += cStride) {
    let i: usize = 0
    for (; i + 8 <= n; i += 8, dst += 32) {
      const v = v128.load8x8_s(c + i)
      v128.store(dst, f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(v)))
      v128.store(dst, f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(v)), 16)
    }
    if (i < n) {
      v128.store(dst, f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(i16x8.extend_low_i8x16_s(v128.load32_zero(c + i)))))
      dst += 16
    }
    const s = v128.load32_splat(scale)
    for (let h: usize = 0; h < headLanes; h += 4, scores += 16) v128.store(scores, f32x4.mul(v128.load(scores), s))
  }
}

/**
 * As attendF32, over an int8 cache. q: as quantizeHeads writes it, keyWidth / 4 rounded up groups; key: the page's first row; value: its
 * first value column; meta: as above; valueMeta: bytes from a row's start to the scale of its values; values: scratch [64][valueWidth] float32.
 */
export function attendInt8(
  q: usize, key: usize, keyWidth: usize, value: usize, valueWidth: usize, cStride: usize, meta: usize, valueMeta: usize, pe: usize, peStride: usize,
  peRowHeads: usize, scale: f32, values: usize, scores: usize, state: usize, z: usize, zStride: usize, heads: usize, headLanes: usize, tokens: usize,
  most: usize, rowHeads: usize,
): void {
  dotInt8(q, key, cStride, meta, (keyWidth + 3) >> 2, scores, headLanes, most)
  softmaxPage(scores, pe, peStride, peRowHeads, scale, state, headLanes, tokens, most, rowHeads)
  widenValues(value, cStride, key + valueMeta, valueWidth, values, scores, headLanes, most)
  accumulate<u32>(scores, state + (headLanes << 3), values, valueWidth << 2, valueWidth, z, zStride, heads, headLanes, tokens, most, rowHeads)
}
