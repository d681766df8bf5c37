// A whole checkpoint as float32, for peers and tests. Only for small models: all of it is in memory.
import { readFileSync } from 'node:fs'
import { f32BitsFromF16 } from '../kernels/float-formats.js'
import { openCheckpoint } from '../src/model/checkpoint/checkpoint.js'
import { elements, STORED_BYTES } from '../src/model/checkpoint/tensor-source.js'

export interface PlainTensor {
  readonly name: string
  readonly shape: readonly number[]
  readonly values: Float32Array
}

/** Every tensor of a checkpoint as float32. */
export async function readTensors(dir: string): Promise<PlainTensor[]> {
  const { tensors } = await openCheckpoint(dir)
  return [...tensors.values()].map(({ name, path, offset, dtype, shape }) => {
    const count = elements(shape)
    const bytes = Uint8Array.from(readFileSync(path).subarray(offset, offset + count * STORED_BYTES[dtype])).buffer
    if (dtype === 'f32') return { name, shape, values: new Float32Array(bytes) }
    const bits = Uint32Array.from(new Uint16Array(bytes), (h) => (dtype === 'bf16' ? h << 16 : f32BitsFromF16(h)))
    return { name, shape, values: new Float32Array(bits.buffer) }
  })
}
