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

/** q4_k_m: llama.cpp's mix, q6_k for head and embedding, and for values and the MLP's last matrix of half of the layers; else q4_k. */
export type GgufType = 'f16' | 'bf16' | 'q8_0' | 'q4_0' | 'q4_k_m'

const ALIGNMENT = 32
const TYPE_IDS = { f32: 0, f16: 1, q4_0: 2, q8_0: 8, q4_k: 12, q6_k: 14, bf16: 30 } as const
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
  readonly type: TensorType
}

type TensorType = keyof typeof TYPE_IDS

/** Layers whose values and last MLP matrix q4_k_m keeps in q6_k: the first and the last eighth, and every third between. */
function isFiner(layer: number, layers: number): boolean {
  const eighth = Math.floor(layers / 8)
  return layer < eighth || layer >= Math.floor((7 * layers) / 8) || (layer - eighth) % 3 === 2
}

function tensorsOf(shape: LlamaShape, type: GgufType): Tensor[] {
  const { layers, embed, heads, intermediate, vocab, kvHeads = heads, headDim = embed / heads, architecture } = shape
  const norm = (name: string, width = embed): Tensor => ({ name, shape: [width], type: 'f32' })
  const matrix = (name: string, inputs: number, outputs: number, fine = false): Tensor => {
    const mixed: TensorType = fine ? 'q6_k' : 'q4_k'
    return { name, shape: [inputs, outputs], type: type === 'q4_k_m' ? mixed : type }
  }
  const blocks = Array.from({ length: layers }, (_, i) => [
    norm(`blk.${i}.attn_norm.weight`),
    matrix(`blk.${i}.attn_q.weight`, embed, heads * headDim),
    matrix(`blk.${i}.attn_k.weight`, embed, kvHeads * headDim),
    matrix(`blk.${i}.attn_v.weight`, embed, kvHeads * headDim, isFiner(i, layers)),
    matrix(`blk.${i}.attn_output.weight`, heads * headDim, embed),
    ...(architecture === 'qwen3' ? ['q', 'k'].map((w) => norm(`blk.${i}.attn_${w}_norm.weight`, headDim)) : []),
    norm(`blk.${i}.ffn_norm.weight`),
    matrix(`blk.${i}.ffn_gate.weight`, embed, intermediate),
    matrix(`blk.${i}.ffn_up.weight`, embed, intermediate),
    matrix(`blk.${i}.ffn_down.weight`, intermediate, embed, isFiner(i, layers)),
  ])
  return [matrix('token_embd.weight', embed, vocab, true), ...blocks.flat(), norm('output_norm.weight')]
}

/** Values of a block, and its bytes. */
const BLOCKS: Readonly<Record<TensorType, readonly [values: number, bytes: number]>> = {
  f32: [32, 128],
  f16: [32, 64],
  bf16: [32, 64],
  q8_0: [32, 34],
  q4_0: [32, 18],
  q4_k: [256, 144],
  q6_k: [256, 210],
}

function bytesOf({ shape, type }: Tensor): number {
  const [values, bytes] = BLOCKS[type]
  return (shape.reduce((a, b) => a * b, 1) / values) * bytes
}

/** float16 scales of a block and their places, for weights of about 2^-7; the rest of a block is random. */
const SCALES: Readonly<Partial<Record<TensorType, readonly (readonly [at: number, bits: number])[]>>> = {
  q8_0: [[0, 0x0c00]],
  q4_0: [[0, 0x1c00]],
  // Scale, and the minimum's: 7.5 times as large, so that weights are of either sign.
  q4_k: [
    [0, 0x0400],
    [2, 0x0f80],
  ],
  q6_k: [[208, 0x0080]],
}

/** Values that a tensor repeats: whole blocks. */
const PATTERN_BLOCKS = 1 << 15

function patternOf(type: TensorType): Buffer {
  let state = 1
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state >>> 16
  }
  const [, bytes] = BLOCKS[type]
  const data = Buffer.alloc(PATTERN_BLOCKS * bytes)
  for (let at = 0; at < data.length; at += bytes) {
    // Of either sign, between 2^-7 and 2^-6.
    if (type === 'f16' || type === 'bf16')
      for (let i = 0; i < 64; i += 2) data.writeUInt16LE(type === 'f16' ? 0x2000 | (random() & 0x83ff) : 0x3c00 | (random() & 0x807f), at + i)
    else {
      for (let i = 0; i < bytes; i++) data[at + i] = random() >>> 8
      for (const [place, bits] of SCALES[type] ?? []) data.writeUInt16LE(bits, at + place)
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
  const patterns = new Map<TensorType, Buffer>()
  for (const tensor of tensors) {
    const bytes = bytesOf(tensor)
    if (tensor.type === 'f32') writeSync(file, Buffer.from(new Float32Array(bytes / 4).fill(1).buffer))
    else {
      const pattern = patterns.get(tensor.type) ?? patternOf(tensor.type)
      patterns.set(tensor.type, pattern)
      for (let done = 0; done < bytes; done += pattern.length) writeSync(file, pattern, 0, Math.min(pattern.length, bytes - done))
    }
    writeSync(file, Buffer.alloc(padded(bytes) - bytes))
  }
  closeSync(file)
  return offset
}
