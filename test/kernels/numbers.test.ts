import test from 'ava'
import { bf16FromF32Bits, f16FromF32Bits, f32BitsFromF16, roundToBf16 } from '../../kernels/float-formats.js'
import { cosSin, exp, log, ropeFrequencies, uniform } from '../../kernels/portable-math.js'

const value = (bits: number) => new Float32Array(new Uint32Array([bits]).buffer)[0] as number

test('every finite float16 widens to its value', (t) => {
  for (let half = 0; half < 65536; half++) {
    const exponent = (half >>> 10) & 31
    const fraction = half & 1023
    if (exponent === 31) continue
    const magnitude = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15)
    if (!Object.is(value(f32BitsFromF16(half) >>> 0), half & 0x8000 ? -magnitude : magnitude)) t.fail(`half ${half}`)
  }
  t.is(value(f32BitsFromF16(0x7c00)), Number.POSITIVE_INFINITY)
  t.is(value(f32BitsFromF16(0x7e00)), Number.NaN)
})

test('bfloat16 rounds to nearest, ties to even, and keeps NaN', (t) => {
  for (const [from, to] of [
    [0x3f800000, 0x3f80],
    [0x3f808000, 0x3f80],
    [0x3f808001, 0x3f81],
    [0x3f818000, 0x3f82],
    [0x7f7fffff, 0x7f80],
    [0x7f800001, 0x7fc0],
    [0xff800000, 0xff80],
  ] as const) {
    t.is(bf16FromF32Bits(from), to, from.toString(16))
  }
  t.is(roundToBf16(1.00390625), 1)
})

test("exp, cos and sin agree with the engine's to 1e-14", (t) => {
  for (let x = -740; x < 709; x += 0.737) t.true(Math.abs(exp(x) / Math.exp(x) - 1) < 1e-14 || exp(x) < 1e-300, `exp ${x}`)
  t.is(exp(-1000), 0)
  t.is(exp(Number.NaN), Number.NaN)
  const out = [0, 0]
  for (let x = 0; x < 2_000_000; x = x * 1.013 + 0.01) {
    cosSin(x, out, 0, 1)
    t.true(Math.abs((out[0] as number) - Math.cos(x)) < 1e-11 && Math.abs((out[1] as number) - Math.sin(x)) < 1e-11, `angle ${x}`)
  }
  for (const half of [1, 4, 16, 32]) {
    for (const [i, f] of ropeFrequencies(half, 10000).entries()) t.true(Math.abs(f / 10000 ** (-i / half) - 1) < 1e-14)
  }
})

test('uniform numbers: a function of seed, choice and position, flat over [0, 1)', (t) => {
  t.is(uniform(1, 2, 3, 4), uniform(1, 2, 3, 4))
  const seen = new Set<number>()
  for (const [low, high, choice, position] of [
    [1, 0, 0, 0],
    [0, 1, 0, 0],
    [0, 0, 1, 0],
    [0, 0, 0, 1],
    [0, 0, 0, 0],
  ] as const) {
    seen.add(uniform(low, high, choice, position))
  }
  t.is(seen.size, 5)
  // Chi-square over 100 cells, 99 degrees of freedom: 1 in 1000 exceeds 148.2 for a flat source.
  for (const series of [(i: number) => uniform(7, 0, 0, i), (i: number) => uniform(i, 0, 0, 7), (i: number) => uniform(3, 9, i, 7)]) {
    const cells = Array(100).fill(0) as number[]
    for (let i = 0; i < 100_000; i++) {
      const u = series(i)
      if (!(u >= 0 && u < 1)) t.fail(String(u))
      const cell = Math.floor(u * 100)
      cells[cell] = (cells[cell] as number) + 1
    }
    const chi = cells.reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0)
    t.true(chi < 148.2, `chi-square ${chi}`)
  }
})

test('log is the natural logarithm, subnormal and huge arguments included', (t) => {
  for (let e = -1070; e <= 1020; e += 7) {
    for (const m of [1, 1.1, 1.4142, 1.5, 1.999]) {
      const x = m * 2 ** e
      const expected = Math.log(x)
      t.true(Math.abs(log(x) - expected) <= 4e-16 * Math.max(1, Math.abs(expected)), `log(${x}) = ${log(x)}, ${expected}`)
    }
  }
  for (let x = 0.9; x < 1.1; x += 0.0007) t.true(Math.abs(log(x) - Math.log(x)) < 3e-16)
  t.is(log(1), 0)
  t.is(log(0), Number.NEGATIVE_INFINITY)
  t.is(log(Number.POSITIVE_INFINITY), Number.POSITIVE_INFINITY)
  t.true(Number.isNaN(log(-1)) && Number.isNaN(log(Number.NaN)))
})

test('float16 narrowing is exact where it can be, and to nearest, ties to even, elsewhere', (t) => {
  const bitsOf = (v: number) => new Uint32Array(Float32Array.of(v).buffer)[0] as number
  for (let half = 0; half < 65536; half++) {
    if ((half & 0x7c00) === 0x7c00) continue
    t.true(f16FromF32Bits(f32BitsFromF16(half)) === half || (half & 0x7fff) === 0)
  }
  t.is(f16FromF32Bits(bitsOf(1 + 2 ** -11)), 0x3c00)
  t.is(f16FromF32Bits(bitsOf(1 + 3 * 2 ** -11)), 0x3c02)
  t.is(f16FromF32Bits(bitsOf(1 + 2 ** -11 + 2 ** -20)), 0x3c01)
  t.is(f16FromF32Bits(bitsOf(65504)), 0x7bff)
  t.is(f16FromF32Bits(bitsOf(65520)), 0x7c00)
  t.is(f16FromF32Bits(bitsOf(1e9)), 0x7c00)
  t.is(f16FromF32Bits(bitsOf(2 ** -25)), 0)
  t.is(f16FromF32Bits(bitsOf(2 ** -25 + 2 ** -40)), 1)
  t.is(f16FromF32Bits(bitsOf(-(2 ** -24))), 0x8001)
})
