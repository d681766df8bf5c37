// The order of every sum in the wasm kernels is part of the interface. Here it is, in Math.fround, bit for bit.
import test from 'ava'
import { type CacheFormat, matmulScratchBytes, type UnitGeometry } from '../../kernels/backend.js'
import { cacheRow, queryScalars } from '../../kernels/cache-formats.js'
import { roundHalfEven, roundToBf16, roundToF16 } from '../../kernels/float-formats.js'
import { paddedRows } from '../../kernels/packing.js'
import { bestSimdLevel, SIMD_LEVELS, type SimdLevel } from '../../kernels/wasm/simd-level.js'
import { randomNumbers } from '../support/fixtures.js'
import { matrixOf, read, rowsOf, TestBackend } from '../support/kernel-backend.js'

const f = Math.fround

const LEVELS: readonly SimdLevel[] = bestSimdLevel(new URL('../../kernels/wasm/', import.meta.url)) === 'relaxed' ? SIMD_LEVELS : ['simd128']

const double = new Float64Array(1)
const bits = new BigInt64Array(double.buffer)

/** a * b + c rounded once to float32: the exact product, a sum rounded to odd in float64, then to float32. */
function fused(acc: number, a: number, b: number): number {
  const product = a * b
  const sum = product + acc
  const high = sum - product
  const error = product - (sum - high) + (acc - high)
  if (error === 0) return f(sum)
  double[0] = sum
  // Away from the even neighbour, towards what was lost.
  if (((bits[0] as bigint) & 1n) === 0n) bits[0] = (bits[0] as bigint) + (error > 0 === sum > 0 ? 1n : -1n)
  return f(double[0])
}

/** acc + a b as a build of the kernels has it. */
const MADD: Readonly<Record<SimdLevel, (acc: number, a: number, b: number) => number>> = {
  simd128: (acc, a, b) => f(acc + f(a * b)),
  relaxed: fused,
}

/** One accumulator, ascending k. */
function dot(a: readonly number[], b: readonly number[], simd: SimdLevel = 'simd128'): number {
  let acc = 0
  for (let k = 0; k < a.length; k++) acc = MADD[simd](acc, a[k] as number, b[k] as number)
  return acc
}

/** A cached row: its values, or integers and their scale. */
interface Stored {
  readonly values: readonly number[]
  readonly scale: number
}

interface CacheRules {
  readonly stored: (row: readonly number[]) => Stored
  readonly score: (query: readonly number[], row: Stored, simd: SimdLevel) => number
  readonly weight: (p: number, row: Stored) => number
}

const FLOATS: Pick<CacheRules, 'score' | 'weight'> = { score: (query, { values }, simd) => dot(query, values, simd), weight: (p) => p }

/** Integers of -most..most and their scale. */
function quantized(values: readonly number[], most: number): Stored {
  const largest = Math.max(...values.map(Math.abs))
  const inverse = largest > 0 ? f(most / largest) : 0
  return { values: values.map((v) => roundHalfEven(f(v * inverse))), scale: f(largest / most) }
}

const CACHES: Readonly<Record<Exclude<CacheFormat, 'f16'>, CacheRules>> = {
  f32: { stored: (values) => ({ values, scale: 1 }), ...FLOATS },
  bf16: { stored: (values) => ({ values: values.map(roundToBf16), scale: 1 }), ...FLOATS },
  // Scores are exact integers, then two products; a weighted sum is over integers, with the scale in its weights.
  int8: {
    stored: (row) => quantized(row, 127),
    score: (query, row) => {
      const q = quantized(query, 63)
      return f(q.values.reduce((sum, v, k) => sum + v * (row.values[k] as number), 0) * f(q.scale * row.scale))
    },
    weight: (p, { scale }) => f(p * scale),
  },
}

/** As kernels/wasm/assembly/math.ts. */
function exp(v: number): number {
  let x = v < -87 ? -87 : v
  x = x > 88 ? 88 : x
  const scaled = f(x * f(1.44269504088896341))
  // Nearest, ties to even.
  let n = Math.round(scaled)
  if (Math.abs(scaled - Math.trunc(scaled)) === 0.5 && n % 2 !== 0) n -= 1
  let r = f(x - f(n * f(0.693359375)))
  r = f(r - f(n * f(-2.1219444e-4)))
  let p = f(1.98756915e-4)
  for (const c of [1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1]) p = f(f(p * r) + f(c))
  const y = f(f(f(f(r * r) * p) + r) + 1)
  return f(y * 2 ** n)
}

