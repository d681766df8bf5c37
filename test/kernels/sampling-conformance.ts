// What every backend must do with a row of logits: the part of conformance.ts about choosing tokens.
import type { TestFn } from 'ava'
import type { BackendName } from '../../kernels/backend.js'
import type { SimdLevel } from '../../kernels/wasm/simd-level.js'
import { randomNumbers } from '../support/fixtures.js'
import { TestBackend } from '../support/kernel-backend.js'

export function samplingConformance(test: TestFn, backend: BackendName, simd: SimdLevel, name: string): void {
  test(`${name}: argmax takes the lowest id of a tie, and refuses what is not finite`, (t) => {
    const s = new TestBackend(backend, simd)
    const logits = s.rows(
      [
        [1, 5, 2, 5],
        [-3, -1, -1, -2],
        [0, Number.NaN, 1, 2],
        [0, Number.POSITIVE_INFINITY, 1, 2],
      ],
      4,
    )
    t.deepEqual(
      [0, 1, 2, 3].map((row) => s.kernels.argmax(logits, row, 4)),
      [1, 1, -1, -1],
    )
  })

  test(`${name}: sampling is the inverse CDF over ascending ids`, (t) => {
    const s = new TestBackend(backend, simd)
    const weights = [1, 2, 3, 4]
    const logits = s.rows([weights.map((w) => Math.log(w) * 0.5)], 4)
    const scratch = s.scalars(8)
    for (const [u, id] of [
      [0, 0],
      [0.0999, 0],
      [0.1001, 1],
      [0.2999, 1],
      [0.3001, 2],
      [0.5999, 2],
      [0.6001, 3],
      [0.9999, 3],
    ] as const) {
      t.is(s.kernels.sample(logits, 0, 4, 0.5, u, scratch), id, `u = ${u}`)
    }
  })

  test(`${name}: argmax and sampling of rows of 1 to 21 logits, wherever the largest, a tie or a NaN is`, (t) => {
    const next = randomNumbers(5)
    const s = new TestBackend(backend, simd)
    const scratch = s.scalars(24)
    for (let n = 1; n <= 21; n++) {
      const row = s.rows(1, 24)
      const values = Array.from({ length: n }, () => Math.floor(next() * 8))
      const most = Math.max(...values)
      row.row(0).set(values)
      t.is(s.kernels.argmax(row, 0, n), values.indexOf(most), values.join())
      const weights = values.map((v) => Math.exp(v - most))
      const total = weights.reduce((a, b) => a + b, 0)
      for (let id = 0, sum = 0; id < n; id++) {
        sum += weights[id] as number
        // The middle of the id's share: rounding does not decide.
        const u = (sum - (weights[id] as number) / 2) / total
        if ((weights[id] as number) / total > 1e-4) t.is(s.kernels.sample(row, 0, n, 1, u, scratch), id, `${n} logits, u = ${u}`)
      }
      for (const [bad, at] of [
        [Number.NaN, n - 1],
        [Number.NaN, 0],
        [Number.POSITIVE_INFINITY, n >> 1],
      ] as const) {
        row.row(0).set(values)
        row.row(0)[at] = bad
        t.is(s.kernels.argmax(row, 0, n), -1)
        t.is(s.kernels.sample(row, 0, n, 1, 0.5, scratch), -1)
      }
      row.row(0).fill(Number.NEGATIVE_INFINITY, 0, n)
      t.is(s.kernels.argmax(row, 0, n), -1)
      row.row(0)[n - 1] = -3
      t.is(s.kernels.argmax(row, 0, n), n - 1)
    }
  })
}
