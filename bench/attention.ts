// What does one rank's attention cost in the authors' shapes (64 heads), MLA beside MLRA-4? Paper: benchmark_decoding_speed.py.
// MLA's latent can't be split: a rank reads all of it. With its heads split over four ranks each computes a quarter of the scores.
// Usage: node dist/bench/attention.js [rounds] [f32|bf16|int8]
import type { CacheFormat, KernelSpace, UnitGeometry } from '../kernels/backend.js'
import { type CacheRow, cacheRow, queryScalars } from '../kernels/cache-row.js'
import { createMemory, openSpace, prepareBackend } from '../kernels/open-space.js'
import type { Rows } from '../kernels/rows.js'
import { bestSimdLevel } from '../kernels/wasm/simd-level.js'
import type { WasmModule } from '../kernels/wasm/webassembly.js'
import { inTurn, machine, median, spread, table } from './measure.js'
import { Probe } from './probe.js'

const PAGE = 64
const ROPE = 64
const rounds = Number(process.argv[2] ?? 5)
const format = (process.argv[3] ?? 'f32') as CacheFormat
const module = prepareBackend('wasm', bestSimdLevel(new URL('../kernels/wasm/', import.meta.url))) as WasmModule

let seed = 1
/** n values in -1..1. */
function randomRow(n: number): Float32Array {
  return Float32Array.from({ length: n }, () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
    return seed / 2 ** 31 - 1
  })
}

/** One query row over `tokens` cached tokens. */
function attention(width: number, heads: number, tokens: number): { bytes: number; flops: number; run: () => void } {
  const rowOf = (n: number): CacheRow => cacheRow(false, format, { width: n, paddedWidth: n, keyWidth: n, valueOffset: 0 })
  const [row, ropeRow] = [rowOf(width), rowOf(ROPE)]
  const page = PAGE * row.bytes
  const ropePage = PAGE * ropeRow.bytes
  const pages = tokens / PAGE
  let end = 64
  const take = (bytes: number) => {
    const at = end
    end += Math.ceil(bytes / 64) * 64
    return at
  }
  const sizes = [queryScalars(width, heads), queryScalars(ROPE, heads), PAGE * heads, PAGE * width, PAGE * heads, 3 * heads, heads * width]
  const [query, ropeQuery, scores, cachedValues, ropeScores, state, z] = sizes.map((n) => take(n * 4)) as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  const cache = take(pages * page)
  const rope = take(pages * ropePage)
  const memory = createMemory('wasm', end + heads * width * 4 + 64)
  const space: KernelSpace = openSpace(module, memory)
  const source = space.rows(take(heads * width * 4), heads * width)
  const write = (base: number, of: CacheRow) => {
    const bytes = PAGE * of.bytes
    for (let i = 0; i < PAGE; i++) {
      source.row(0).set(randomRow(of.width))
      space.writeCacheRow(base + i * of.bytes, source, 0, of)
    }
    for (let i = 1; i < pages; i++) space.copyBytes(base + i * bytes, base, bytes)
  }
  write(cache, row)
  write(rope, ropeRow)
  for (const [to, of] of [
    [query, row],
    [ropeQuery, ropeRow],
  ] as const) {
    source.row(0).set(randomRow(heads * of.width))
    space.loadQueries(to, source, 0, of.width, heads, heads, of.width, format)
  }
  const context: Rows = space.rows(z, heads * width)
  const unit: UnitGeometry = {
    query,
    scores,
    values: cachedValues,
    state,
    heads,
    lanes: heads,
    row,
    valueOffset: 0,
    valueWidth: width,
    sharedLanes: heads,
    sharedOffset: 0,
    scale: 0.05,
  }
  return {
    bytes: tokens * (row.bytes + ropeRow.bytes),
    flops: tokens * heads * (4 * width + 2 * ROPE),
    run: () => {
      space.beginAttention(unit, context, 0)
      for (let i = 0; i < pages; i++) {
        space.dotPage(ropeQuery, rope + i * ropePage, ropeRow, ropeScores, heads, PAGE)
        space.attendPage(unit, cache + i * page, ropeScores, context, 0, PAGE)
      }
      space.finishAttention(unit, context, 0)
    },
  }
}

const timed = (run: () => void) => () => {
  const start = performance.now()
  run()
  return performance.now() - start
}
const probe = new Probe(1, 400e6)
console.log(`${machine()}; one thread, ${format} cache, ${rounds} rounds, median (p10..p90)`)
console.log(
  'floor: the larger of bytes / bandwidth (wasm read loop) and operations / peak (multiply-adds in registers), measured in turn with the rest',
)
const rows = [['cached tokens', 'rank of', 'ms', 'GB/s', 'GFLOP/s', 'floor ms', 'share of floor', 'MLA over it']]
for (const tokens of [65536, 131072]) {
  const cases = { mlra: attention(128, 64, tokens), mla: attention(512, 64, tokens), mla16: attention(512, 16, tokens) }
  const times = await inTurn(rounds, {
    mlra: timed(cases.mlra.run),
    mla: timed(cases.mla.run),
    mla16: timed(cases.mla16.run),
    read: () => probe.rate('wasm read'),
    multiply: () => probe.rate('multiply'),
  })
  for (const [key, name] of [
    ['mlra', 'MLRA-4, 64 heads, 128 + 64'],
    ['mla', 'MLA, 64 heads, 512 + 64'],
    ['mla16', 'MLA, 16 of 64 heads, 512 + 64'],
  ] as const) {
    const { bytes, flops } = cases[key]
    const ms = median(times[key])
    const floor = Math.max(bytes / median(times.read), flops / median(times.multiply)) / 1e6
    rows.push([
      String(tokens),
      name,
      spread(times[key]),
      (bytes / ms / 1e6).toFixed(1),
      (flops / ms / 1e6).toFixed(1),
      floor.toFixed(1),
      `${((floor / ms) * 100).toFixed(0)} %`,
      (median(times.mla) / ms).toFixed(2),
    ])
  }
}
await probe.close()
console.log(table(rows))
