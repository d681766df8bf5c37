// A tensor that a packed file keeps as it is stored, instead of packing it: contiguous, and blocks as float32.
import { dequantize, isBlocked } from '../../kernels/ggml-blocks.js'
import { CheckpointError } from '../errors.js'
import { withFile } from '../model/checkpoint/byte-reader.js'
import { elements, STORED_BYTES, type StoredType, type TensorSource } from '../model/checkpoint/tensor-source.js'

export function keptType({ dtype }: TensorSource): StoredType {
  return isBlocked(dtype) ? 'f32' : dtype
}

/** All of it, in memory. Throws CheckpointError CHECKPOINT_INVALID where the file ends early. */
export async function keptBytes(source: TensorSource): Promise<Uint8Array> {
  const { dtype, path } = source
  const count = elements(source.shape)
  const stored = Buffer.alloc(count * STORED_BYTES[dtype])
  await withFile(path, async (reader) => {
    for (const { at, to, bytes } of runs(source)) {
      const read = await reader.read(stored.subarray(to, to + bytes), at)
      if (read < bytes) {
        throw new CheckpointError('CHECKPOINT_INVALID', {
          what: `${path}: ${source.name} ends after ${to + read} of ${stored.length} bytes`,
          expected: 'the whole tensor',
          remedy: 'Fetch the file again.',
        })
      }
    }
  })
  if (!isBlocked(dtype)) return stored
  const values = new Float32Array(count)
  dequantize(dtype, stored, values)
  return new Uint8Array(values.buffer)
}

/** Parts of the file, in the order of the elements. The last dimension is contiguous. */
function* runs({ offset, dtype, shape, strides, stridedShape = shape }: TensorSource): Generator<{ at: number; to: number; bytes: number }> {
  const size = STORED_BYTES[dtype]
  if (!strides) return yield { at: offset, to: 0, bytes: elements(shape) * size }
  const bytes = (stridedShape.at(-1) as number) * size
  const rows = elements(stridedShape.slice(0, -1))
  for (let row = 0; row < rows; row++) {
    let rest = row
    let at = 0
    for (let d = stridedShape.length - 2; d >= 0; d--) {
      const extent = stridedShape[d] as number
      at += (rest % extent) * (strides[d] as number)
      rest = Math.floor(rest / extent)
    }
    yield { at: offset + at * size, to: row * bytes, bytes }
  }
}