for (const simd of LEVELS) {
  for (const format of ['f32', 'bf16'] as const) {
    for (const [rows, cols] of [
      [1, 1],
      [33, 65],
      [64, 300],
      [20, 1025],
    ] as const) {
      test(`${simd}: matmul ${format} [${rows}, ${cols}]: strictly ascending sums for any number of tokens, when compiled at first and for good`, (t) => {
        const next = randomNumbers(rows + cols)
        const w = matrixOf(rows, cols, next)
        const x = rowsOf(11, cols, next)
        const expected = x.map((row) => w.map((weights) => dot(weights, row, simd)))
        for (let tokens = 1; tokens <= 11; tokens++) {
          const s = new TestBackend('wasm', simd)
          const y = s.rows(tokens, rows, paddedRows(rows))
          const matrix = s.matrix([w], format)
          const input = s.rows(x.slice(0, tokens), cols)
          const scratch = s.take(matmulScratchBytes(tokens, cols))
          // The engine's baseline compiler runs first, its optimizing one soon after.
          for (const calls of [1, 300]) {
            for (let i = 0; i < calls; i++) s.kernels.matmul(matrix, input, y, tokens, scratch)
            t.deepEqual(read(y, tokens), expected.slice(0, tokens))
          }
        }
      })
    }
  }

  test(`${simd}: matmul int8: exact integers in blocks of 32 columns, which add up in ascending order with two roundings`, (t) => {
    for (const [rows, cols] of [
      [1, 1],
      [16, 32],
      [33, 129],
      [20, 1025],
    ] as const) {
      const next = randomNumbers(rows + cols)
      const w = matrixOf(rows, cols, next)
      const x = rowsOf(9, cols, next)
      const most = (values: readonly number[]) => values.reduce((m, v) => Math.max(m, Math.abs(v)), 0)
      const blocks = (values: readonly number[]) => Array.from({ length: Math.ceil(cols / 32) }, (_, b) => values.slice(b * 32, b * 32 + 32))
      const nearest = (v: number) => (Math.abs(v % 1) === 0.5 ? 2 * Math.round(v / 2) : Math.round(v))
      const weights = w.map((row) =>
        blocks(row).map((b) => ({ scale: f(most(b) / 127), q: b.map((v) => (most(b) > 0 ? nearest(v * (127 / most(b))) : 0)) })),
      )
      const inputs = x.map((row) =>
        blocks(row).map((b) => ({ scale: f(f(most(b)) / 63), q: b.map((v) => (most(b) > 0 ? nearest(f(v * f(63 / most(b)))) : 0)) })),
      )
      const expected = inputs.map((input) =>
        weights.map((row) =>
          row.reduce((acc, { scale, q }, b) => {
            const { scale: xScale, q: xq } = input[b] as { scale: number; q: number[] }
            const integer = q.reduce((sum, v, k) => sum + v * (xq[k] as number), 0)
            return f(acc + f(f(integer) * f(xScale * scale)))
          }, 0),
        ),
      )
      for (let tokens = 1; tokens <= 9; tokens++) {
        const s = new TestBackend('wasm', simd)
        const y = s.rows(tokens, rows, paddedRows(rows))
        const matrix = s.matrix([w], 'int8')
        const input = s.rows(x.slice(0, tokens), cols)
        const scratch = s.take(matmulScratchBytes(tokens, cols))
        for (const calls of [1, 300]) {
          for (let i = 0; i < calls; i++) s.kernels.matmul(matrix, input, y, tokens, scratch)
          t.deepEqual(read(y, tokens), expected.slice(0, tokens))
        }
      }
    }
  })

  test(`${simd}: matmul int4: exact integers in blocks of 32 columns, which add up in ascending order with two roundings`, (t) => {
    for (const [rows, cols] of [
      [1, 1],
      [16, 32],
      [33, 129],
      [20, 1025],
    ] as const) {
      const next = randomNumbers(rows + cols)
      const w = matrixOf(rows, cols, next)
      const x = rowsOf(9, cols, next)
      // The sums of 16 bits come closest to overflow.
      for (const c of Array(Math.min(32, cols)).keys()) {
        ;(w[0] as number[])[c] = c === 0 ? -1 : 1
        ;(x[0] as number[])[c] = 2
      }
      const blocks = (values: readonly number[]) => Array.from({ length: Math.ceil(cols / 32) }, (_, b) => values.slice(b * 32, b * 32 + 32))
      const weights = w.map((row) =>
        blocks(row).map((b) => {
          const largest = b.reduce((m, v) => (Math.abs(v) > Math.abs(m) ? v : m), 0)
          const scale = roundToF16(f(-largest / 8))
          return { scale, q: b.map((v) => (scale === 0 ? 0 : Math.min(7, Math.max(-8, roundHalfEven(v * (1 / scale)))))) }
        }),
      )
      const inputs = x.map((row) => blocks(row).map((b) => quantized(b, 127)))
      const expected = inputs.map((input) =>
        weights.map((row) =>
          row.reduce((acc, { scale, q }, b) => {
            const { scale: xScale, values } = input[b] as Stored
            const integer = q.reduce((sum, v, k) => sum + v * (values[k] as number), 0)
            return f(acc + f(f(integer) * f(xScale * scale)))
          }, 0),
        ),
      )
      for (let tokens = 1; tokens <= 9; tokens++) {
        const s = new TestBackend('wasm', simd)
        const y = s.rows(tokens, rows, paddedRows(rows))
        const matrix = s.matrix([w], 'int4')
        const input = s.rows(x.slice(0, tokens), cols)
        const scratch = s.take(matmulScratchBytes(tokens, cols))
        for (const calls of [1, 300]) {
          for (let i = 0; i < calls; i++) s.kernels.matmul(matrix, input, y, tokens, scratch)
          t.deepEqual(read(y, tokens), expected.slice(0, tokens))
        }
      }
    }
  })
}

