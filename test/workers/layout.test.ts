import test from 'ava'
import { cut, part } from '../../workers/layout/cuts.js'
import { layoutModel, type ModelLayout } from '../../workers/layout/model-layout.js'
import { type ModelShape, RANK_COUNTS, type RunPlan } from '../../workers/protocol.js'

const shape: ModelShape = {
  layers: 2,
  embed: 50,
  vocab: 211,
  intermediate: 150,
  normEps: 1e-6,
  tiedHead: true,
  rope: { frequencies: [1, 0.1, 0.01, 0.001, 0.0001, 0.00001], amplitude: 1 },
  attention: {
    heads: 7,
    nopeDim: 20,
    ropeDim: 12,
    valueDim: 20,
    queryRank: 30,
    queryNormed: true,
    headNormed: false,
    biased: false,
    streams: 4,
    stream: { width: 18, keyWidth: 18, valueOffset: 0, valueWidth: 18, normWidth: 18, ropeVectors: 0 },
    absorbed: true,
    sharedRopeDim: 12,
    factors: undefined,
    gated: true,
    units: [0, 1, 2, 3].map((stream) => [{ stream, headStart: 0, headEnd: 7 }]),
    headCuts: [0, 1, 3, 5, 7],
    scale: 0.2,
    outputFactor: 0.5,
    normEps: 1e-6,
  },
}

const plan = (ranks: 1 | 2 | 4): RunPlan => ({
  backend: 'wasm',
  gpu: undefined,
  simd: 'simd128',
  ranks,
  weights: 'bf16',
  embedding: 'bf16',
  cache: 'f32',
  partition: 'heads',
  stepRows: 7,
  pages: 3,
  contextTokens: 128,
  slots: 1,
  pagesPerSlot: 3,
  replicate: { queryA: false, queryB: false },
})

test('cuts cover everything once, in order, for counts that do not divide by 4', (t) => {
  for (let n = 0; n < 40; n++)
    t.is(
      [0, 1, 2, 3].reduce((sum, i) => sum + part(n, i), 0),
      n,
    )
  t.deepEqual(
    [0, 1, 2, 3, 4].map((i) => cut(6, i)),
    [0, 1, 3, 4, 6],
  )
})

test('weights of a shard do not overlap, are inside it, and are at the same place at every rank count', (t) => {
  const layouts = RANK_COUNTS.map((ranks) => layoutModel(shape, plan(ranks)))
  for (let s = 0; s < 4; s++) {
    const matrices = (l: ModelLayout) =>
      [...(l.shards[s]?.layers.flatMap((layer) => Object.values(layer)) ?? []), l.shards[s]?.head].flatMap((m) => (m && m.bytes > 0 ? [m] : []))
    const [one, two, four] = layouts.map(matrices) as [ReturnType<typeof matrices>, ReturnType<typeof matrices>, ReturnType<typeof matrices>]
    t.deepEqual(two, one)
    t.deepEqual(four, one)
    const spans = one.map((m) => [m.ptr, m.ptr + m.bytes] as const).sort((a, b) => a[0] - b[0])
    for (const [i, [start, end]] of spans.entries()) {
      t.true(start >= (spans[i - 1]?.[1] ?? 64))
      t.true(end <= (layouts[0]?.shards[s]?.bytes ?? 0))
    }
  }
})
