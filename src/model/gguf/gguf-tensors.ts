// The tensors of a GGUF file by the names that transformers gives them.
import { CheckpointError } from '../../errors.js'
import type { ByteReader } from '../checkpoint/byte-reader.js'
import type { TensorSource } from '../checkpoint/tensor-source.js'
import { architectureOf } from './gguf-config.js'
import { type GgufHeader, type GgufTensor, invalid } from './gguf-header.js'

const OUTSIDE: Readonly<Record<string, string>> = {
  'token_embd.weight': 'model.embed_tokens.weight',
  'output_norm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
}
const IN_LAYER: Readonly<Record<string, string>> = {
  attn_norm: 'input_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  attn_q_norm: 'self_attn.q_norm',
  attn_k_norm: 'self_attn.k_norm',
  ffn_norm: 'post_attention_layernorm',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
}
const FREQUENCY_FACTORS = 'rope_freqs.weight'

/** What the rope's frequencies are divided by, one for each: rope_freqs.weight of Llama 3. Throws CheckpointError. */
export async function readFrequencyFactors({ path, tensors }: GgufHeader, reader: ByteReader): Promise<readonly number[] | undefined> {
  const tensor = tensors.get(FREQUENCY_FACTORS)
  if (!tensor) return undefined
  const [count = 0, ...others] = tensor.shape
  if (tensor.dtype !== 'f32' || others.length > 0 || count > 4096)
    throw invalid(path, `${FREQUENCY_FACTORS} is ${tensor.dtype} [${tensor.shape.join(', ')}]`, 'f32, one for each frequency')
  const bytes = Buffer.alloc(count * 4)
  if ((await reader.read(bytes, tensor.offset)) < bytes.length) throw invalid(path, `${FREQUENCY_FACTORS} is cut short`, `${bytes.length} bytes`)
  return Array.from({ length: count }, (_, i) => bytes.readFloatLE(i * 4))
}

/** `heads`, `kvHeads`: as the configuration has them. Throws CheckpointError. */
export function ggufTensors(header: GgufHeader, heads: number, kvHeads: number): Map<string, TensorSource> {
  const { path, file, metadata } = header
  const { isPaired } = architectureOf(metadata)
  const tensors = new Map<string, TensorSource>()
  for (const tensor of header.tensors.values()) {
    if (tensor.name === FREQUENCY_FACTORS) continue
    const name = nameOf(tensor.name)
    if (name === undefined) throw surplus(path, tensor)
    const source = { name, path, file, offset: tensor.offset, dtype: tensor.dtype, shape: tensor.shape }
    const each = /\.(q|k)_proj\.(weight|bias)$/.exec(name)
    if (isPaired && each?.[2] === 'bias') throw surplus(path, tensor)
    tensors.set(name, isPaired && each ? unpaired(source, each[1] === 'q' ? heads : kvHeads) : source)
  }
  return tensors
}

function nameOf(name: string): string | undefined {
  if (Object.hasOwn(OUTSIDE, name)) return OUTSIDE[name]
  const [, layer, part = '', kind] = /^blk\.(\d{1,6})\.(\w+)\.(weight|bias)$/.exec(name) ?? []
  return layer !== undefined && Object.hasOwn(IN_LAYER, part) ? `model.layers.${Number(layer)}.${IN_LAYER[part]}.${kind}` : undefined
}

/**
 * llama.cpp turns pairs of neighbouring rows of a head, transformers rows of its halves: row 2j + i there is row i D/2 + j here.
 * The same bytes, read in that order.
 */
function unpaired(source: TensorSource, heads: number): TensorSource {
  const [rows = 0, cols] = source.shape
  const width = rows / heads
  if (cols === undefined || !Number.isInteger(width) || width % 2 !== 0) {
    // Its shape is refused by its name when the tensor is asked for.
    return source
  }
  return { ...source, strides: [width * cols, cols, 2 * cols, 1], stridedShape: [heads, 2, width / 2, cols] }
}

function surplus(path: string, { name, shape }: GgufTensor): CheckpointError {
  return new CheckpointError('TENSOR_SURPLUS', {
    what: `${path}: ${name.slice(0, 80)} is no tensor of an architecture that is read`,
    expected: `tensors of llama, qwen2 and qwen3: blk.N.{${Object.keys(IN_LAYER).join(', ')}}, ${Object.keys(OUTSIDE).join(', ')}`,
    actual: `[${shape.join(', ')}]`,
    remedy: 'Use a plain model of these architectures, or the original checkpoint.',
  })
}
