// What every backend must do, against float64 arithmetic written out here. Widths are odd on purpose.
import type { TestFn } from 'ava'
import { type BackendName, type CacheFormat, matmulScratchBytes, type UnitGeometry } from '../../kernels/backend.js'
import type { CacheRow } from '../../kernels/cache-format.js'
import { cacheRow, queryScalars } from '../../kernels/cache-formats.js'
import { roundToBf16 } from '../../kernels/float-formats.js'
import { paddedRows } from '../../kernels/packing.js'
import type { SimdLevel } from '../../kernels/wasm/simd-level.js'
import { randomNumbers } from '../support/fixtures.js'
import { matrixOf, read, rowsOf, TestBackend } from '../support/kernel-backend.js'
import { samplingConformance } from './sampling-conformance.js'

/** What rounding of cached values (and, int8, of queries) leaves, where it is more than the backend's own. */
const TOLERANCE: Readonly<Partial<Record<CacheFormat, number>>> = { bf16: 1e-5, int8: 0.05 }

const sum = (values: number[]) => values.reduce((a, b) => a + b, 0)

export function conformance(test: TestFn, backend: BackendName, tolerance: number, simd: SimdLevel = 'simd128'): void {
  const name = backend === 'wasm' ? `${backend} ${simd}` : backend
  const close = (t: { true(v: boolean, m?: string): boolean }, actual: number, expected: number, what: string, terms: number[] = []) => {
    // Rounding grows with the size of what was summed, not of what came out.
    const size = Math.max(1, Math.abs(expected), sum(terms.map(Math.abs)) / 20)
    t.true(Math.abs(actual - expected) <= tolerance * size, `${what}: ${actual}, expected ${expected}`)
  }

  for (const format of ['f32', 'bf16'] as const) {
    for (const [rows, cols] of [
      [1, 1],
      [33, 0],
      [31, 7],
      [32, 64],
      [33, 129],
      [100, 513],
    ] as const) {
      test(`${name}: matmul ${format} [${rows}, ${cols}] for 1 to 9 tokens`, (t) => {
        const next = randomNumbers(rows * 1000 + cols)
        const w = matrixOf(rows, cols, next)
        for (let tokens = 1; tokens <= 9; tokens++) {
          const s = new TestBackend(backend, simd)
          const x = rowsOf(tokens, cols, next)
          const matrix = s.matrix([w], format)
          const y = s.rows(tokens, rows, paddedRows(rows))
          s.kernels.matmul(matrix, s.rows(x, cols), y, tokens, s.take(matmulScratchBytes(tokens, cols)))
          for (const [i, row] of read(y, tokens).entries()) {
            for (const [r, v] of row.entries()) {
              const terms = (w[r] as number[]).map((a, k) => a * ((x[i] as number[])[k] as number))
              close(t, v, sum(terms), `token ${i} row ${r}`, terms)
            }
          }
          t.is(s.kernels.weightBytesRead, matrix.bytes)
        }
      })
    }
  }

  // Half a step of each product's two factors, in quadrature: 2 / 63 and 1 / 127 of ranges 2 and 1; for int4 1 / 8 of range 1.
  for (const [format, share] of [
    ['int8', 0.03],
    ['int4', 0.2],
  ] as const)
    test(`${name}: matmul ${format} for 1 to 9 tokens, as close as its quantized weights and activations allow`, (t) => {
      for (const [rows, cols] of [
        [1, 1],
        [5, 0],
        [16, 32],
        [33, 129],
        [40, 70],
      ] as const) {
        const next = randomNumbers(rows * 10 + cols)
        const w = matrixOf(rows, cols, next)
        for (let tokens = 1; tokens <= 9; tokens++) {
          const s = new TestBackend(backend, simd)
          const x = rowsOf(tokens, cols, next)
          const matrix = s.matrix([w], format)
          const y = s.rows(tokens, rows, paddedRows(rows))
          s.kernels.matmul(matrix, s.rows(x, cols), y, tokens, s.take(matmulScratchBytes(tokens, cols)))
          for (const [i, row] of read(y, tokens).entries()) {
            for (const [r, v] of row.entries()) {
              const expected = sum((w[r] as number[]).map((a, k) => a * ((x[i] as number[])[k] as number)))
              const bound = share * Math.sqrt(cols) + 1e-6
              t.true(Math.abs(v - expected) <= bound, `[${rows}, ${cols}] token ${i} row ${r}: ${v}, expected ${expected}`)
            }
          }
          t.is(s.kernels.weightBytesRead, matrix.bytes)
        }
      }
    })

  test(`${name}: a batch of matrices (heads) each takes its own part of the input`, (t) => {
    const next = randomNumbers(5)
    const [heads, rows, cols, inStride] = [3, 20, 12, 18]
    const w = Array.from({ length: heads }, () => matrixOf(rows, cols, next))
    for (const tokens of [1, 2, 3, 6, 7]) {
      const s = new TestBackend(backend, simd)
      const x = rowsOf(tokens, heads * inStride, next)
      const matrix = s.matrix(w, 'bf16', inStride, rows)
      const y = s.rows(tokens, heads * rows, heads * rows + paddedRows(rows))
      s.kernels.matmul(matrix, s.rows(x, heads * inStride), y, tokens, s.take(matmulScratchBytes(tokens, cols)))
      for (const [i, row] of read(y, tokens).entries()) {
        for (const [j, v] of row.entries()) {
          const h = Math.floor(j / rows)
          const weights = (w[h] as number[][])[j % rows] as number[]
          close(t, v, sum(weights.map((a, k) => a * ((x[i] as number[])[h * inStride + k] as number))), `token ${i} head ${h} row ${j % rows}`)
        }
      }
    }
  })

  test(`${name}: rmsNorm, in place as well`, (t) => {
    const next = randomNumbers(11)
    const [n, tokens] = [13, 3]
    const s = new TestBackend(backend, simd)
    const x = rowsOf(tokens, n, next)
    const w = Array.from({ length: n }, () => Math.fround(next()))
    const rows = s.rows(x, n, 17)
    s.kernels.rmsNorm(rows, s.vector(w), rows, n, tokens, 1e-6)
    for (const [i, row] of read(rows, tokens).entries()) {
      const source = x[i] as number[]
      const r = 1 / Math.sqrt(sum(source.map((v) => v * v)) / n + 1e-6)
      for (const [k, v] of row.entries()) close(t, v, (source[k] as number) * r * (w[k] as number), `row ${i} ${k}`)
    }
  })

  test(`${name}: rmsNormHeads norms each head with one weight, addVector adds one vector to all rows`, (t) => {
    const next = randomNumbers(19)
    const [n, heads, tokens, stride] = [6, 3, 2, 7]
    const s = new TestBackend(backend, simd)
    const width = heads * stride
    const x = rowsOf(tokens, width, next)
    const w = Array.from({ length: n }, () => Math.fround(next()))
    const v = Array.from({ length: width }, () => Math.fround(next()))
    const rows = s.rows(x, width, 22)
    s.kernels.addVector(rows, s.vector(v), width, tokens)
    s.kernels.rmsNormHeads(rows, stride, heads, s.vector(w), n, tokens, 1e-5)
    for (const [i, row] of read(rows, tokens).entries()) {
      const source = (x[i] as number[]).map((a, k) => a + (v[k] as number))
      for (let h = 0; h < heads; h++) {
        const head = source.slice(h * stride, h * stride + n)
        const r = 1 / Math.sqrt(sum(head.map((a) => a * a)) / n + 1e-5)
        for (let k = 0; k < stride; k++) {
          const expected = k < n ? (head[k] as number) * r * (w[k] as number) : (source[h * stride + k] as number)
          close(t, row[h * stride + k] as number, expected, `row ${i} head ${h} ${k}`)
        }
      }
    }
  })

  test(`${name}: rope rotates halves of each head`, (t) => {
    const next = randomNumbers(12)
    const [heads, half, headStride, tokens] = [3, 3, 10, 2]
    const s = new TestBackend(backend, simd)
    const width = heads * headStride
    const x = rowsOf(tokens, width, next)
    const angles = rowsOf(tokens, half, next)
    const table = s.rows(
      angles.map((row) => [...row.map(Math.cos), ...row.map(Math.sin)]),
      2 * half,
    )
    const rows = s.rows(x, width)
    s.kernels.rope(rows, headStride, heads, half, table, tokens)
    for (const [i, row] of read(rows, tokens).entries()) {
      const source = x[i] as number[]
      for (const [j, v] of row.entries()) {
        const [h, k] = [Math.floor(j / headStride), j % headStride]
        const at = (offset: number) => source[h * headStride + offset] as number
        const angle = (n: number) => (angles[i] as number[])[n] as number
        const expected =
          k < half
            ? at(k) * Math.cos(angle(k)) - at(half + k) * Math.sin(angle(k))
            : k < 2 * half
              ? at(k - half) * Math.sin(angle(k - half)) + at(k) * Math.cos(angle(k - half))
              : at(k)
        close(t, v, expected, `row ${i} head ${h} ${k}`)
      }
    }
  })

  test(`${name}: swiglu over the whole range of gates`, (t) => {
    const s = new TestBackend(backend, simd)
    const gates = [-200, -90, -20, -3, -1e-3, 0, 1e-3, 1, 5, 30, 90, 200]
    const ups = gates.map((_, i) => i - 5)
    const gate = s.rows([gates], 12)
    s.kernels.swiglu(gate, s.rows([ups], 12), 12, 1)
    for (const [i, v] of (read(gate, 1)[0] as number[]).entries()) {
      const g = gates[i] as number
      close(t, v, (g / (1 + Math.exp(-g))) * (ups[i] as number), `gate ${g}`)
    }
  })

  test(`${name}: gateRows multiplies by a sigmoid over the whole range of gates`, (t) => {
    const s = new TestBackend(backend, simd)
    const gates = [-200, -90, -20, -3, -1e-3, 0, 1e-3, 1, 5, 30, 90, 200]
    const values = gates.map((_, i) => i - 5)
    const x = s.rows([values, values], 12, 16)
    s.kernels.gateRows(x, s.rows([gates, [...gates].reverse()], 12, 20), 12, 2)
    for (const [row, list] of [gates, [...gates].reverse()].entries())
      for (const [i, g] of list.entries()) close(t, x.row(row)[i] as number, (values[i] as number) / (1 + Math.exp(-g)), `row ${row} gate ${g}`)
  })

  test(`${name}: combineFactors sums shared vectors with coefficients per head`, (t) => {
    const next = randomNumbers(15)
    const [heads, rank, tokens] = [3, 5, 2]
    for (const width of [1, 4, 6]) {
      const s = new TestBackend(backend, simd)
      const a = rowsOf(tokens, heads * rank, next)
      const b = rowsOf(tokens, rank * width, next)
      const dst = s.rows(tokens, heads * width, heads * width + 3)
      s.kernels.combineFactors(dst, s.rows(a, heads * rank), s.rows(b, rank * width), heads, rank, width, tokens)
      for (const [row, values] of read(dst, tokens).entries()) {
        for (const [j, v] of values.entries()) {
          const [h, i] = [Math.floor(j / width), j % width]
          const terms = Array.from(
            { length: rank },
            (_, r) => ((a[row] as number[])[h * rank + r] as number) * ((b[row] as number[])[r * width + i] as number),
          )
          close(t, v, sum(terms), `row ${row} head ${h} ${i}`, terms)
        }
      }
    }
  })

  test(`${name}: logProbability is the log-softmax at an id, and not a number where a logit is not finite`, (t) => {
    const next = randomNumbers(16)
    for (const n of [1, 3, 4, 7, 50]) {
      const s = new TestBackend(backend, simd)
      const values = rowsOf(2, n, next).map((row) => row.map((v) => v * 20))
      const logits = s.rows(values, n)
      for (const [row, list] of values.entries()) {
        const max = Math.max(...list)
        const total = sum(list.map((v) => Math.exp(v - max)))
        for (let id = 0; id < n; id++)
          close(t, s.kernels.logProbability(logits, row, n, id), (list[id] as number) - max - Math.log(total), `of ${n}, id ${id}`)
      }
    }
    const s = new TestBackend(backend, simd)
    t.true(Number.isNaN(s.kernels.logProbability(s.rows([[1, Number.NaN, 2, 3]], 4), 0, 4, 0)))
    t.true(Number.isNaN(s.kernels.logProbability(s.rows([[1, Number.POSITIVE_INFINITY, 2, 3]], 4), 0, 4, 0)))
  })

  test(`${name}: copyBytes copies cached rows and nothing else`, (t) => {
    const s = new TestBackend(backend, simd)
    const rows = s.rows(
      [
        [1, 2, 3, 4],
        [5, 6, 7, 8],
        [9, 10, 11, 12],
        [0, 0, 0, 0],
      ],
      4,
    )
    s.kernels.copyBytes(rows.ptr + 2 * rows.strideBytes, rows.ptr, rows.strideBytes)
    t.deepEqual(read(rows, 4), [
      [1, 2, 3, 4],
      [5, 6, 7, 8],
      [1, 2, 3, 4],
      [0, 0, 0, 0],
    ])
  })

  test(`${name}: sums of 1 to 4 partials times a factor, and addRows`, (t) => {
    const next = randomNumbers(13)
    const [n, tokens] = [7, 3]
    for (let count = 1; count <= 4; count++) {
      const s = new TestBackend(backend, simd)
      const parts = Array.from({ length: count }, () => rowsOf(tokens, n, next))
      const base = rowsOf(tokens, n, next)
      const dst = s.rows(tokens, n, 9)
      const x = s.rows(base, n, 8)
      s.kernels.sumPartials(
        dst,
        parts.map((p) => s.rows(p, n)),
        n,
        tokens,
        0.5,
      )
      s.kernels.addRows(x, dst, n, tokens)
      for (const [i, row] of read(x, tokens).entries()) {
        for (const [k, v] of row.entries()) {
          close(t, v, ((base[i] as number[])[k] as number) + 0.5 * sum(parts.map((p) => (p[i] as number[])[k] as number)), `row ${i} ${k}`)
        }
      }
    }
  })

  for (const [heads, width] of [
    [1, 4],
    [3, 8],
    [5, 12],
  ] as const) {
    test(`${name}: parts of an attention are weighed by their maxima and sums, ${heads} heads of ${width}; empty parts weigh nothing`, (t) => {
      const next = randomNumbers(heads * 10 + width)
      const [tokens, lanes] = [3, Math.ceil(heads / 4) * 4]
      const s = new TestBackend(backend, simd)
      const toMax = heads * width
      // The last row has tokens in the first part only.
      const parts = Array.from({ length: 4 }, (_, p) =>
        Array.from({ length: tokens }, (_, i) => {
          const empty = i === tokens - 1 && p > 0
          const z = Array.from({ length: toMax }, () => (empty ? 0 : next()))
          const maxima = Array.from({ length: lanes }, () => (empty ? -3.4028234663852886e38 : 20 * next()))
          return [...z, ...maxima, ...Array.from({ length: lanes }, () => (empty ? 0 : 1 + next() ** 2))]
        }),
      )
      const stored = parts.map((rows) => s.rows(rows, toMax + 2 * lanes))
      const dst = s.rows(tokens, toMax, toMax + 4)
      s.kernels.combinePartials(
        dst,
        stored.map((rows) => rows.columns(0, toMax)),
        toMax,
        toMax + lanes,
        heads,
        width,
        tokens,
      )
      const given = stored.map((rows) => read(rows, tokens))
      for (const [i, row] of read(dst, tokens).entries()) {
        for (const [k, v] of row.slice(0, toMax).entries()) {
          const h = Math.floor(k / width)
          const at = (j: number) => given.map((rows) => (rows[i] as number[])[j] as number)
          const sums = at(toMax + lanes + h)
          const largest = Math.max(...at(toMax + h).filter((_, p) => sums[p] !== 0))
          const weights = at(toMax + h).map((m, p) => (sums[p] === 0 ? 0 : Math.exp(m - largest)))
          const weighted = (values: number[]) => sum(values.map((value, p) => value * (weights[p] as number)))
          close(t, v, weighted(at(k)) / weighted(sums), `row ${i} ${k}`)
        }
      }
    })
  }

  test(`${name}: gatherRow returns each row of a packed matrix exactly`, (t) => {
    const w = matrixOf(70, 5, randomNumbers(14))
    for (const format of ['f32', 'bf16'] as const) {
      const s = new TestBackend(backend, simd)
      const matrix = s.matrix([w], format)
      for (let r = 0; r < 70; r++) {
        const dst = s.rows(1, 5)
        s.kernels.gatherRow(matrix, r, dst)
        t.deepEqual(Array.from(dst.row(0)), w[r])
      }
    }
  })

  for (const format of ['f32', 'bf16', 'int8'] as const) {
    for (const heads of [1, 3, 4, 6, 8, 12]) {
      test(`${name}: attention over three pages, ${heads} heads, ${format} cache, odd widths, key and value columns apart`, (t) => {
        attention(t, backend, simd, format, heads, TOLERANCE[format] ?? tolerance)
      })
    }
  }

  for (const format of ['f32', 'bf16'] as const) {
    for (const [heads, rank, width] of [
      [1, 1, 6],
      [3, 2, 8],
      [6, 2, 10],
      [8, 3, 4],
    ] as const) {
      test(`${name}: attention over factored keys and values, ${heads} heads, rank ${rank}, width ${width}, ${format} cache`, (t) => {
        factoredAttention(t, backend, simd, format, heads, rank, width, format === 'bf16' ? Math.max(tolerance, 1e-5) : tolerance)
      })
    }
  }

  samplingConformance(test, backend, simd, name)
}

