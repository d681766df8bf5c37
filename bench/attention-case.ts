// One shape of attention on a CPU thread: one query row over a cache of random values, in the wasm kernels.
import type { CacheFormat, UnitGeometry } from '../kernels/backend.js'
import { type CacheRow, PAGE_TOKENS } from '../kernels/cache-format.js'
import { cacheRow, queryScalars } from '../kernels/cache-formats.js'
import { createMemory, openBackend, prepareBackend } from '../kernels/open-backend.js'
import { bestSimdLevel } from '../kernels/wasm/simd-level.js'
import type { WasmModule } from '../kernels/wasm/webassembly.js'

/** Heads that a rank attends with, width of its latent, and of the rope key. */
export interface AttentionWidths {
  readonly name: string
  readonly heads: number
  readonly latent: number
  readonly rope: number
}

export interface CpuAttention {
  readonly bytesPerToken: number
  readonly operationsPerToken: number
  /** Milliseconds of one query row over `tokens` cached tokens: a multiple of 64, at most those of the cache. */
  time(tokens: number): number
}

let compiled: WasmModule | undefined

let seed = 1
/** n values in -1..1. */
function randomRow(n: number): Float32Array {
  return Float32Array.from({ length: n }, () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
    return seed / 2 ** 31 - 1
  })
}

export function cpuAttention({ heads, latent, rope }: AttentionWidths, tokens: number, format: CacheFormat): CpuAttention {
  compiled ??= prepareBackend('wasm', bestSimdLevel(new URL('../kernels/wasm/', import.meta.url))) as WasmModule
  const rowOf = (n: number): CacheRow => cacheRow(false, format, { width: n, paddedWidth: n, keyWidth: n, valueOffset: 0 })
  const [row, ropeRow] = [rowOf(latent), rowOf(rope)]
  const page = PAGE_TOKENS * row.bytes
  const ropePage = PAGE_TOKENS * ropeRow.bytes
  const pages = tokens / PAGE_TOKENS
  let end = 64
  const take = (bytes: number) => {
    const at = end
    end += Math.ceil(bytes / 64) * 64
    return at
  }
  const lanes = Math.ceil(heads / 4) * 4
  const [query, ropeQuery] = [take(queryScalars(latent, lanes) * 4), take(queryScalars(rope, lanes) * 4)]
  const [scores, values, ropeScores] = [take(PAGE_TOKENS * lanes * 4), take(PAGE_TOKENS * latent * 4), take((PAGE_TOKENS * lanes + 4) * 4)]
  const [state, z, written] = [take(3 * lanes * 4), take(heads * latent * 4), take(heads * latent * 4)]
  const [cache, ropeCache] = [take(pages * page), take(pages * ropePage)]
  const kernels = openBackend(compiled, createMemory('wasm', end))
  const source = kernels.rows(written, heads * latent)
  const fill = (base: number, of: CacheRow) => {
    for (let i = 0; i < PAGE_TOKENS; i++) {
      source.row(0).set(randomRow(of.width))
      kernels.writeCacheRow(base + i * of.bytes, source, 0, of)
    }
    for (let i = 1; i < pages; i++) kernels.copyBytes(base + i * PAGE_TOKENS * of.bytes, base, PAGE_TOKENS * of.bytes)
  }
  fill(cache, row)
  fill(ropeCache, ropeRow)
  for (const [to, n] of [
    [query, latent],
    [ropeQuery, rope],
  ] as const) {
    source.row(0).set(randomRow(heads * n))
    kernels.loadQueries(to, source, 0, 1, n, heads, lanes, n, format)
  }
  const context = kernels.rows(z, heads * latent)
  const geometry = {
    heads,
    lanes,
    row,
    valueOffset: 0,
    valueWidth: latent,
    sharedLanes: lanes,
    rowHeads: heads,
    sharedRowHeads: heads,
    sharedOffset: 0,
    scale: 0.05,
  }
  const unit: UnitGeometry = { query, scores, values, state, ...geometry }
  return {
    bytesPerToken: row.bytes + ropeRow.bytes,
    operationsPerToken: heads * (4 * latent + 2 * rope),
    time: (n) => {
      const start = performance.now()
      kernels.beginAttention(unit, context, 0)
      for (let i = 0; i < n / PAGE_TOKENS; i++) {
        kernels.dotPage(ropeQuery, ropeCache + i * ropePage, ropeRow, ropeScores, lanes, PAGE_TOKENS)
        kernels.attendPage(unit, cache + i * page, ropeScores, context, 0, PAGE_TOKENS)
      }
      kernels.finishAttention(unit, context, 0)
      return performance.now() - start
    },
  }
}
