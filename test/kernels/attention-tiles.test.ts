// Rows of a sequence attend together in tiles. Each row has the bits that it has alone.
import test from 'ava'
import type { CacheFormat, UnitGeometry } from '../../kernels/backend.js'
import { cacheRow, queryScalars } from '../../kernels/cache-formats.js'
import { bestSimdLevel, SIMD_LEVELS, type SimdLevel } from '../../kernels/wasm/simd-level.js'
import { randomNumbers } from '../support/fixtures.js'
import { rowsOf, TestBackend } from '../support/kernel-backend.js'

const PAGE = 64
const four = (n: number) => Math.ceil(n / 4) * 4
const LEVELS: readonly SimdLevel[] = bestSimdLevel(new URL('../../kernels/wasm/', import.meta.url)) === 'relaxed' ? SIMD_LEVELS : ['simd128']

interface Case {
  readonly heads: number
  /** Heads of the rank; the unit has the last of them. */
  readonly rankHeads: number
  readonly keyWidth: number
  readonly valueOffset: number
  readonly valueWidth: number
  readonly ropeWidth: number
  /** Position of the first row. */
  readonly position: number
  readonly rows: number
}

const CASES: readonly Case[] = [
  { heads: 1, rankHeads: 1, keyWidth: 20, valueOffset: 20, valueWidth: 20, ropeWidth: 0, position: 0, rows: 16 },
  { heads: 1, rankHeads: 1, keyWidth: 7, valueOffset: 0, valueWidth: 40, ropeWidth: 5, position: 130, rows: 13 },
  { heads: 2, rankHeads: 2, keyWidth: 16, valueOffset: 16, valueWidth: 12, ropeWidth: 0, position: 64, rows: 8 },
  { heads: 3, rankHeads: 3, keyWidth: 33, valueOffset: 4, valueWidth: 36, ropeWidth: 6, position: 85, rows: 8 },
  { heads: 4, rankHeads: 12, keyWidth: 24, valueOffset: 0, valueWidth: 24, ropeWidth: 8, position: 100, rows: 4 },
  { heads: 5, rankHeads: 5, keyWidth: 18, valueOffset: 18, valueWidth: 20, ropeWidth: 0, position: 57, rows: 7 },
  { heads: 9, rankHeads: 9, keyWidth: 10, valueOffset: 10, valueWidth: 8, ropeWidth: 3, position: 3, rows: 4 },
]

/** Unnormalized sums, maxima and sums of weights are hidden; what comes out is each row's context, by tiles of `each` rows. */
function contexts(simd: SimdLevel | 'reference', format: CacheFormat, c: Case, each: number): number[] {
  const next = randomNumbers(c.heads * 100 + c.position)
  const s = simd === 'reference' ? new TestBackend('reference') : new TestBackend('wasm', simd)
  const reference = simd === 'reference'
  const length = c.position + c.rows
  const width = c.valueOffset + c.valueWidth
  const row = cacheRow(reference, format, { width, paddedWidth: four(width), keyWidth: c.keyWidth, valueOffset: c.valueOffset })
  const ropeRow = cacheRow(reference, format, { width: c.ropeWidth, paddedWidth: four(c.ropeWidth), keyWidth: c.ropeWidth, valueOffset: 0 })
  const room = Math.ceil(length / PAGE) * PAGE
  const cache = s.take(room * row.bytes)
  const rope = s.take(room * ropeRow.bytes + 64)
  const cached = s.rows(rowsOf(length, width, next), width)
  const ropeKeys = s.rows(rowsOf(length, c.ropeWidth, next), c.ropeWidth)
  for (let t = 0; t < length; t++) {
    s.kernels.writeCacheRow(cache + t * row.bytes, cached, t, row)
    if (c.ropeWidth > 0) s.kernels.writeCacheRow(rope + t * ropeRow.bytes, ropeKeys, t, ropeRow)
  }
  // Heads of a row with a gap behind them, as heads of other units.
  const queries = s.rows(rowsOf(c.rows, c.rankHeads * (c.keyWidth + c.ropeWidth), next), c.rankHeads * (c.keyWidth + c.ropeWidth))
  const lanes = four(c.rows * c.rankHeads)
  const [query, ropeQuery] = [s.scalars(queryScalars(c.keyWidth, lanes)), s.scalars(queryScalars(c.ropeWidth, lanes))]
  const [scores, values, state, shared] = [s.scalars(PAGE * lanes), s.scalars(PAGE * c.valueWidth), s.scalars(3 * lanes), s.scalars(PAGE * lanes + 4)]
  const z = s.rows(c.rows, c.heads * c.valueWidth)
  for (let t = 0; t < c.rows; t += each) {
    const rows = Math.min(each, c.rows - t)
    const unit: UnitGeometry = {
      ...{ query, scores, values, state, row, valueOffset: c.valueOffset, valueWidth: c.valueWidth, scale: 0.3 },
      heads: rows * c.heads,
      rowHeads: c.heads,
      lanes: four(rows * c.heads),
      sharedLanes: four(rows * c.rankHeads),
      sharedOffset: c.rankHeads - c.heads,
      sharedRowHeads: c.rankHeads,
    }
    s.kernels.loadQueries(query, queries, t, rows, c.keyWidth, c.heads, unit.lanes, c.keyWidth, format)
    const ropeQueries = queries.columns(c.rankHeads * c.keyWidth, c.rankHeads * c.ropeWidth)
    if (c.ropeWidth > 0) s.kernels.loadQueries(ropeQuery, ropeQueries, t, rows, c.ropeWidth, c.rankHeads, unit.sharedLanes, c.ropeWidth, format)
    s.kernels.beginAttention(unit, z, t)
    for (let p = 0; p * PAGE <= c.position + t; p++) {
      const seen = Math.min(PAGE, c.position + t + 1 - p * PAGE)
      const most = Math.min(PAGE, seen + rows - 1)
      if (c.ropeWidth > 0) s.kernels.dotPage(ropeQuery, rope + p * PAGE * ropeRow.bytes, ropeRow, shared, unit.sharedLanes, most)
      s.kernels.attendPage(unit, cache + p * PAGE * row.bytes, c.ropeWidth > 0 ? shared : 0, z, t, seen)
    }
    s.kernels.finishAttention(unit, z, t)
  }
  return Array.from({ length: c.rows }, (_, t) => Array.from(z.row(t).subarray(0, c.heads * c.valueWidth))).flat()
}

for (const simd of [...LEVELS, 'reference'] as const) {
  for (const format of ['f32', 'bf16', 'int8'] as const) {
    for (const c of CASES) {
      test(`${simd}: tiles of rows have the bits of single rows: ${format} cache, ${c.heads} heads, ${c.rows} rows from ${c.position}`, (t) => {
        const alone = contexts(simd, format, c, 1)
        t.true(alone.every(Number.isFinite))
        t.deepEqual(contexts(simd, format, c, c.rows), alone)
        t.deepEqual(contexts(simd, format, c, 3), alone)
      })
    }
  }
}
