// What an engine's snapshots are taken from and brought back to, and what they must agree with.
import type { EngineInfo, EngineInternals } from '../engine/engine-info.js'
import { OptionError } from '../errors.js'
import { CachedRows } from './cached-rows.js'
import { modelFingerprint } from './fingerprint.js'
import type { SnapshotCache } from './snapshot.js'

/** Throws OptionError on the gpu backend. */
export function snapshotCache({ blocks, layout, memories, model, plan }: EngineInternals, info: EngineInfo): SnapshotCache {
  if (plan.backend === 'gpu') {
    throw new OptionError('OPTION_INVALID', {
      what: 'snapshots are not supported by the gpu backend',
      expected: 'the wasm or the reference backend',
      actual: plan.backend,
      remedy: "Load the engine with backend: 'wasm' to save and load snapshots.",
    })
  }
  const { shape } = model.lowered
  const { variant, weights, cache, determinismKey, vocab, contextTokens } = info
  const identity = { model: modelFingerprint(shape, layout, memories), variant, weights, cache, determinismKey, layers: shape.layers }
  return { blocks, rows: new CachedRows(shape.attention, plan, layout, memories), identity, vocab, contextTokens }
}
