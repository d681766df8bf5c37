// Copies packed matrices, and packs other tensors, in this thread; in Node a pool of threads does so in blocks.
import { bufferOf, prepareBackend } from '../../../dist/kernels/open-backend.js'
import { assetUrl } from '../../../dist/src/assets.js'
import { withFile } from '../../../dist/src/model/checkpoint/byte-reader.js'
import { BlockPacker } from '../../../dist/workers/loading/block-packer.js'

export async function loadWeights({ tensors, direct }, memories) {
  const packer = new BlockPacker(prepareBackend('wasm', 'simd128', assetUrl('dist/kernels/wasm/')))
  const bufferFor = ({ kind, index }) => bufferOf((kind === 'shard' ? memories.shards : memories.ranks)[index])
  for (const { source, memory, matrix } of direct) {
    const target = new Uint8Array(bufferFor(memory), matrix.ptr, matrix.bytes)
    await withFile(source.path, (reader) => reader.read(target, source.offset))
  }
  for (const { source, rows, cols, pieces, vectors } of tensors) {
    if (source.strides) throw new Error(`${source.name} is a view with strides, which this page does not read`)
    const bytes = packer.begin({ tensor: source.name, dtype: source.dtype, firstRow: 0, rows, cols, pieces, vectors })
    await withFile(source.path, (reader) => reader.read(bytes, source.offset))
    if (packer.check() >= 0) throw new Error(`${source.name} is not finite`)
    for (const piece of pieces) packer.pack(piece, bufferFor(piece.memory))
    for (const vector of vectors) packer.vector(vector, bufferFor(vector.memory))
  }
}