function attention(
  t: { true(v: boolean, m?: string): boolean },
  backend: BackendName,
  simd: SimdLevel,
  format: CacheFormat,
  heads: number,
  tolerance: number,
): void {
  const next = randomNumbers(heads + 20)
  const [keyWidth, valueWidth, peWidth, tokens, pageTokens] = [7, 12, 5, 130, 64]
  // A row holds keys, then values, then padding.
  const [valueOffset, rowWidth, peRowWidth] = [8, 20, 8]
  const lanes = Math.ceil(heads / 4) * 4
  const s = new TestBackend(backend, simd)
  const stored = (v: number) => (format === 'bf16' ? roundToBf16(v) : v)
  const row: CacheRow = cacheRow(backend === 'reference', format, { width: valueOffset + valueWidth, paddedWidth: rowWidth, keyWidth, valueOffset })
  const peRow = cacheRow(backend === 'reference', format, { width: peWidth, paddedWidth: peRowWidth, keyWidth: peWidth, valueOffset: 0 })
  const keys = rowsOf(tokens, keyWidth, next)
  // Of another size than keys, as values are.
  const values = rowsOf(tokens, valueWidth, next).map((value) => value.map((v) => v / 16))
  const pes = rowsOf(tokens, peWidth, next)
  const queries = rowsOf(heads, keyWidth, next)
  const peQueries = rowsOf(heads, peWidth, next)
  const pages = [2, 0, 1]
  const cache = s.take(3 * pageTokens * row.bytes)
  const peCache = s.take(3 * pageTokens * peRow.bytes)
  const at = (base: number, bytes: number, i: number) =>
    base + ((pages[Math.floor(i / pageTokens)] as number) * pageTokens + (i % pageTokens)) * bytes
  for (let i = 0; i < tokens; i++) {
    // A column that is neither key nor value, but in a group of four with keys.
    const written = [...(keys[i] as number[]), 0.7, ...(values[i] as number[])]
    s.kernels.writeCacheRow(at(cache, row.bytes, i), s.rows([written], written.length), 0, row)
    s.kernels.writeCacheRow(at(peCache, peRow.bytes, i), s.rows([pes[i] as number[]], peWidth), 0, peRow)
  }
  const unit: UnitGeometry = {
    query: s.scalars(queryScalars(keyWidth, lanes)),
    scores: s.scalars(pageTokens * lanes),
    values: s.scalars(pageTokens * valueWidth),
    state: s.scalars(3 * lanes),
    heads,
    lanes,
    row,
    valueOffset,
    valueWidth,
    sharedLanes: lanes,
    rowHeads: heads,
    sharedRowHeads: heads,
    sharedOffset: 0,
    scale: 0.3,
  }
  const peQuery = s.scalars(queryScalars(peWidth, lanes))
  const shared = s.scalars(pageTokens * lanes + 4)
  s.kernels.loadQueries(unit.query, s.rows([queries.flat()], heads * keyWidth), 0, 1, keyWidth, heads, lanes, keyWidth, format)
  s.kernels.loadQueries(peQuery, s.rows([peQueries.flat()], heads * peWidth), 0, 1, peWidth, heads, lanes, peWidth, format)
  const z = s.rows(1, heads * valueWidth)
  s.kernels.beginAttention(unit, z, 0)
  for (const [i, page] of pages.entries()) {
    const valid = Math.min(pageTokens, tokens - i * pageTokens)
    s.kernels.dotPage(peQuery, peCache + page * pageTokens * peRow.bytes, peRow, shared, lanes, valid)
    s.kernels.attendPage(unit, cache + page * pageTokens * row.bytes, shared, z, 0, valid)
  }
  s.kernels.finishAttention(unit, z, 0)
  for (let h = 0; h < heads; h++) {
    const dot = (a: number[], b: number[]) => sum(a.map((v, k) => v * stored(b[k] as number)))
    const scores = keys.map((key, i) => (dot(queries[h] as number[], key) + dot(peQueries[h] as number[], pes[i] as number[])) * 0.3)
    const max = Math.max(...scores)
    const p = scores.map((v) => Math.exp(v - max))
    for (let v = 0; v < valueWidth; v++) {
      const expected = sum(p.map((w, i) => w * stored((values[i] as number[])[v] as number))) / sum(p)
      const actual = z.row(0)[h * valueWidth + v] as number
      t.true(Math.abs(actual - expected) <= tolerance * 2, `head ${h} value ${v}: ${actual}, expected ${expected}`)
    }
  }
}

