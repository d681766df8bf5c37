// A fingerprint of a model's weights: a hash over the beginning of every matrix, so that a large model takes no longer than a small one.
import { createHash } from 'node:crypto'
import { bufferOf } from '../../../kernels/open-backend.js'
import type { PackedMatrix } from '../../../kernels/packing.js'
import type { ModelLayout } from '../../../workers/layout/model-layout.js'
import type { ModelShape } from '../../../workers/protocol.js'
import type { EngineMemories } from '../start-engine.js'

const SAMPLE_BYTES = 4096

/** Base64. Shards are cut and packed the same way at every rank count. */
export function modelFingerprint(shape: ModelShape, layout: ModelLayout, { shards }: EngineMemories): string {
  const hash = createHash('sha256').update(JSON.stringify(shape))
  for (const [s, { layers, head }] of layout.shards.entries()) {
    const bytes = new Uint8Array(bufferOf(shards[s] as EngineMemories['shards'][number]))
    const matrices: readonly PackedMatrix[] = [...layers.flatMap((layer) => Object.values(layer)), head]
    // A copy: the hash takes no views of shared memory.
    for (const { ptr, bytes: length } of matrices) hash.update(bytes.slice(ptr, ptr + Math.min(SAMPLE_BYTES, length)))
  }
  return hash.digest('base64')
}
