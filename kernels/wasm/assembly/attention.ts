// Attention of a tile of query rows over one page of the cache. The heads of a tile are those of its first row, then of the next:
// rowHeads each. Lanes are heads for the scores and cache columns for the weighted sum; every score and every sum is one accumulator in ascending order (columns, then cached tokens).
// The caller walks the pages of a row in sequence order, so a row's bits depend on its own position alone.
//
// Rows of a tile follow each other in their sequence: the first one's heads see `tokens` cached rows of the page, those of each next row
// one more, and none more than `most`.
import { madd } from './madd'
import { exp4 } from './math'

/** One cached value in all lanes. C is u32 (f32 cache) or u16 (bf16 cache). */
// @ts-ignore: decorator
@inline function splat<C>(p: usize): v128 {
  if (sizeof<C>() == 2) return v128.and(v128.load16_splat(p), i32x4.splat(0xffff0000))
  return v128.load32_splat(p)
}

/** Four consecutive cached values. */
// @ts-ignore: decorator
@inline function four<C>(p: usize): v128 {
  if (sizeof<C>() == 2) return i32x4.shl(v128.load16x4_u(p), 16)
  return v128.load(p)
}

/** Cached rows that head h of a tile sees. */
// @ts-ignore: decorator
@inline function visible(h: usize, rowHeads: usize, tokens: usize, most: usize): usize { return min(most, tokens + h / rowHeads) }

/** dst [n][rows * heads] from src [rows][heads][n]; `stride` bytes between heads, `rowStride` between rows; lanes past the last become 0. */
export function transposeHeads(
  dst: usize, src: usize, stride: usize, heads: usize, headLanes: usize, n: usize, rows: usize, rowStride: usize,
): void {
  for (let i: usize = 0; i < n; i++) {
    let q = dst + i * (headLanes << 2)
    const next = q + (headLanes << 2)
    for (let r: usize = 0; r < rows; r++) {
      let p = src + r * rowStride + (i << 2)
      for (let h: usize = 0; h < heads; h++, q += 4, p += stride) store<f32>(q, load<f32>(p))
    }
    for (; q < next; q += 4) store<f32>(q, 0)
  }
}

/**
 * out[t][h] = sum over k of q[k][h] * c[t][k]. q: [k][headLanes], c: [tokens][k] cached, out: [tokens rounded up to 4][headLanes]: four rows
 * at a time, of which the last is repeated; what that leaves past `tokens` means nothing.
 */
function dot<C>(q: usize, c: usize, cStride: usize, k: usize, out: usize, headLanes: usize, tokens: usize): void {
  const laneBytes = headLanes << 2
  const step: usize = sizeof<C>()
  for (let t: usize = 0; t < tokens; t += 4) {
    const left = tokens - t
    const c1 = left > 1 ? c + cStride : c, c2 = left > 2 ? c1 + cStride : c1, c3 = left > 3 ? c2 + cStride : c2
    let h: usize = 0
    for (; h + 32 <= laneBytes; h += 32) {
      let a0 = f32x4.splat(0), b0 = f32x4.splat(0), a1 = f32x4.splat(0), b1 = f32x4.splat(0)
      let a2 = f32x4.splat(0), b2 = f32x4.splat(0), a3 = f32x4.splat(0), b3 = f32x4.splat(0)
      let p0 = c, p1 = c1, p2 = c2, p3 = c3
      let qp = q + h
      const end = p0 + k * step
      // The test is at the end, so that the compiler moves constants out of the loop.
      if (k > 0) do {
        const u = v128.load(qp), v = v128.load(qp, 16)
        let x = splat<C>(p0); a0 = madd(a0, u, x); b0 = madd(b0, v, x)
        x = splat<C>(p1); a1 = madd(a1, u, x); b1 = madd(b1, v, x)
        x = splat<C>(p2); a2 = madd(a2, u, x); b2 = madd(b2, v, x)
        x = splat<C>(p3); a3 = madd(a3, u, x); b3 = madd(b3, v, x)
        qp += laneBytes; p0 += step; p1 += step; p2 += step; p3 += step
      } while (p0 < end)
      let o = out + h
      v128.store(o, a0); v128.store(o, b0, 16); o += laneBytes
      v128.store(o, a1); v128.store(o, b1, 16); o += laneBytes
      v128.store(o, a2); v128.store(o, b2, 16); o += laneBytes
      v128.store(o, a3); v128.store(o, b3, 16)
    }
    if (h < laneBytes) {
      let a0 = f32x4.splat(0), a1 = f32x4.splat(0), a2 = f32x4.splat(0), a3 = f32x4.splat(0)
      let p0 = c, p1 = c1, p2 = c2, p3 = c3
      let qp = q + h
      const end = p0 + k * step
      if (k > 0) do {
        const u = v128.load(qp)
        a0 = madd(a0, u, splat<C>(p0)); a1 = madd(a1, u, splat<C>(p1))
        a2 = madd(a2, u, splat<C>(p2)); a3 = madd(a3, u, splat<C>(p3))
        qp += laneBytes; p0 += step; p1 += step; p2 += step; p3 += step
      } while (p0 < end)
      let o = out + h
      v128.store(o, a0); o += laneBytes; v128.store(o, a1); o += laneBytes
      v128.store(o, a2); o += laneBytes; v128.store(o, a3)
    }
    c += cStride << 2
    out += laneBytes << 2
  }
}