function factoredAttention(
  t: { true(v: boolean, m?: string): boolean },
  backend: BackendName,
  simd: SimdLevel,
  format: CacheFormat,
  heads: number,
  rank: number,
  width: number,
  tolerance: number,
): void {
  const next = randomNumbers(heads * 10 + rank)
  const [tokens, pageTokens] = [130, 64]
  const lanes = Math.ceil(heads / 4) * 4
  const padded = Math.ceil(width / 4) * 4
  const rowWidth = Math.ceil((2 * rank * width + padded - width) / 4) * 4
  const coefficientWidth = 2 * rank * lanes
  const s = new TestBackend(backend, simd)
  const stored = (v: number) => (format === 'bf16' ? roundToBf16(v) : v)
  // A cached row: rank key vectors, then rank value vectors. A row of coefficients: [2 * rank][lanes].
  const vectors = rowsOf(tokens, 2 * rank * width, next)
  const coefficients = rowsOf(tokens, coefficientWidth, next)
  const queries = rowsOf(heads, width, next)
  const reference = backend === 'reference'
  const row = cacheRow(reference, format, { width: 2 * rank * width, paddedWidth: rowWidth, keyWidth: width, valueOffset: rank * width })
  const all = { width: coefficientWidth, paddedWidth: coefficientWidth, keyWidth: coefficientWidth, valueOffset: 0 }
  const coefficientRow = cacheRow(reference, format, all)
  const cache = s.take(3 * pageTokens * row.bytes)
  const coefficientCache = s.take(3 * pageTokens * coefficientRow.bytes)
  const pages = [2, 0, 1]
  const at = (base: number, bytes: number, i: number) =>
    base + ((pages[Math.floor(i / pageTokens)] as number) * pageTokens + (i % pageTokens)) * bytes
  for (let i = 0; i < tokens; i++) {
    s.kernels.writeCacheRow(at(cache, row.bytes, i), s.rows([vectors[i] as number[]], 2 * rank * width), 0, row)
    const written = s.rows([coefficients[i] as number[]], coefficientWidth)
    s.kernels.writeCacheRow(at(coefficientCache, coefficientRow.bytes, i), written, 0, coefficientRow)
  }
  const unit: UnitGeometry = {
    query: s.scalars(queryScalars(width, lanes)),
    scores: s.scalars(pageTokens * lanes),
    values: 0,
    state: s.scalars(3 * lanes),
    heads,
    lanes,
    row,
    valueOffset: rank * width,
    valueWidth: padded,
    sharedLanes: 0,
    rowHeads: heads,
    sharedRowHeads: heads,
    sharedOffset: 0,
    scale: 0.2,
    factors: { rank, valueStride: width, row: coefficientRow, dots: s.scalars(pageTokens * lanes) },
  }
  s.kernels.loadQueries(unit.query, s.rows([queries.flat()], heads * width), 0, 1, width, heads, lanes, width, format)
  const z = s.rows(1, heads * padded)
  const readBefore = s.kernels.cacheBytesRead
  s.kernels.beginAttention(unit, z, 0)
  for (const [i, page] of pages.entries()) {
    const valid = Math.min(pageTokens, tokens - i * pageTokens)
    const from = (base: number, { bytes }: CacheRow) => base + page * pageTokens * bytes
    s.kernels.attendPage(unit, from(cache, row), from(coefficientCache, coefficientRow), z, 0, valid)
  }
  s.kernels.finishAttention(unit, z, 0)
  t.true(s.kernels.cacheBytesRead - readBefore === tokens * (row.bytes + coefficientRow.bytes))
  const combined = (i: number, h: number, values: boolean) =>
    Array.from({ length: width }, (_, v) =>
      sum(
        Array.from({ length: rank }, (_, r) => {
          const j = values ? rank + r : r
          return stored((coefficients[i] as number[])[j * lanes + h] as number) * stored((vectors[i] as number[])[j * width + v] as number)
        }),
      ),
    )
  for (let h = 0; h < heads; h++) {
    const scores = vectors.map((_, i) => sum(combined(i, h, false).map((k, v) => k * ((queries[h] as number[])[v] as number))) * 0.2)
    const max = Math.max(...scores)
    const p = scores.map((v) => Math.exp(v - max))
    const values = vectors.map((_, i) => combined(i, h, true))
    for (let v = 0; v < width; v++) {
      const expected = sum(p.map((w, i) => w * ((values[i] as number[])[v] as number))) / sum(p)
      const actual = z.row(0)[h * padded + v] as number
      t.true(Math.abs(actual - expected) <= tolerance * 20, `head ${h} value ${v}: ${actual}, expected ${expected}`)
    }
  }
}
