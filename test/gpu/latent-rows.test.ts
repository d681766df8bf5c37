// Rows of a latent model on their way to the cache, emulated.
import test from 'ava'
import { CACHE_FORMATS } from '../../kernels/cache-formats.js'
import { f32BitsFromF16 } from '../../kernels/float-formats.js'
import { FIRST_QUERY, type LatentRows, latentGroups, writeLatentRows } from '../../kernels/gpu/wgsl/latent-rows.js'
import { ropeQueries, slotTable } from '../../kernels/gpu/wgsl/tensor-parts.js'
import { packedQueryWidth, pad } from '../../kernels/gpu/wgsl/tensor-shape.js'
import { randomNumbers } from '../support/fixtures.js'
import { QUERY_ROWS, shapeOf } from '../support/tensor-shapes.js'
import { emulate } from '../support/wgsl-emulator.js'

test('streams are normed, the rope key is rotated, and both go to the row of their page', (t) => {
  const next = randomNumbers(4)
  const random = (n: number) => Float32Array.from({ length: n }, () => next() * 2 - 1)
  const [rows, pages] = [3, 4]
  const region = pages * 64
  const rope = { from: 71, half: 5, region: 2 * region * 28, rowWidth: 12 }
  const shape: LatentRows = { stride: 90, streams: 2, streamsFrom: 10, width: 26, rowWidth: 28, regionStride: region * 28, epsilon: 1e-5, rope }
  const [x, weights, table] = [random(rows * 90), random(2 * 26), random(rows * 10)]
  // Positions 0, 70 and 130 of one sequence.
  const lengths = [1, 71, 131]
  const blocks = Uint32Array.of(2, 0, 3)
  const cache = new Float32Array(rope.region + region * 12).fill(Number.NaN)
  const buffers = { 0: Uint32Array.from(lengths.flatMap((n) => [0, n, 1, 1])), 1: blocks, 2: cache, 3: x, 4: weights, 5: table }
  const f32 = CACHE_FORMATS.f32.gpu
  if (!f32) throw new Error('float32 caches are on no GPU')
  emulate(writeLatentRows(shape, f32)).run(buffers, [latentGroups(shape), rows, 1])
  for (const [r, length] of lengths.entries()) {
    const position = length - 1
    const cached = (blocks[Math.floor(position / 64)] as number) * 64 + (position % 64)
    for (let s = 0; s < 2; s++) {
      const values = Array.from(x.subarray(r * 90 + 10 + s * 26, r * 90 + 10 + (s + 1) * 26))
      const root = Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / 26 + 1e-5)
      const expected = [...values.map((v, c) => (v / root) * (weights[s * 26 + c] as number)), 0, 0]
      for (const [c, v] of expected.entries()) t.true(Math.abs((cache[s * region * 28 + cached * 28 + c] as number) - v) < 1e-6)
    }
    const [key, cosSin] = [x.subarray(r * 90 + 71, r * 90 + 81), table.subarray(r * 10, r * 10 + 10)]
    for (let i = 0; i < 5; i++) {
      const [a, b, cos, sin] = [key[i], key[i + 5], cosSin[i], cosSin[i + 5]] as [number, number, number, number]
      t.true(Math.abs((cache[rope.region + cached * 12 + i] as number) - (a * cos - b * sin)) < 1e-6)
      t.true(Math.abs((cache[rope.region + cached * 12 + i + 5] as number) - (a * sin + b * cos)) < 1e-6)
    }
  }
  // Nothing else was written.
  t.is(cache.filter((v) => !Number.isNaN(v)).length, rows * (2 * 28 + 12))
})

test('rope columns of raw queries are rotated and packed beside, and nothing else of the packed queries is written', (t) => {
  const next = randomNumbers(5)
  const random = (n: number) => Float32Array.from({ length: n }, () => next() * 2 - 1)
  const [rows, half, nope] = [2, 5, 20]
  // 6 heads of two streams; heads of raw queries have 30 columns, the last 10 of which rotate.
  const { shape } = shapeOf(6, 22, 22, 0, 2 * half, 2)
  const heads = Array.from({ length: 12 }, (_, i) => ({ query: 0, rope: 32 * i + nope }))
  const named = { ...shape, slots: heads.map((slot, i) => (i === 3 ? undefined : slot)) }
  const raw = { stride: 400, from: 7, headWidth: nope + 2 * half, nope, half, paddedWidth: 32, paddedNope: nope }
  const latent: LatentRows = { stride: 90, streams: 1, streamsFrom: 0, width: 4, rowWidth: 4, regionStride: 256, epsilon: 1e-5, rope: undefined }
  const withRope = { ...latent, rope: { from: 71, half, region: 512, rowWidth: 12 } }
  const queries = ropeQueries(named, raw, FIRST_QUERY)
  const width = packedQueryWidth(named)
  const [qr, table] = [random(rows * raw.stride), random(rows * 2 * half)]
  const untouched = 0x7bcd7bcd
  const packed = new Uint32Array((12 * QUERY_ROWS * width) / 2).fill(untouched)
  const f32 = CACHE_FORMATS.f32.gpu
  if (!f32) throw new Error('float32 caches are on no GPU')
  const buffers = {
    0: Uint32Array.of(0, 1, 1, 1, 0, 2, 1, 1),
    1: new Uint32Array(1),
    2: new Float32Array(4096),
    3: random(rows * 90),
    4: random(4),
    5: table,
    6: new Uint32Array(slotTable(named)),
    7: qr,
    8: packed,
  }
  emulate(writeLatentRows(withRope, f32, queries)).run(buffers, [latentGroups(withRope, queries), rows, 1])
  let written = 0
  for (let row = 0; row < rows; row++) {
    for (let head = 0; head < 12; head++) {
      const group = Math.floor(head / named.rowHeads)
      const first = ((group * named.queryRows + row) * named.rowHeads + (head % named.rowHeads)) * width + pad(22)
      const value = (c: number) => f16(at(packed, (first + c) >> 1) >>> (16 * (c % 2)))
      for (let c = 0; c < pad(2 * half); c++) {
        written++
        const pair = (c % half) + row * raw.stride + raw.from + head * raw.headWidth + nope
        const angle = row * 2 * half + (c % half)
        const [a, b, cos, sin] = [at(qr, pair), at(qr, pair + half), at(table, angle), at(table, angle + half)] as const
        const rotated = c < half ? a * cos - b * sin : a * sin + b * cos
        const expected = head === 3 || c >= 2 * half ? 0 : rotated
        t.true(Math.abs(value(c) - expected) <= 2 ** -10, `row ${row} head ${head} column ${c}: ${value(c)} for ${expected}`)
      }
    }
  }
  t.is(packed.filter((word) => word !== untouched).length, written / 2)
})

function f16(bits: number): number {
  return new Float32Array(Uint32Array.of(f32BitsFromF16(bits & 0xffff)).buffer)[0] as number
}

function at(values: Float32Array | Uint32Array, i: number): number {
  return values[i] as number
}