/**
 * scores -> probabilities of one page, in place, and the running state.
 * s = (s + pe) * scale; m' = max(m, page maximum); p = exp(s - m'); sum = sum * exp(m - m') + p0 + p1 + ...
 * scores: [most][lanes]; pe: second terms, rows peStride apart, with peRowHeads heads for each row of the tile, or 0: none. Either
 * peRowHeads is rowHeads or that is a multiple of 4. state: [max lanes][sum lanes][alpha lanes].
 */
export function softmaxPage(
  scores: usize, pe: usize, peStride: usize, peRowHeads: usize, scale: f32, state: usize, headLanes: usize, tokens: usize, most: usize, rowHeads: usize,
): void {
  const laneBytes = headLanes << 2
  const factor = f32x4.splat(scale)
  for (let h: usize = 0; h < headLanes; h += 4) {
    const at = h << 2
    // Of the group's first head and of its last: heads of the last rows are masked out of the first rows that they alone see.
    const all = visible(h, rowHeads, tokens, most), some = visible(h + 3, rowHeads, tokens, most)
    const seen = i32x4(<i32>all, <i32>visible(h + 1, rowHeads, tokens, most), <i32>visible(h + 2, rowHeads, tokens, most), <i32>some)
    const previous = v128.load(state + at)
    let m = previous
    let s = scores + at, e = pe + ((h / rowHeads * peRowHeads + h % rowHeads) << 2)
    for (let t: usize = 0; t < some; t++) {
      let v = v128.load(s)
      if (pe) v = f32x4.add(v, v128.load(e))
      v = f32x4.mul(v, factor)
      v128.store(s, v)
      const larger = f32x4.pmax(m, v)
      m = t < all ? larger : v128.bitselect(larger, m, i32x4.lt_s(i32x4.splat(<i32>t), seen))
      s += laneBytes; e += peStride
    }
    const alpha = exp4(f32x4.sub(previous, m))
    let sum = f32x4.mul(v128.load(state + laneBytes + at), alpha)
    s = scores + at
    for (let t: usize = 0; t < some; t++) {
      const p = exp4(f32x4.sub(v128.load(s), m))
      v128.store(s, p)
      const larger = f32x4.add(sum, p)
      sum = t < all ? larger : v128.bitselect(larger, sum, i32x4.lt_s(i32x4.splat(<i32>t), seen))
      s += laneBytes
    }
    v128.store(state + at, m)
    v128.store(state + laneBytes + at, sum)
    v128.store(state + (laneBytes << 1) + at, alpha)
  }
}

