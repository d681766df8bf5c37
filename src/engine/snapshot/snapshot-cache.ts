// The cache that an engine's snapshots are saved from and loaded into, and the identity that they must have.
import type { EngineInfo, EngineInternals } from '../engine-info.js'
import { DeviceRows, MemoryRows } from './cached-rows.js'
import { modelFingerprint } from './fingerprint.js'
import type { SnapshotCache } from './snapshot.js'

export function snapshotCache({ allocator, coordinator, layout, memories, model, plan }: EngineInternals, info: EngineInfo): SnapshotCache {
  const { shape } = model.lowered
  const { variant, weights, cache, determinismKey, vocab, contextTokens } = info
  const identity = { model: modelFingerprint(shape, layout, memories), variant, weights, cache, determinismKey, layers: shape.layers }
  const rows =
    plan.backend === 'gpu'
      ? new DeviceRows(shape.attention, plan, layout, () => coordinator.group)
      : new MemoryRows(shape.attention, plan, layout, memories)
  return { allocator, rows, identity, vocab, contextTokens }
}
