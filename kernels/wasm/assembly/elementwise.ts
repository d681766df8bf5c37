// Row-wise operations: norms, rotary embedding, SwiGLU, sums of partials, cache writes, copies within one memory.
import { exp4 } from './math'

/**
 * y[t] = w * (x[t] / sqrt(mean(x[t]^2) + epsilon)); x, y: [tokens][n], w: [n].
 * The sum of squares is one scalar accumulator in ascending order.
 */
export function rmsNorm(x: usize, xStride: usize, w: usize, y: usize, yStride: usize, n: usize, tokens: i32, epsilon: f32): void {
  for (let t = 0; t < tokens; t++) {
    let sum: f32 = 0
    for (let i: usize = 0; i < n; i++) { const v = load<f32>(x + (i << 2)); sum += v * v }
    const r: f32 = <f32>1 / sqrt<f32>(sum / <f32>n + epsilon)
    const rv = f32x4.splat(r)
    let i: usize = 0
    for (; i + 4 <= n; i += 4)
      v128.store(y + (i << 2), f32x4.mul(f32x4.mul(v128.load(x + (i << 2)), rv), v128.load(w + (i << 2))))
    for (; i < n; i++) store<f32>(y + (i << 2), load<f32>(x + (i << 2)) * r * load<f32>(w + (i << 2)))
    x += xStride; y += yStride
  }
}

/**
 * Rotates `heads` vectors of 2 * half values in place, halves convention: [a cos - b sin, a sin + b cos].
 * x: first vector of the first token; table: [tokens][cos half, sin half].
 */
export function rope(x: usize, xStride: usize, headStride: usize, heads: i32, half: usize, table: usize, tokens: i32): void {
  for (let t = 0; t < tokens; t++) {
    for (let h = 0; h < heads; h++) {
      const p = x + <usize>h * headStride
      for (let i: usize = 0; i < half; i++) {
        const a = load<f32>(p + (i << 2)), b = load<f32>(p + ((half + i) << 2))
        const c = load<f32>(table + (i << 2)), s = load<f32>(table + ((half + i) << 2))
        store<f32>(p + (i << 2), a * c - b * s)
        store<f32>(p + ((half + i) << 2), a * s + b * c)
      }
    }
    x += xStride; table += half << 3
  }
}

/** gate = silu(gate) * up, elementwise over [tokens] rows of n values (n a multiple of 4, the row padding included). */
export function swiglu(gate: usize, up: usize, stride: usize, n: usize, tokens: i32): void {
  const one = f32x4.splat(1)
  for (let t = 0; t < tokens; t++) {
    for (let i: usize = 0; i < n << 2; i += 16) {
      const g = v128.load(gate + i)
      v128.store(gate + i, f32x4.mul(f32x4.div(g, f32x4.add(one, exp4(f32x4.neg(g)))), v128.load(up + i)))
    }
    gate += stride; up += stride
  }
}

/** x[t] *= sigmoid(gate[t]), elementwise over [tokens] rows of n values (n a multiple of 4, the row padding included). */
export function gateRows(x: usize, xStride: usize, gate: usize, gateStride: usize, n: usize, tokens: i32): void {
  const one = f32x4.splat(1)
  for (let t = 0; t < tokens; t++) {
    for (let i: usize = 0; i < n << 2; i += 16)
      v128.store(x + i, f32x4.div(v128.load(x + i), f32x4.add(one, exp4(f32x4.neg(v128.load(gate + i))))))
    x += xStride; gate += gateStride
  }
}