/** zg[v] = zg[v] * alpha + sum over `steps` (1 or more) cached rows of p[t] * c[t][v], for one head. */
// @ts-ignore: decorator
@inline function accumulateHead<C>(pr: usize, laneBytes: usize, alpha: v128, c: usize, cStride: usize, v: usize, zg: usize, steps: usize): void {
  const fourBytes: usize = sizeof<C>() << 2
  const end = pr + steps * laneBytes
  let i: usize = 0
  for (; i + 16 <= v; i += 16, zg += 64, c += fourBytes << 2) {
    let a0 = f32x4.mul(v128.load(zg), alpha), a1 = f32x4.mul(v128.load(zg, 16), alpha)
    let a2 = f32x4.mul(v128.load(zg, 32), alpha), a3 = f32x4.mul(v128.load(zg, 48), alpha)
    let cp = c, pp = pr
    do {
      const x = v128.load32_splat(pp)
      a0 = madd(a0, four<C>(cp), x); a1 = madd(a1, four<C>(cp + fourBytes), x)
      a2 = madd(a2, four<C>(cp + 2 * fourBytes), x); a3 = madd(a3, four<C>(cp + 3 * fourBytes), x)
      cp += cStride; pp += laneBytes
    } while (pp < end)
    v128.store(zg, a0); v128.store(zg, a1, 16); v128.store(zg, a2, 32); v128.store(zg, a3, 48)
  }
  for (; i < v; i += 4, zg += 16, c += fourBytes) {
    let a = f32x4.mul(v128.load(zg), alpha)
    let cp = c, pp = pr
    do {
      a = madd(a, four<C>(cp), v128.load32_splat(pp))
      cp += cStride; pp += laneBytes
    } while (pp < end)
    v128.store(zg, a)
  }
}

/** The same for two heads that see as many rows: p and z of the second lie 4 and zStride bytes on. v a multiple of 4. */
// @ts-ignore: decorator
@inline function accumulatePair<C>(
  pr: usize, laneBytes: usize, l0: v128, l1: v128, c: usize, cStride: usize, v: usize, zg: usize, zStride: usize, steps: usize,
): void {
  const fourBytes: usize = sizeof<C>() << 2
  const end = pr + steps * laneBytes
  let zh = zg + zStride
  let i: usize = 0
  for (; i + 16 <= v; i += 16, zg += 64, zh += 64, c += fourBytes << 2) {
    let a0 = f32x4.mul(v128.load(zg), l0), a1 = f32x4.mul(v128.load(zg, 16), l0)
    let a2 = f32x4.mul(v128.load(zg, 32), l0), a3 = f32x4.mul(v128.load(zg, 48), l0)
    let b0 = f32x4.mul(v128.load(zh), l1), b1 = f32x4.mul(v128.load(zh, 16), l1)
    let b2 = f32x4.mul(v128.load(zh, 32), l1), b3 = f32x4.mul(v128.load(zh, 48), l1)
    let cp = c, pp = pr
    do {
      const x = v128.load32_splat(pp), y = v128.load32_splat(pp, 4)
      let u = four<C>(cp); a0 = madd(a0, u, x); b0 = madd(b0, u, y)
      u = four<C>(cp + fourBytes); a1 = madd(a1, u, x); b1 = madd(b1, u, y)
      u = four<C>(cp + 2 * fourBytes); a2 = madd(a2, u, x); b2 = madd(b2, u, y)
      u = four<C>(cp + 3 * fourBytes); a3 = madd(a3, u, x); b3 = madd(b3, u, y)
      cp += cStride; pp += laneBytes
    } while (pp < end)
    v128.store(zg, a0); v128.store(zg, a1, 16); v128.store(zg, a2, 32); v128.store(zg, a3, 48)
    v128.store(zh, b0); v128.store(zh, b1, 16); v128.store(zh, b2, 32); v128.store(zh, b3, 48)
  }
  for (; i < v; i += 4, zg += 16, zh += 16, c += fourBytes) {
    let a = f32x4.mul(v128.load(zg), l0), b = f32x4.mul(v128.load(zh), l1)
    let cp = c, pp = pr
    do {
      const u = four<C>(cp)
      a = madd(a, u, v128.load32_splat(pp)); b = madd(b, u, v128.load32_splat(pp, 4))
      cp += cStride; pp += laneBytes
    } while (pp < end)
    v128.store(zg, a); v128.store(zh, b)
  }
}

