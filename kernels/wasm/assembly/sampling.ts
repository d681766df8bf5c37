// Chooses a token from one row of logits. -1 means that the row is not finite.
import { exp4 } from './math'

/** The lowest id with the largest logit; -1 if any logit is NaN or the largest is infinite. */
export function argmax(logits: usize, n: i32): i32 {
  const whole = logits + (<usize>(n & ~3) << 2), end = logits + (<usize>n << 2)
  // The largest value, four at a time, then the first place that has it. pmax keeps its first operand beside a NaN.
  let most = f32x4.splat(-Infinity), ordered = i32x4.splat(-1)
  let at = logits
  for (; at < whole; at += 16) {
    const v = v128.load(at)
    ordered = v128.and(ordered, f32x4.eq(v, v))
    most = f32x4.pmax(most, v)
  }
  if (!i32x4.all_true(ordered)) return -1
  let best: f32 = max(max(f32x4.extract_lane(most, 0), f32x4.extract_lane(most, 1)), max(f32x4.extract_lane(most, 2), f32x4.extract_lane(most, 3)))
  for (; at < end; at += 4) {
    const v = load<f32>(at)
    if (v != v) return -1
    best = max(best, v)
  }
  if (best == Infinity || best == -Infinity) return -1
  const wanted = f32x4.splat(best)
  for (at = logits; at < whole; at += 16) if (v128.any_true(f32x4.eq(v128.load(at), wanted))) break
  while (load<f32>(at) != best) at += 4
  return <i32>((at - logits) >> 2)
}

/** Sum of exp(logit - max) over a row, float64, ascending. */
export function sumOfExponentials(logits: usize, n: i32, max: f32): f64 {
  const mv = f32x4.splat(max)
  let sum: f64 = 0
  let i = 0
  for (; i + 4 <= n; i += 4) {
    const e = exp4(f32x4.sub(v128.load(logits + (<usize>i << 2)), mv))
    sum += <f64>f32x4.extract_lane(e, 0)
    sum += <f64>f32x4.extract_lane(e, 1)
    sum += <f64>f32x4.extract_lane(e, 2)
    sum += <f64>f32x4.extract_lane(e, 3)
  }
  for (; i < n; i++) sum += <f64>f32x4.extract_lane(exp4(f32x4.splat(load<f32>(logits + (<usize>i << 2)) - max)), 0)
  return sum
}

/** weights[id] = exp((logit - max) * inverseTemperature); returns the lowest id of the largest, or -1. weights: n rounded up to 4. */
export function softWeights(logits: usize, n: i32, inverseTemperature: f32, weights: usize): i32 {
  const top = argmax(logits, n)
  if (top < 0) return -1
  const max = load<f32>(logits + (<usize>top << 2))
  const mv = f32x4.splat(max), tv = f32x4.splat(inverseTemperature)
  const bytes = <usize>n << 2
  for (let i: usize = 0; i < bytes; i += 16)
    v128.store(weights + i, exp4(f32x4.mul(f32x4.sub(v128.load(logits + i), mv), tv)))
  return top
}

/**
 * Inverse CDF over ids in ascending order: the first id at which the running sum of the weights exceeds u times the whole sum.
 * u in [0, 1). scratch: n values. Sums are float64, ascending.
 */
export function sampleCategorical(logits: usize, n: i32, inverseTemperature: f32, u: f64, scratch: usize): i32 {
  const top = argmax(logits, n)
  if (top < 0) return -1
  const mv = f32x4.splat(load<f32>(logits + (<usize>top << 2))), tv = f32x4.splat(inverseTemperature)
  const whole = <usize>(n & ~3) << 2, bytes = <usize>n << 2
  // What softWeights computes; the sum goes along, since an addition waits for the one before.
  let total: f64 = 0
  let i: usize = 0
  for (; i < whole; i += 16) {
    const e = exp4(f32x4.mul(f32x4.sub(v128.load(logits + i), mv), tv))
    v128.store(scratch + i, e)
    total += <f64>f32x4.extract_lane(e, 0)
    total += <f64>f32x4.extract_lane(e, 1)
    total += <f64>f32x4.extract_lane(e, 2)
    total += <f64>f32x4.extract_lane(e, 3)
  }
  if (i < bytes) v128.store(scratch + i, exp4(f32x4.mul(f32x4.sub(v128.load(logits + i), mv), tv)))
  for (; i < bytes; i += 4) total += <f64>load<f32>(scratch + i)
  const threshold = u * total
  let sum: f64 = 0
  for (i = 0; i < bytes; i += 4) {
    sum += <f64>load<f32>(scratch + i)
    if (sum > threshold) return <i32>(i >> 2)
  }
  return top
}
