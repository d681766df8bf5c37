// Snapshot files for the fuzzer: a cache without ranks, filled by hand, and a real file of its rows.
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Packr } from 'msgpackr/pack'
import { openModel, planRun } from '../../src/engine/model.js'
import { PageAllocator } from '../../src/engine/scheduling/page-allocator.js'
import { MemoryRows } from '../../src/engine/snapshot/cached-rows.js'
import { loadSnapshot, type SnapshotCache, saveSnapshot } from '../../src/engine/snapshot/snapshot.js'
import { allocateMemories } from '../../src/engine/start-engine.js'
import { checkOptions, resolveFor } from '../../src/options/engine-options.js'
import { layoutModel } from '../../workers/layout/model-layout.js'
import { FIXTURES } from '../support/fixtures.js'

const PAGES = 8
const dir = mkdtempSync(join(tmpdir(), 'tetrad-fuzz-'))
process.once('exit', () => rmSync(dir, { recursive: true, force: true }))
const path = join(dir, 'snapshot')

const model = await openModel(`${FIXTURES}golden/mlra_4`, undefined)
const options = resolveFor('wasm', checkOptions({ backend: 'wasm', ranks: 1, cacheTokens: PAGES * 64, maxRunning: 1, prefillChunk: 1 }))
const plan = planRun(model, options, 1, 2 ** 30)
const layout = layoutModel(model.lowered.shape, plan)
const cache: SnapshotCache = {
  allocator: new PageAllocator(PAGES),
  rows: new MemoryRows(model.lowered.shape.attention, plan, layout, allocateMemories(plan, layout)),
  identity: { model: 'm', variant: 'mlra_4', weights: 'f32', cache: 'f32', determinismKey: 'k', layers: model.lowered.shape.layers },
  vocab: 160,
  contextTokens: 128,
}

/** A snapshot of a page and a part of one. */
export const realSnapshot: Uint8Array = await (async () => {
  const tokens = Array.from({ length: 70 }, (_, i) => i)
  const pages = [cache.allocator.allocate(0) as number, cache.allocator.allocate(1) as number]
  const chain = cache.allocator.cacheFullPage(pages[0] as number, 0, tokens.slice(0, 64))
  cache.allocator.cachePartialPage(pages[1] as number, chain, tokens.slice(64))
  await saveSnapshot(cache, tokens, path)
  cache.allocator.release(pages)
  cache.allocator.evictAll()
  return readFileSync(path)
})()

/** Bytes of the last frame: the checksum's map with its length. */
const trailer = new Packr({ useRecords: false }).pack({ sha256: Buffer.alloc(32) }).length + 4

/** The frames before the checksum. */
export const snapshotBody = realSnapshot.subarray(0, realSnapshot.length - trailer)

/** A body with the checksum that it should have, so that what is wrong is found behind it. */
export function withChecksum(body: Uint8Array): Uint8Array {
  const frame = new Packr({ useRecords: false }).pack({ sha256: createHash('sha256').update(body).digest() })
  const length = Buffer.alloc(4)
  length.writeUInt32LE(frame.length)
  return Buffer.concat([body, length, frame])
}

/** Loads a file; whatever it is, no page is lost. */
export async function readSnapshot(bytes: Uint8Array): Promise<void> {
  writeFileSync(path, bytes)
  const [loaded] = await Promise.allSettled([loadSnapshot(cache, path)])
  if (cache.allocator.freePages !== PAGES) throw new Error(`${PAGES - cache.allocator.freePages} pages were lost`)
  if (loaded?.status === 'rejected') throw loaded.reason
}