/** z[h][v] = z[h][v] * alpha[h] + sum over the cached rows that h sees (1 or more) of p[t][h] * c[t][v]. v a multiple of 4; z: [heads][zStride bytes]. */
export function accumulate<C>(
  p: usize, alpha: usize, c: usize, cStride: usize, v: usize, z: usize, zStride: usize, heads: usize, headLanes: usize,
  tokens: usize, most: usize, rowHeads: usize,
): void {
  const laneBytes = headLanes << 2
  const fourBytes: usize = sizeof<C>() << 2
  for (let h: usize = 0; h < heads; h += 4) {
    const left = heads - h
    const z0 = z + h * zStride, z1 = z0 + zStride, z2 = z1 + zStride, z3 = z2 + zStride
    const al = alpha + (h << 2), pr = p + (h << 2)
    const all = visible(h, rowHeads, tokens, most)
    const end = pr + all * laneBytes
    if (left >= 4) {
      const l0 = v128.load32_splat(al), l1 = v128.load32_splat(al, 4), l2 = v128.load32_splat(al, 8), l3 = v128.load32_splat(al, 12)
      let i: usize = 0
      let column = c
      for (; i + 8 <= v; i += 8) {
        const o = i << 2
        let a0 = f32x4.mul(v128.load(z0 + o), l0), b0 = f32x4.mul(v128.load(z0 + o, 16), l0)
        let a1 = f32x4.mul(v128.load(z1 + o), l1), b1 = f32x4.mul(v128.load(z1 + o, 16), l1)
        let a2 = f32x4.mul(v128.load(z2 + o), l2), b2 = f32x4.mul(v128.load(z2 + o, 16), l2)
        let a3 = f32x4.mul(v128.load(z3 + o), l3), b3 = f32x4.mul(v128.load(z3 + o, 16), l3)
        let cp = column, pp = pr
        do {
          const u = four<C>(cp), w = four<C>(cp + fourBytes)
          let x = v128.load32_splat(pp); a0 = madd(a0, u, x); b0 = madd(b0, w, x)
          x = v128.load32_splat(pp, 4); a1 = madd(a1, u, x); b1 = madd(b1, w, x)
          x = v128.load32_splat(pp, 8); a2 = madd(a2, u, x); b2 = madd(b2, w, x)
          x = v128.load32_splat(pp, 12); a3 = madd(a3, u, x); b3 = madd(b3, w, x)
          cp += cStride; pp += laneBytes
        } while (pp < end)
        v128.store(z0 + o, a0); v128.store(z0 + o, b0, 16); v128.store(z1 + o, a1); v128.store(z1 + o, b1, 16)
        v128.store(z2 + o, a2); v128.store(z2 + o, b2, 16); v128.store(z3 + o, a3); v128.store(z3 + o, b3, 16)
        column += fourBytes << 1
      }
      if (i < v) {
        const o = i << 2
        let a0 = f32x4.mul(v128.load(z0 + o), l0), a1 = f32x4.mul(v128.load(z1 + o), l1)
        let a2 = f32x4.mul(v128.load(z2 + o), l2), a3 = f32x4.mul(v128.load(z3 + o), l3)
        let cp = column, pp = pr
        do {
          const u = four<C>(cp)
          a0 = madd(a0, u, v128.load32_splat(pp)); a1 = madd(a1, u, v128.load32_splat(pp, 4))
          a2 = madd(a2, u, v128.load32_splat(pp, 8)); a3 = madd(a3, u, v128.load32_splat(pp, 12))
          cp += cStride; pp += laneBytes
        } while (pp < end)
        v128.store(z0 + o, a0); v128.store(z1 + o, a1); v128.store(z2 + o, a2); v128.store(z3 + o, a3)
      }
      // Cached rows that heads of later rows see besides.
      for (let g: usize = 1; g < 4; g++) {
        const more = visible(h + g, rowHeads, tokens, most) - all
        if (more > 0) accumulateHead<C>(pr + (g << 2) + all * laneBytes, laneBytes, f32x4.splat(1), c + all * cStride, cStride, v, z0 + g * zStride, more)
      }
    } else {
      let g: usize = 0
      if (left >= 2 && visible(h + 1, rowHeads, tokens, most) == all) {
        accumulatePair<C>(pr, laneBytes, v128.load32_splat(al), v128.load32_splat(al, 4), c, cStride, v, z0, zStride, all)
        g = 2
      }
      for (; g < left; g++)
        accumulateHead<C>(pr + (g << 2), laneBytes, v128.load32_splat(al + (g << 2)), c, cStride, v, z0 + g * zStride, visible(h + g, rowHeads, tokens, most))
    }
  }
}

