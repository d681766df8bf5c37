// float64 functions from + - x / and square root alone, so that every engine and version gives the same bits.
// (Math.exp, pow, sin and cos may differ between engines: 61 of 4.2 M rope values did between Node 20 and 24.)

const LN2_HIGH = 6.9314718036912381649e-1
const LN2_LOW = 1.90821492927058770002e-10

/** 2^n for integers -1074..1023, by repeated squaring of exact powers. */
function powerOfTwo(n: number): number {
  let result = 1
  let base = n < 0 ? 0.5 : 2
  for (let k = n < 0 ? -n : n; k > 0; k >>= 1) {
    if (k & 1) result *= base
    base *= base
  }
  return result
}

/** e^x, relative error below 1e-15; 0 below -745, Infinity above 709.78; NaN stays NaN. */
export function exp(x: number): number {
  if (Number.isNaN(x)) return x
  if (x < -745) return 0
  if (x > 709.78) return Number.POSITIVE_INFINITY
  const n = Math.round(x * 1.4426950408889634)
  const r = x - n * LN2_HIGH - n * LN2_LOW
  // Taylor to r^14 / 14! on |r| <= 0.347: remainder below 1e-18.
  let p = 1
  for (let k = 14; k >= 1; k--) p = 1 + (r * p) / k
  return n < -1000 ? p * powerOfTwo(n + 100) * powerOfTwo(-100) : p * powerOfTwo(n)
}

const double = new Float64Array(1)
const words = new Uint32Array(double.buffer)

/** Natural logarithm of a finite x > 0, relative error below 1e-15 away from 1; -Infinity at 0, NaN below. */
export function log(x: number): number {
  if (!(x > 0)) return x === 0 ? Number.NEGATIVE_INFINITY : Number.NaN
  if (x === Number.POSITIVE_INFINITY) return x
  if (x < 2.2250738585072014e-308) return log(x * 18014398509481984) - 54 * LN2_HIGH - 54 * LN2_LOW
  double[0] = x
  let n = ((words[1] as number) >>> 20) - 1023
  words[1] = ((words[1] as number) & 0xfffff) | 0x3ff00000
  let m = double[0] as number
  if (m > 1.4142135623730951) {
    m /= 2
    n++
  }
  // log m = 2 atanh(s); |s| <= 0.1716, remainder below 1e-18.
  const s = (m - 1) / (m + 1)
  const z = s * s
  let p = 1 / 23
  for (let k = 21; k >= 1; k -= 2) p = 1 / k + z * p
  return n * LN2_HIGH + (n * LN2_LOW + 2 * s * p)
}

// pi/2 in three parts, the first two with 33 significant bits: n * part is exact for n below 2^20.
const HALF_PI_1 = 1.57079632673412561417
const HALF_PI_2 = 6.0771005063039659766e-11
const HALF_PI_3 = 2.02226624879595063154e-21

/** out[at] = cos(x), out[sinAt] = sin(x), x in 0..1e6 radians, absolute error below 1e-15 x max(1, x / 1e5). */
export function cosSin(x: number, out: { [index: number]: number }, at: number, sinAt: number): void {
  const n = Math.round(x / 1.5707963267948966)
  const r = x - n * HALF_PI_1 - n * HALF_PI_2 - n * HALF_PI_3
  const z = r * r
  let s = 1
  for (let k = 19; k >= 3; k -= 2) s = 1 - (z * s) / (k * (k - 1))
  s *= r
  let c = 1
  for (let k = 18; k >= 2; k -= 2) c = 1 - (z * c) / (k * (k - 1))
  const quadrant = n & 3
  out[at] = quadrant === 0 ? c : quadrant === 1 ? -s : quadrant === 2 ? -c : s
  out[sinAt] = quadrant === 0 ? s : quadrant === 1 ? c : quadrant === 2 ? -s : -c
}

/** Rope frequencies base^(-2i/d) for i = 0..d/2-1 (d = 2 * half), radians per token. */
export function ropeFrequencies(half: number, base: number): number[] {
  const logBase = log(base)
  return Array.from({ length: half }, (_, i) => exp((-i * logBase) / half))
}

/** Mixes 32 bits (the finalizer of MurmurHash3). */
function mix(h: number): number {
  let v = h
  v = Math.imul(v ^ (v >>> 16), 0x85ebca6b)
  v = Math.imul(v ^ (v >>> 13), 0xc2b2ae35)
  return (v ^ (v >>> 16)) >>> 0
}

/**
 * A uniform number in [0, 1) with 53 bits: a stateless function of (seed, choice, position), so that the same request
 * draws the same numbers whatever else runs. seed: two unsigned 32-bit halves.
 */
export function uniform(seedLow: number, seedHigh: number, choice: number, position: number): number {
  const a = mix(seedLow ^ mix(seedHigh ^ mix(choice + 0x9e3779b9)))
  const high = mix(a ^ mix(position + 0x85ebca6b))
  const low = mix(high ^ mix((a + Math.imul(position, 0x9e3779b1)) >>> 0))
  return (high * 2097152 + (low >>> 11)) / 9007199254740992
}
