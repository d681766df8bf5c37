// Whether the output projection is the token embedding: what config.json says, what tensors the files hold, and what is in them.
import { CheckpointError } from '../errors.js'
import { withFile } from './checkpoint/byte-reader.js'
import { elements, STORED_BYTES, type TensorSource } from './checkpoint/tensor-source.js'

const BLOCK_BYTES = 4 << 20

export interface HeadNames {
  /** Tensor of the output projection, [vocab, embed]. */
  readonly head: string
  /** Tensor of the token embedding, [vocab, embed]. */
  readonly embedding: string
}

/**
 * True if one matrix serves as both. `stated`: what config.json's tie_word_embeddings or the family says. Two tensors that are stored apart
 * are compared byte by byte.
 * Throws CheckpointError TENSOR_MISSING or CHECKPOINT_INVALID where the files contradict the config.
 */
export async function isHeadTied(tensors: ReadonlyMap<string, TensorSource>, names: HeadNames, stated: boolean): Promise<boolean> {
  const head = tensors.get(names.head)
  const embedding = tensors.get(names.embedding)
  if (!head || !embedding) {
    if (stated || (!head && !embedding)) return true
    throw new CheckpointError('TENSOR_MISSING', {
      what: `config.json says tie_word_embeddings: false, and the checkpoint has no ${head ? names.embedding : names.head}`,
      expected: `${names.head} and ${names.embedding}`,
      actual: head ? names.head : names.embedding,
      remedy: 'Check that all shards of the checkpoint are there, or set tie_word_embeddings to true if the model shares the matrix.',
    })
  }
  if (await hasSameContent(head, embedding)) return true
  if (!stated) return false
  throw new CheckpointError('CHECKPOINT_INVALID', {
    what: `${names.head} and ${names.embedding} differ, and the model shares one matrix for both`,
    expected: 'the same values in both, or tie_word_embeddings: false in config.json',
    actual: 'tie_word_embeddings: true, or no such field',
    remedy: 'Set tie_word_embeddings to false if the model was trained with two matrices; else remove the tensor that is not used.',
  })
}

async function hasSameContent(a: TensorSource, b: TensorSource): Promise<boolean> {
  if (a.dtype !== b.dtype || a.shape.join() !== b.shape.join() || a.strides?.join() !== b.strides?.join()) return false
  if (a.path === b.path && a.offset === b.offset) return true
  const bytes = spanOf(a) * STORED_BYTES[a.dtype]
  return withFile(a.path, (first) =>
    withFile(b.path, async (second) => {
      const [left, right] = [Buffer.alloc(BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES)]
      for (let done = 0; done < bytes; done += BLOCK_BYTES) {
        const n = Math.min(BLOCK_BYTES, bytes - done)
        const [l, r] = [left.subarray(0, n), right.subarray(0, n)]
        await Promise.all([first.read(l, a.offset + done), second.read(r, b.offset + done)])
        if (!l.equals(r)) return false
      }
      return true
    }),
  )
}

/** Elements from the first to the last of a tensor, in its storage. */
function spanOf({ shape: whole, strides, stridedShape: shape = whole }: TensorSource): number {
  if (!strides) return elements(shape)
  return shape.includes(0) ? 0 : shape.reduce((sum, d, i) => sum + (d - 1) * (strides[i] ?? 0), 1)
}
