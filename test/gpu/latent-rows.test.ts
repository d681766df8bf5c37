// Rows of a latent model on their way to the cache, emulated.
import test from 'ava'
import { CACHE_FORMATS } from '../../kernels/cache-formats.js'
import { type LatentRows, latentVectors, writeLatentRows } from '../../kernels/gpu/wgsl/latent-rows.js'
import { randomNumbers } from '../support/fixtures.js'
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
  emulate(writeLatentRows(shape, f32)).run(buffers, [latentVectors(shape), rows, 1])
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
