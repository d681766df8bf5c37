// tetrad/testing: what tests of Tetrad, and of programs that use it, need to look inside. Not for production.
import { createHash } from 'node:crypto'
import type { CacheRow, SharedMemory } from '../kernels/backend.js'
import { cpuCacheFormat } from '../kernels/cache-formats.js'
import { bufferOf } from '../kernels/open-backend.js'
import { type CacheRows, cacheRows } from '../workers/layout/attention-plan.js'
import { exchangedBytes as exchangedOfShape } from '../workers/layout/exchange-layout.js'
import { heldPage } from '../workers/layout/partition.js'
import type { RankLayout } from '../workers/layout/rank-layout.js'
import { type DispatchFacts, FAULT_KINDS, type FaultKind, PAGE_TOKENS, SHARDS, STAGES, type Stage } from '../workers/protocol.js'
import { type Engine, INTERNALS } from './engine/engine.js'
import type { RankCounters } from './engine/ranks/mailbox.js'

export { type FaultKind, type RankCounters, STAGES, type Stage }

/** Bytes that each rank has read since it was loaded, counted in the kernel wrappers. */
export function readCounters(engine: Engine): RankCounters[] {
  const { coordinator, plan } = engine[INTERNALS]
  return Array.from({ length: plan.ranks }, (_, rank) => coordinator.counters(rank))
}

/** Packed bytes of each shard's weights, and of what a rank holds of its own (norms, rope key rows). */
export function packedBytes(engine: Engine): { shards: number[]; ranks: number[] } {
  const { layout } = engine[INTERNALS]
  return { shards: layout.shards.map((s) => s.weightBytes), ranks: layout.ranks.map((r) => r.weightBytes) }
}

/** What a rank of the gpu backend dispatches in a step for one row, as it says itself. */
export function dispatches(engine: Engine, rank: number): readonly DispatchFacts[] {
  return engine[INTERNALS].coordinator.group.reports[rank]?.dispatches ?? []
}

/** Pages of the cache that no sequence holds, and all. */
export function pages(engine: Engine): { free: number; all: number } {
  const { allocator } = engine[INTERNALS]
  return { free: allocator.freePages, all: allocator.pages }
}

/**
 * Fills pages with random values, findable as if these tokens had been computed: for timing contexts that would take long to
 * compute. Only whole pages, and while nothing runs. On the gpu backend every other cached row is overwritten too.
 */
export async function pretendCached(engine: Engine, tokens: readonly number[]): Promise<void> {
  const { allocator, coordinator, layout, memories, model, plan } = engine[INTERNALS]
  if (plan.backend === 'reference') throw new RangeError('the cache of the reference backend is not filled')
  const held: number[] = []
  let chain = 0
  for (let from = 0; from + PAGE_TOKENS <= tokens.length; from += PAGE_TOKENS) {
    const page = allocator.allocate(held.length)
    if (page === undefined) throw new RangeError(`the cache holds ${allocator.pages} pages`)
    held.push(page)
    chain = allocator.cacheFullPage(page, chain, tokens.slice(from, from + PAGE_TOKENS))
  }
  if (plan.backend === 'gpu') await coordinator.group.fillCaches()
  else {
    const { attention } = model.lowered.shape
    for (const [rank, mine] of layout.ranks.entries()) {
      fillPages(new Uint8Array(bufferOf(memories.ranks[rank] as SharedMemory)), mine, held, cacheRows(attention, mine.shards, plan), (page) =>
        heldPage(plan.partition, mine.shards, page),
      )
    }
  }
  allocator.release(held)
}

function fillPages(memory: Uint8Array, { layers }: RankLayout, pages: readonly number[], rows: CacheRows, held: (page: number) => number): void {
  const fill = (ptr: number, row: CacheRow) => {
    const values = randomPage(row)
    for (const page of pages.map(held)) if (page >= 0) memory.set(values, ptr + page * values.length)
  }
  for (const { streams, ropeStream, coefficientStream } of layers) {
    for (const stream of streams) fill(stream, rows.stream)
    fill(ropeStream, rows.rope)
    fill(coefficientStream, rows.coefficients)
  }
}