// @ts-ignore: decorator
@inline function attend<C>(
  q: usize, key: usize, keyWidth: usize, value: usize, valueWidth: usize, cStride: usize, pe: usize, peStride: usize, peRowHeads: usize, scale: f32,
  scores: usize, state: usize, z: usize, zStride: usize, heads: usize, headLanes: usize, tokens: usize, most: usize, rowHeads: usize,
): void {
  dot<C>(q, key, cStride, keyWidth, scores, headLanes, most)
  softmaxPage(scores, pe, peStride, peRowHeads, scale, state, headLanes, tokens, most, rowHeads)
  accumulate<C>(scores, state + (headLanes << 3), value, cStride, valueWidth, z, zStride, heads, headLanes, tokens, most, rowHeads)
}

/**
 * One page for `heads` heads of a tile, `tokens` and `most` (1..64) as above.
 * q: [keyWidth][headLanes]; key, value: first cached token's columns; pe: [most] rows of second score terms (see softmaxPage), or 0;
 * scores: [64][headLanes] scratch; state: [3][headLanes] (max, sum, scratch); z: [heads] rows, unnormalized.
 */
export function attendF32(
  q: usize, key: usize, keyWidth: usize, value: usize, valueWidth: usize, cStride: usize, pe: usize, peStride: usize, peRowHeads: usize, scale: f32,
  scores: usize, state: usize, z: usize, zStride: usize, heads: usize, headLanes: usize, tokens: usize, most: usize, rowHeads: usize,
): void { attend<u32>(q, key, keyWidth, value, valueWidth, cStride, pe, peStride, peRowHeads, scale, scores, state, z, zStride, heads, headLanes, tokens, most, rowHeads) }

/** As attendF32 over a bfloat16 cache. */
export function attendBf16(
  q: usize, key: usize, keyWidth: usize, value: usize, valueWidth: usize, cStride: usize, pe: usize, peStride: usize, peRowHeads: usize, scale: f32,
  scores: usize, state: usize, z: usize, zStride: usize, heads: usize, headLanes: usize, tokens: usize, most: usize, rowHeads: usize,
): void { attend<u16>(q, key, keyWidth, value, valueWidth, cStride, pe, peStride, peRowHeads, scale, scores, state, z, zStride, heads, headLanes, tokens, most, rowHeads) }

/** scores[t][h] (+)= a[t][h] * dots[t][h]; a: cached coefficients, [tokens][headLanes] at aStride. `first`: starts the sums. */
function weighScores<C>(scores: usize, dots: usize, a: usize, aStride: usize, headLanes: usize, tokens: usize, first: bool): void {
  const laneBytes = headLanes << 2
  for (let t: usize = 0; t < tokens; t++) {
    for (let h: usize = 0; h < headLanes; h += 4) {
      const o = h << 2
      const v = f32x4.mul(four<C>(a + h * sizeof<C>()), v128.load(dots + o))
      v128.store(scores + o, first ? v : f32x4.add(v128.load(scores + o), v))
    }
    scores += laneBytes; dots += laneBytes; a += aStride
  }
}

