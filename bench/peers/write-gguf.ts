// A Llama of random weights in GGUF, for timing llama.cpp on a model of a given size. Speed does not depend on the values, but
// they are no zeros and no denormals. Format: the GGUF specification, version 3.
import { closeSync, openSync, writeSync } from 'node:fs'

export interface LlamaShape {
  readonly layers: number
  readonly embed: number
  readonly heads: number
  readonly intermediate: number
  readonly vocab: number
}

export type GgufType = 'f16' | 'q8_0'

const ALIGNMENT = 32
const TYPE_IDS = { f32: 0, f16: 1, q8_0: 8 } as const
const VALUE = { uint32: 4, float32: 6, string: 8, array: 9 } as const

const u32 = (n: number) => Buffer.from(Uint32Array.of(n).buffer)
const u64 = (n: number) => Buffer.from(BigUint64Array.of(BigInt(n)).buffer)
const f32 = (n: number) => Buffer.from(Float32Array.of(n).buffer)
const text = (s: string) => Buffer.concat([u64(Buffer.byteLength(s)), Buffer.from(s)])

/** Bytes as GPT-2 vocabularies write them: printable characters as they are, the others from U+0100 on. */
function byteToken(byte: number): string {
  const printable = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174
  if (printable(byte)) return String.fromCodePoint(byte)
  return String.fromCodePoint(256 + Array.from({ length: byte }, (_, b) => b).filter((b) => !printable(b)).length)
}

function metadata({ layers, embed, heads, intermediate, vocab }: LlamaShape): Buffer[] {
  const number = (key: string, n: number) => Buffer.concat([text(key), u32(VALUE.uint32), u32(n)])
  const string = (key: string, s: string) => Buffer.concat([text(key), u32(VALUE.string), text(s)])
  const array = (key: string, type: number, items: readonly Buffer[]) =>
    Buffer.concat([text(key), u32(VALUE.array), u32(type), u64(items.length), ...items])
  const tokens = Array.from({ length: vocab }, (_, i) => text(i < 256 ? byteToken(i) : `token${i}`))
  return [
    string('general.architecture', 'llama'),
    number('llama.context_length', 4096),
    number('llama.embedding_length', embed),
    number('llama.block_count', layers),
    number('llama.feed_forward_length', intermediate),
    number('llama.attention.head_count', heads),
    number('llama.attention.head_count_kv', heads),
    number('llama.rope.dimension_count', embed / heads),
    number('llama.vocab_size', vocab),
    Buffer.concat([text('llama.attention.layer_norm_rms_epsilon'), u32(VALUE.float32), f32(1e-6)]),
    string('tokenizer.ggml.model', 'gpt2'),
    string('tokenizer.ggml.pre', 'gpt-2'),
    array('tokenizer.ggml.tokens', VALUE.string, tokens),
    array(
      'tokenizer.ggml.token_type',
      5,
      tokens.map(() => u32(1)),
    ),
    array('tokenizer.ggml.merges', VALUE.string, [text('t o')]),
    number('tokenizer.ggml.bos_token_id', vocab - 1),
    number('tokenizer.ggml.eos_token_id', vocab - 1),
  ]
}

interface Tensor {
  readonly name: string
  /** Fastest first. */
  readonly shape: readonly number[]
  readonly type: keyof typeof TYPE_IDS
}

function tensorsOf({ layers, embed, intermediate, vocab }: LlamaShape, type: GgufType): Tensor[] {
  const norm = (name: string): Tensor => ({ name, shape: [embed], type: 'f32' })
  const matrix = (name: string, inputs: number, outputs: number): Tensor => ({ name, shape: [inputs, outputs], type })
  const blocks = Array.from({ length: layers }, (_, i) => [
    norm(`blk.${i}.attn_norm.weight`),
    ...['q', 'k', 'v', 'output'].map((w) => matrix(`blk.${i}.attn_${w}.weight`, embed, embed)),
    norm(`blk.${i}.ffn_norm.weight`),
    matrix(`blk.${i}.ffn_gate.weight`, embed, intermediate),
    matrix(`blk.${i}.ffn_up.weight`, embed, intermediate),
    matrix(`blk.${i}.ffn_down.weight`, intermediate, embed),
  ])
  return [matrix('token_embd.weight', embed, vocab), ...blocks.flat(), norm('output_norm.weight')]
}

function bytesOf({ shape, type }: Tensor): number {
  const n = shape.reduce((a, b) => a * b, 1)
  return type === 'f32' ? n * 4 : type === 'f16' ? n * 2 : (n / 32) * 34
}

/** Writes the file; returns the bytes of its weights. */
export function writeGguf(path: string, shape: LlamaShape, type: GgufType): number {
  const tensors = tensorsOf(shape, type)
  const padded = (n: number) => Math.ceil(n / ALIGNMENT) * ALIGNMENT
  let offset = 0
  const infos = tensors.map((tensor) => {
    const info = Buffer.concat([text(tensor.name), u32(tensor.shape.length), ...tensor.shape.map(u64), u32(TYPE_IDS[tensor.type]), u64(offset)])
    offset += padded(bytesOf(tensor))
    return info
  })
  const entries = metadata(shape)
  const head = Buffer.concat([Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(entries.length), ...entries, ...infos])
  const file = openSync(path, 'w')
  writeSync(file, Buffer.concat([head, Buffer.alloc(padded(head.length) - head.length)]))
  let state = 1
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state
  }
  for (const tensor of tensors) {
    const data = Buffer.alloc(padded(bytesOf(tensor)))
    const bytes = bytesOf(tensor)
    if (tensor.type === 'f32') new Float32Array(data.buffer, data.byteOffset, bytes / 4).fill(1)
    // Halves of either sign, between 2^-7 and 2^-6.
    else if (tensor.type === 'f16') for (let at = 0; at < bytes; at += 2) data.writeUInt16LE(0x2000 | ((random() >>> 16) & 0x83ff), at)
    else {
      for (let at = 0; at < bytes; at += 34) {
        data.writeUInt16LE(0x0c00, at)
        for (let i = 2; i < 34; i++) data[at + i] = random() >>> 24
      }
    }
    writeSync(file, data)
  }
  closeSync(file)
  return offset
}