/** A page of random values. */
function randomPage(row: CacheRow): Uint8Array {
  const page = new Uint8Array(PAGE_TOKENS * row.bytes)
  cpuCacheFormat(row.format).fillRandom(page, row)
  return page
}

/** Bytes that ranks write for each other in a step for one row, all of them together. */
export function exchangedBytes(engine: Engine): number {
  const { model, plan } = engine[INTERNALS]
  return exchangedOfShape(model.lowered.shape, plan)
}

/** Floating-point operations of all ranks for one row over one cached token, all layers: scores, rope scores, weighted sums. */
export function attentionOperations(engine: Engine): number {
  const { layout, model, plan } = engine[INTERNALS]
  const { layers, attention: a } = model.lowered.shape
  const { keyWidth, valueWidth } = a.stream
  const vectors = a.factors?.rank ?? 1
  const ofRanks = layout.ranks.map(({ units, shards, attendStart, attendEnd }) => {
    const heads = units.reduce((sum, { unit }) => sum + unit.headEnd - unit.headStart, 0)
    // Of every fourth page for each shard, where the cache is cut along the sequence.
    const share = plan.partition === 'sequence' ? shards.length / SHARDS : 1
    return 2 * share * (heads * vectors * (keyWidth + valueWidth) + (attendEnd - attendStart) * a.sharedRopeDim)
  })
  return layers * ofRanks.reduce((x, y) => x + y, 0)
}

export interface RecordedLogits {
  /** Of its request, to tell it from others. */
  readonly seed: number
  readonly position: number
  /** SHA-256 of the row's bits, base64. */
  readonly hash: string
}

/** Records a hash of the bits of every row of logits from now on. Call `stop` to end it. */
export function recordLogits(engine: Engine): { readonly rows: readonly RecordedLogits[]; stop(): void } {
  const { coordinator } = engine[INTERNALS]
  const rows: RecordedLogits[] = []
  coordinator.observer = (sequence, position, logits) => {
    const bytes = new Uint8Array(logits.byteLength)
    bytes.set(new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength))
    rows.push({ seed: sequence.seed, position, hash: createHash('sha256').update(bytes).digest('base64') })
  }
  return {
    rows,
    stop: () => {
      coordinator.observer = undefined
    },
  }
}

/**
 * Makes a rank fail: 'throw' an error, 'exit' its thread, 'hang' for good, run 'out-of-memory', be 'slow' once (250 ms), lose its GPU
 * ('device-lost'), or send it an 'invalid-command' (with gpuChecks: else nobody validates it);
 * at the start of its next step, or when it next comes to `stage`. `draft`: of the draft model, whose only rank is 0.
 */
export function injectFault(engine: Engine, fault: { rank: number; kind: FaultKind; stage?: Stage; draft?: boolean }): void {
  const parts = fault.draft ? engine[INTERNALS].draft?.parts : engine[INTERNALS]
  if (!parts) throw new RangeError('the engine has no draft model')
  const { coordinator, plan } = parts
  const { rank, kind, stage = 'start of step' } = fault
  if (kind === 'device-lost' && plan.backend !== 'gpu') throw new RangeError('only a GPU rank has a device to lose')
  if (kind === 'invalid-command' && !plan.gpu?.checks) throw new RangeError('only with gpuChecks is a command found invalid')
  if (!(rank >= 0 && rank < plan.ranks) || !FAULT_KINDS.includes(kind) || !STAGES.includes(stage))
    throw new RangeError(`no such fault: ${JSON.stringify(fault)}`)
  coordinator.injectFault(rank, kind, stage)
}

/** Ends the thread of a rank from outside, as the system might. Threads are in no particular order. */
export async function terminateThread(engine: Engine, index: number): Promise<void> {
  await engine[INTERNALS].coordinator.group.threads()[index]?.terminate()
}
