// Memory and layout of an engine, for Tetrad's own tests. The package does not export it; tetrad/testing is public.
import { bufferOf } from '../kernels/open-backend.js'
import { isLocal } from '../workers/layout/attention-plan.js'
import type { ExchangeLayout } from '../workers/layout/exchange-layout.js'
import { type Engine, INTERNALS } from './engine/engine.js'
import { rankPlans } from './engine/model.js'
import { exchangeBuffer } from './engine/start-engine.js'

/** Bytes of weights that the plan gives each rank: its shards, and what every rank has. */
export function plannedBytes(engine: Engine): { sharded: number; replicated: number }[] {
  const { plan, layout, model } = engine[INTERNALS]
  return rankPlans(model, plan, layout).map((r) => ({ sharded: r.shardedWeightBytes, replicated: r.replicatedWeightBytes }))
}

/** Makes the engine forget every cached prefix, so that the next prompt is computed from its first token. Call while nothing runs. */
export function forgetPrefixes(engine: Engine): void {
  engine[INTERNALS].allocator.evictAll()
}

/** The bytes of a shard's memory. Writing to them changes the model. */
export function shardBytes(engine: Engine, shard: number): Uint8Array {
  const memory = engine[INTERNALS].memories.shards[shard]
  if (!memory) throw new RangeError(`no shard ${shard}`)
  return new Uint8Array(bufferOf(memory))
}

/** Where the matrices of a shard are in its memory, by layer. */
export function shardLayout(engine: Engine, shard: number) {
  const layout = engine[INTERNALS].layout.shards[shard]
  if (!layout) throw new RangeError(`no shard ${shard}`)
  return layout
}

export type PartialKind = 'attention' | 'attentionOut' | 'mlp'

/** A copy of the newest partial of each shard in the exchange memory: the first row of the step. */
export function partials(engine: Engine, kind: PartialKind): Uint8Array[] {
  const { layout, memories, plan, model } = engine[INTERNALS]
  const { embed, attention } = model.lowered.shape
  const width = kind === 'attention' ? attention.heads * attention.valueDim : embed
  const bytes = new Uint8Array(exchangeBuffer(memories))
  return layout.exchange[kind].map((ptr) => bytes.slice(ptr, ptr + width * (plan.backend === 'reference' ? 8 : 4)))
}

/** Slots of the exchange that one rank writes and reads: nothing in them is exchanged. Outputs of heads are such where a shard projects its own. */
const OWN_SLOTS: readonly (keyof ExchangeLayout)[] = ['combined', 'segments', 'reduced', 'sampling']

/**
 * Scalars that ranks write for each other in a step of one row, all layers together, found while `run` computes some: a next step may have
 * begun before it is known that nobody wants it. At more than one rank, on a CPU.
 */
export async function writtenScalars(engine: Engine, run: () => Promise<unknown>): Promise<number> {
  const { layout, memories, plan, model } = engine[INTERNALS]
  const { bytes: _, ...slots } = layout.exchange
  const starts = Object.entries(slots).flatMap(([kind, list]) => list.map((ptr) => ({ kind: kind as keyof ExchangeLayout, ptr })))
  starts.sort((a, b) => a.ptr - b.ptr)
  const size = plan.backend === 'reference' ? 8 : 4
  const words = new Uint32Array(exchangeBuffer(memories))
  const UNWRITTEN = 0x5eed5eed
  const first = (starts[0]?.ptr ?? 0) / 4
  words.fill(UNWRITTEN, first)
  await run()
  let sum = 0
  let logits = 0
  for (const [i, { kind, ptr }] of starts.entries()) {
    if (OWN_SLOTS.includes(kind) || (kind === 'attention' && isLocal(model.lowered.shape.attention))) continue
    const end = starts[i + 1]?.ptr ?? layout.exchange.bytes
    let written = 0
    for (let at = ptr / 4; at < end / 4; at += size / 4) if (words.subarray(at, at + size / 4).some((word) => word !== UNWRITTEN)) written++
    if (kind === 'logits') logits = Math.max(logits, written)
    else sum += written * model.lowered.shape.layers
  }
  return sum + logits
}
