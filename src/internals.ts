// Memory and layout of an engine, for Tetrad's own tests. The package does not export it; tetrad/testing is public.
import { bufferOf } from '../kernels/open-backend.js'
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