/** dst[t][h] = sum over r of a[t][h][r] * b[t][r], one accumulator per output, r ascending. dst: `heads` vectors of `width`. */
export function combineFactors(
  dst: usize, dstStride: usize, a: usize, aStride: usize, b: usize, bStride: usize, heads: usize, rank: usize, width: usize, tokens: i32,
): void {
  const bytes = width << 2
  for (let t = 0; t < tokens; t++) {
    let out = dst
    let ah = a
    for (let h: usize = 0; h < heads; h++, out += bytes, ah += rank << 2) {
      let i: usize = 0
      for (; i + 16 <= bytes; i += 16) {
        let sum = f32x4.splat(0)
        for (let r: usize = 0; r < rank; r++) sum = f32x4.add(sum, f32x4.mul(v128.load32_splat(ah + (r << 2)), v128.load(b + r * bytes + i)))
        v128.store(out + i, sum)
      }
      for (; i < bytes; i += 4) {
        let sum: f32 = 0
        for (let r: usize = 0; r < rank; r++) sum += load<f32>(ah + (r << 2)) * load<f32>(b + r * bytes + i)
        store<f32>(out + i, sum)
      }
    }
    dst += dstStride; a += aStride; b += bStride
  }
}

/** dst[t] = (((a + b) + c) + d) * factor over the first `count` (1..4) sources, each [tokens] rows of n values. */
export function sumPartials(
  dst: usize, dstStride: usize, a: usize, b: usize, c: usize, d: usize, count: i32, srcStride: usize,
  n: usize, tokens: i32, factor: f32,
): void {
  const fv = f32x4.splat(factor)
  for (let t = 0; t < tokens; t++) {
    let i: usize = 0
    for (; i + 4 <= n; i += 4) {
      const o = i << 2
      let v = v128.load(a + o)
      if (count > 1) v = f32x4.add(v, v128.load(b + o))
      if (count > 2) v = f32x4.add(v, v128.load(c + o))
      if (count > 3) v = f32x4.add(v, v128.load(d + o))
      v128.store(dst + o, f32x4.mul(v, fv))
    }
    for (; i < n; i++) {
      const o = i << 2
      let v = load<f32>(a + o)
      if (count > 1) v += load<f32>(b + o)
      if (count > 2) v += load<f32>(c + o)
      if (count > 3) v += load<f32>(d + o)
      store<f32>(dst + o, v * factor)
    }
    a += srcStride; b += srcStride; c += srcStride; d += srcStride; dst += dstStride
  }
}

/** x[t] += y[t], [tokens] rows of n values. */
export function addRows(x: usize, xStride: usize, y: usize, yStride: usize, n: usize, tokens: i32): void {
  for (let t = 0; t < tokens; t++) {
    let i: usize = 0
    for (; i + 4 <= n; i += 4) v128.store(x + (i << 2), f32x4.add(v128.load(x + (i << 2)), v128.load(y + (i << 2))))
    for (; i < n; i++) store<f32>(x + (i << 2), load<f32>(x + (i << 2)) + load<f32>(y + (i << 2)))
    x += xStride; y += yStride
  }
}

/** Writes n values of one row to the cache, zeros up to `padded`. */
export function cacheRowF32(dst: usize, src: usize, n: usize, padded: usize): void {
  memory.copy(dst, src, n << 2)
  memory.fill(dst + (n << 2), 0, (padded - n) << 2)
}

/** The same, rounded to bfloat16 (nearest, ties to even). Values are finite. */
export function cacheRowBf16(dst: usize, src: usize, n: usize, padded: usize): void {
  for (let i: usize = 0; i < n; i++) {
    const bits = load<u32>(src + (i << 2))
    store<u16>(dst + (i << 1), <u16>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16))
  }
  for (let i = n; i < padded; i++) store<u16>(dst + (i << 1), 0)
}

/** dst[k] = row `row` (0..31) of a packed tile. */
export function gatherRowF32(tile: usize, row: usize, k: usize, dst: usize): void {
  for (let i: usize = 0; i < k; i++) store<f32>(dst + (i << 2), load<f32>(tile + (i << 7) + (row << 2)))
}

/** The same from a bfloat16 tile: row r of a column is the (r >> 2 & 1) half of lane r & 3 of vector r >> 3. */
export function gatherRowBf16(tile: usize, row: usize, k: usize, dst: usize): void {
  const p = tile + ((row >> 3) << 4) + ((row & 3) << 2) + (((row >> 2) & 1) << 1)
  for (let i: usize = 0; i < k; i++) store<u32>(dst + (i << 2), <u32>load<u16>(p + (i << 6)) << 16)
}