// @ts-ignore: decorator
@inline function attendFactors<C>(
  q: usize, key: usize, keyWidth: usize, value: usize, valueWidth: usize, valueBytes: usize, cStride: usize, rank: usize, a: usize, aStride: usize,
  scale: f32, dots: usize, scores: usize, state: usize, z: usize, zStride: usize, heads: usize, headLanes: usize, tokens: usize,
): void {
  const columns = headLanes * sizeof<C>()
  for (let r: usize = 0; r < rank; r++) {
    dot<C>(q, key + r * keyWidth * sizeof<C>(), cStride, keyWidth, dots, headLanes, tokens)
    weighScores<C>(scores, dots, a + r * columns, aStride, headLanes, tokens, r == 0)
  }
  softmaxPage(scores, 0, 0, heads, scale, state, headLanes, tokens, tokens, heads)
  const alpha = state + (headLanes << 3)
  for (let r: usize = 0; r < rank; r++) {
    weighScores<C>(dots, scores, a + (rank + r) * columns, aStride, headLanes, tokens, true)
    accumulate<C>(dots, alpha, value + r * valueBytes, cStride, valueWidth, z, zStride, heads, headLanes, tokens, tokens, heads)
    // The sums of earlier pages have been rescaled once.
    if (r == 0) for (let h: usize = 0; h < headLanes << 2; h += 16) v128.store(alpha + h, f32x4.splat(1))
  }
}

/**
 * As attendF32 for one row, for keys and values that are sums over `rank` cached vectors: a: the page's coefficients, a row
 * [2 * rank][headLanes] (of keys, then of values) per token; valueBytes from one value vector to the next; dots: scratch as scores.
 */
export function attendFactorsF32(
  q: usize, key: usize, keyWidth: usize, value: usize, valueWidth: usize, valueBytes: usize, cStride: usize, rank: usize, a: usize, aStride: usize,
  scale: f32, dots: usize, scores: usize, state: usize, z: usize, zStride: usize, heads: usize, headLanes: usize, tokens: usize,
): void { attendFactors<u32>(q, key, keyWidth, value, valueWidth, valueBytes, cStride, rank, a, aStride, scale, dots, scores, state, z, zStride, heads, headLanes, tokens) }

/** As attendFactorsF32 over a bfloat16 cache. */
export function attendFactorsBf16(
  q: usize, key: usize, keyWidth: usize, value: usize, valueWidth: usize, valueBytes: usize, cStride: usize, rank: usize, a: usize, aStride: usize,
  scale: f32, dots: usize, scores: usize, state: usize, z: usize, zStride: usize, heads: usize, headLanes: usize, tokens: usize,
): void { attendFactors<u16>(q, key, keyWidth, value, valueWidth, valueBytes, cStride, rank, a, aStride, scale, dots, scores, state, z, zStride, heads, headLanes, tokens) }

/** The rope part of a page's scores, once for all of a rank's units. */
export function dotF32(q: usize, c: usize, cStride: usize, k: usize, out: usize, headLanes: usize, tokens: usize): void {
  dot<u32>(q, c, cStride, k, out, headLanes, tokens)
}

/** As dotF32 over a bfloat16 cache. */
export function dotBf16(q: usize, c: usize, cStride: usize, k: usize, out: usize, headLanes: usize, tokens: usize): void {
  dot<u16>(q, c, cStride, k, out, headLanes, tokens)
}

/** Clears the running state and z before a row's first page: max lowest, sum 0, z 0. */
export function beginAttention(state: usize, headLanes: usize, z: usize, zStride: usize, heads: usize, valueWidth: usize): void {
  for (let h: usize = 0; h < headLanes << 2; h += 16) {
    v128.store(state + h, f32x4.splat(-3.4028234663852886e38))
    v128.store(state + (headLanes << 2) + h, f32x4.splat(0))
  }
  for (let h: usize = 0; h < heads; h++) memory.fill(z + h * zStride, 0, valueWidth << 2)
}

/** z[h] /= sum[h], after the last page. */
export function finishAttention(z: usize, zStride: usize, sum: usize, valueWidth: usize, heads: usize): void {
  for (let h: usize = 0; h < heads; h++) {
    const d = v128.load32_splat(sum + (h << 2))
    const p = z + h * zStride
    for (let i: usize = 0; i < valueWidth << 2; i += 16) v128.store(p + i, f32x4.div(v128.load(p + i), d))
  }
}