test('rmsNorm: a scalar ascending sum of squares, then (x r) w', (t) => {
  const next = randomNumbers(3)
  const n = 37
  const s = new TestBackend('wasm')
  const x = rowsOf(2, n, next)
  const w = Array.from({ length: n }, () => f(next()))
  const y = s.rows(2, n)
  s.kernels.rmsNorm(s.rows(x, n), s.vector(w), y, n, 2, 1e-6)
  t.deepEqual(
    read(y, 2),
    x.map((row) => {
      const r = f(1 / f(Math.sqrt(f(f(dot(row, row) / n) + f(1e-6)))))
      return row.map((v, k) => f(f(v * r) * (w[k] as number)))
    }),
  )
})

test("swiglu: (g / (1 + exp(-g))) u with the kernels' own exp", (t) => {
  const next = randomNumbers(4)
  const gates = [...Array.from({ length: 60 }, () => f(next() * 40 - 20)), -100, 100, 0, -0]
  const ups = gates.map(() => f(next() * 2 - 1))
  const s = new TestBackend('wasm')
  const gate = s.rows([gates], 64)
  s.kernels.swiglu(gate, s.rows([ups], 64), 64, 1)
  t.deepEqual(
    read(gate, 1)[0],
    gates.map((g, i) => f(f(g / f(1 + exp(-g))) * (ups[i] as number))),
  )
})

test('sums of partials: (((a + b) + c) + d) times the factor, once', (t) => {
  const next = randomNumbers(6)
  const [a, b, c, d] = rowsOf(4, 6, next) as [number[], number[], number[], number[]]
  const s = new TestBackend('wasm')
  const dst = s.rows(1, 6)
  s.kernels.sumPartials(
    dst,
    [a, b, c, d].map((p) => s.rows([p], 6)),
    6,
    1,
    f(0.7),
  )
  t.deepEqual(
    read(dst, 1)[0],
    a.map((v, i) => f(f(f(f(v + (b[i] as number)) + (c[i] as number)) + (d[i] as number)) * f(0.7))),
  )
})

