// A Llama or Qwen 3 of random weights in GGUF, its head tied, for timing llama.cpp on a model of a given size. Speed does not depend on the values, but
// they are no zeros and no denormals. Format: the GGUF specification, version 3.
import { closeSync, openSync, writeSync } from 'node:fs'

export interface LlamaShape {
  readonly layers: number
  readonly embed: number
  readonly heads: number
  readonly intermediate: number
  readonly vocab: number
  /** `heads` if omitted. */
  readonly kvHeads?: number
  /** embed / heads if omitted. */
  readonly headDim?: number
  /** 10000 if omitted. */
  readonly ropeBase?: number
  /** llama if omitted. */
  readonly architecture?: 'llama' | 'qwen3'
}

export type GgufType = 'f16' | 'bf16' | 'q8_0' | 'q4_0'

const ALIGNMENT = 32
const TYPE_IDS = { f32: 0, f16: 1, q4_0: 2, q8_0: 8, bf16: 30 } as const
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

function metadata({ layers, embed, heads, intermediate, vocab, kvHeads = heads, headDim = embed / heads, ...more }: LlamaShape): Buffer[] {
  const { ropeBase = 10000, architecture = 'llama' } = more
  const number = (key: string, n: number) => Buffer.concat([text(key), u32(VALUE.uint32), u32(n)])
  const float = (key: string, n: number) => Buffer.concat([text(key), u32(VALUE.float32), f32(n)])
  const string = (key: string, s: string) => Buffer.concat([text(key), u32(VALUE.string), text(s)])
  const array = (key: string, type: number, items: readonly Buffer[]) =>
    Buffer.concat([text(key), u32(VALUE.array), u32(type), u64(items.length), ...items])
  const tokens = Array.from({ length: vocab }, (_, i) => text(i < 256 ? byteToken(i) : `token${i}`))
  return [
    string('general.architecture', architecture),
    number(`${architecture}.context_length`, 4096),
    number(`${architecture}.embedding_length`, embed),
    number(`${architecture}.block_count`, layers),
    number(`${architecture}.feed_forward_length`, intermediate),
    number(`${architecture}.attention.head_count`, heads),
    number(`${architecture}.attention.head_count_kv`, kvHeads),
    number(`${architecture}.attention.key_length`, headDim),
    number(`${architecture}.attention.value_length`, headDim),
    number(`${architecture}.rope.dimension_count`, headDim),
    float(`${architecture}.rope.freq_base`, ropeBase),
    number(`${architecture}.vocab_size`, vocab),
    float(`${architecture}.attention.layer_norm_rms_epsilon`, 1e-6),
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

function tensorsOf(shape: LlamaShape, type: GgufType): Tensor[] {
  const { layers, embed, heads, intermediate, vocab, kvHeads = heads, headDim = embed / heads, architecture } = shape
  const norm = (name: string, width = embed): Tensor => ({ name, shape: [width], type: 'f32' })
  const matrix = (name: string, inputs: number, outputs: number): Tensor => ({ name, shape: [inputs, outputs], type })
  const blocks = Array.from({ length: layers }, (_, i) => [
    norm(`blk.${i}.attn_norm.weight`),
    matrix(`blk.${i}.attn_q.weight`, embed, heads * headDim),
    matrix(`blk.${i}.attn_k.weight`, embed, kvHeads * headDim),
    matrix(`blk.${i}.attn_v.weight`, embed, kvHeads * headDim),
    matrix(`blk.${i}.attn_output.weight`, heads * headDim, embed),
    ...(architecture === 'qwen3' ? ['q', 'k'].map((w) => norm(`blk.${i}.attn_${w}_norm.weight`, headDim)) : []),
    norm(`blk.${i}.ffn_norm.weight`),
    matrix(`blk.${i}.ffn_gate.weight`, embed, intermediate),
    matrix(`blk.${i}.ffn_up.weight`, embed, intermediate),
    matrix(`blk.${i}.ffn_down.weight`, intermediate, embed),
  ])
  return [matrix('token_embd.weight', embed, vocab), ...blocks.flat(), norm('output_norm.weight')]
}

/** Bytes of a block of 32 values. */
const BLOCK_BYTES = { f32: 128, f16: 64, bf16: 64, q8_0: 34, q4_0: 18 } as const

function bytesOf({ shape, type }: Tensor): number {
  return (shape.reduce((a, b) => a * b, 1) / 32) * BLOCK_BYTES[type]
}

/** Values that a tensor repeats: whole blocks. */
const PATTERN_BLOCKS = 1 << 15

function patternOf(type: GgufType): Buffer {
  let state = 1
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state >>> 16
  }
  const data = Buffer.alloc(PATTERN_BLOCKS * BLOCK_BYTES[type])
  for (let at = 0; at < data.length; at += BLOCK_BYTES[type]) {
    // Of either sign, between 2^-7 and 2^-6; blocks have one positive scale.
    if (type === 'f16' || type === 'bf16')
      for (let i = 0; i < 64; i += 2) data.writeUInt16LE(type === 'f16' ? 0x2000 | (random() & 0x83ff) : 0x3c00 | (random() & 0x807f), at + i)
    else {
      data.writeUInt16LE(type === 'q8_0' ? 0x0c00 : 0x1c00, at)
      for (let i = 2; i < BLOCK_BYTES[type]; i++) data[at + i] = random() >>> 8
    }
  }
  return data
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
  const pattern = patternOf(type)
  for (const tensor of tensors) {
    const bytes = bytesOf(tensor)
    if (tensor.type === 'f32') writeSync(file, Buffer.from(new Float32Array(bytes / 4).fill(1).buffer))
    else for (let done = 0; done < bytes; done += pattern.length) writeSync(file, pattern, 0, Math.min(pattern.length, bytes - done))
    writeSync(file, Buffer.alloc(padded(bytes) - bytes))
  }
  closeSync(file)
  return offset
}
