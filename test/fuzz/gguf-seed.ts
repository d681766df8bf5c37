// A small GGUF file for the fuzzer, with a vocabulary, and all that is read of one.
import { readerOf } from '../../src/model/checkpoint/byte-reader.js'
import type { TensorSource } from '../../src/model/checkpoint/tensor-source.js'
import { parseModelConfig } from '../../src/model/model-config.js'
import { readGguf } from '../../src/model/model-files.js'
import { ggufFile, type WrittenTensor } from '../support/gguf-file.js'

const [embed, heads, vocab, inner] = [32, 2, 40, 32]
const tensor = (name: string, shape: readonly number[], type: WrittenTensor['type'] = 'f32'): WrittenTensor => ({
  name,
  shape,
  type,
  values: new Float32Array(shape.reduce((n, d) => n * d, 1)).fill(1),
})
const tokens = [
  '<unk>',
  '<s>',
  '</s>',
  '\u2581',
  't',
  'h',
  'th',
  '\u2581th',
  ...Array.from({ length: vocab - 8 }, (_, i) => `<0x${(i + 16).toString(16).toUpperCase()}>`),
]

export const ggufSeed = ggufFile(
  {
    'general.architecture': { text: 'llama' },
    'llama.context_length': { u32: 64 },
    'llama.embedding_length': { u32: embed },
    'llama.block_count': { u32: 1 },
    'llama.feed_forward_length': { u32: inner },
    'llama.attention.head_count': { u32: heads },
    'llama.attention.head_count_kv': { u32: 1 },
    'llama.attention.layer_norm_rms_epsilon': { f32: 1e-5 },
    'llama.rope.freq_base': { f32: 10000 },
    'tokenizer.ggml.model': { text: 'llama' },
    'tokenizer.ggml.tokens': { texts: tokens },
    'tokenizer.ggml.scores': { f32s: tokens.map((_, i) => -i) },
    'tokenizer.ggml.token_type': { i32s: tokens.map((_, i) => (i === 0 ? 2 : i < 3 ? 3 : i < 8 ? 1 : 6)) },
    'tokenizer.ggml.bos_token_id': { u32: 1 },
    'tokenizer.ggml.eos_token_id': { u32: 2 },
  },
  [
    tensor('token_embd.weight', [vocab, embed], 'q8_0'),
    tensor('blk.0.attn_norm.weight', [embed]),
    tensor('blk.0.attn_q.weight', [embed, embed], 'q4_0'),
    tensor('blk.0.attn_k.weight', [embed / heads, embed], 'f16'),
    tensor('blk.0.attn_v.weight', [embed / heads, embed], 'bf16'),
    tensor('blk.0.attn_output.weight', [embed, embed], 'q8_0'),
    tensor('rope_freqs.weight', [embed / heads / 2]),
  ],
)

/** Bytes of the seed before its tensors' data: the last entry ends there. */
export const ggufHeaderBytes = ggufSeed.indexOf('rope_freqs.weight') + 'rope_freqs.weight'.length + 24

/** Throws as loading does; the tensors that it would read. */
export async function readGgufModel(bytes: Uint8Array): Promise<TensorSource[]> {
  const model = await readGguf(readerOf(bytes), 'x.gguf')
  parseModelConfig(model.config)
  model.tokenizer()
  return [...model.tensors.values()]
}