for (const [simd, format] of LEVELS.flatMap((level) => (['f32', 'bf16', 'int8'] as const).map((format) => [level, format] as const))) {
  for (const [heads, tokens] of [
    [6, 200],
    [1, 1],
    [5, 63],
    [8, 64],
    [9, 65],
  ] as const) {
    test(`${simd}: attention over a ${format} cache, ${heads} heads, ${tokens} tokens: page by page, one rescale a page`, (t) => {
      const next = randomNumbers(heads * 100 + tokens)
      const [width, peWidth] = [12, 6]
      const row = cacheRow(false, format, { width, paddedWidth: 12, keyWidth: width, valueOffset: 0 })
      const peRow = cacheRow(false, format, { width: peWidth, paddedWidth: 8, keyWidth: peWidth, valueOffset: 0 })
      const lanes = Math.ceil(heads / 4) * 4
      const s = new TestBackend('wasm', simd)
      const { stored, score, weight } = CACHES[format]
      const latents = rowsOf(tokens, width, next)
      const pes = rowsOf(tokens, peWidth, next)
      const queries = rowsOf(heads, width, next)
      const peQueries = rowsOf(heads, peWidth, next)
      const pageCount = Math.ceil(tokens / 64)
      const cache = s.take(pageCount * 64 * row.bytes)
      const peCache = s.take(pageCount * 64 * peRow.bytes)
      for (let i = 0; i < tokens; i++) {
        s.kernels.writeCacheRow(cache + i * row.bytes, s.rows([latents[i] as number[]], width), 0, row)
        s.kernels.writeCacheRow(peCache + i * peRow.bytes, s.rows([pes[i] as number[]], peWidth), 0, peRow)
      }
      const scale = f(0.4)
      const unit: UnitGeometry = {
        query: s.scalars(queryScalars(width, lanes)),
        scores: s.scalars(64 * lanes),
        values: s.scalars(64 * width),
        state: s.scalars(3 * lanes),
        heads,
        lanes,
        row,
        valueOffset: 0,
        valueWidth: width,
        sharedLanes: lanes,
        rowHeads: heads,
        sharedRowHeads: heads,
        sharedOffset: 0,
        scale,
      }
      const peQuery = s.scalars(queryScalars(peWidth, lanes))
      const shared = s.scalars(64 * lanes + 4)
      s.kernels.loadQueries(unit.query, s.rows([queries.flat()], heads * width), 0, 1, width, heads, lanes, width, format)
      s.kernels.loadQueries(peQuery, s.rows([peQueries.flat()], heads * peWidth), 0, 1, peWidth, heads, lanes, peWidth, format)
      const z = s.rows(1, heads * width)
      s.kernels.beginAttention(unit, z, 0)
      for (let p = 0; p < pageCount; p++) {
        const valid = Math.min(64, tokens - p * 64)
        s.kernels.dotPage(peQuery, peCache + p * 64 * peRow.bytes, peRow, shared, lanes, valid)
        s.kernels.attendPage(unit, cache + p * 64 * row.bytes, shared, z, 0, valid)
      }
      s.kernels.finishAttention(unit, z, 0)

      const expected = queries.flatMap((query, h) => {
        let max = f(-3.4028234663852886e38)
        let sum = 0
        let acc = Array(width).fill(0) as number[]
        for (let p = 0; p < pageCount; p++) {
          const page = latents.slice(p * 64, p * 64 + 64).map(stored)
          const pagePes = pes.slice(p * 64, p * 64 + 64).map(stored)
          const scores = page.map((c, i) => f(f(score(query, c, simd) + score(peQueries[h] as number[], pagePes[i] as Stored, simd)) * scale))
          const next = scores.reduce((m, v) => (m < v ? v : m), max)
          const alpha = exp(f(max - next))
          const weights = scores.map((v) => exp(f(v - next)))
          sum = weights.reduce((a, w) => f(a + w), f(sum * alpha))
          acc = acc.map((v, k) => page.reduce((a, c, i) => MADD[simd](a, c.values[k] as number, weight(weights[i] as number, c)), f(v * alpha)))
          max = next
        }
        return acc.map((v) => f(v / sum))
      })
      t.deepEqual(Array.from(z.row(0)), expected)
    })
  }
}

test("the kernels' exp is within 2e-7 of the true one", (t) => {
  for (let x = -86; x < 88; x += 0.037) t.true(Math.abs(exp(f(x)) / Math.exp(f(x)) - 1) < 2e-7, String(x))
})
