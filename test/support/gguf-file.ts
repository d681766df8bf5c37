// Writes GGUF files, version 3, and turns checkpoints of transformers into them as llama.cpp's converter does.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readTensors } from './models.js'

export type GgufValue =
  | { readonly u32: number }
  | { readonly f32: number }
  | { readonly bool: boolean }
  | { readonly text: string }
  | { readonly texts: readonly string[] }
  | { readonly i32s: readonly number[] }
  | { readonly f32s: readonly number[] }

export type GgufTensorType = 'f32' | 'f16' | 'bf16' | 'q8_0' | 'q4_0'

export interface WrittenTensor {
  readonly name: string
  /** Slowest first. */
  readonly shape: readonly number[]
  readonly type: GgufTensorType
  readonly values: Float32Array
}

const TYPE_IDS = { f32: 0, f16: 1, q4_0: 2, q8_0: 8, bf16: 30 } as const
const ALIGNMENT = 32

const u32 = (n: number) => Buffer.from(Uint32Array.of(n).buffer)
const u64 = (n: number) => Buffer.from(BigUint64Array.of(BigInt(n)).buffer)
const text = (s: string) => Buffer.concat([u64(Buffer.byteLength(s)), Buffer.from(s)])
const padded = (n: number) => Math.ceil(n / ALIGNMENT) * ALIGNMENT

function entry(key: string, value: GgufValue): Buffer {
  const of = (type: number, ...bytes: Buffer[]) => Buffer.concat([text(key), u32(type), ...bytes])
  if ('u32' in value) return of(4, u32(value.u32))
  if ('f32' in value) return of(6, Buffer.from(Float32Array.of(value.f32).buffer))
  if ('bool' in value) return of(7, Buffer.of(value.bool ? 1 : 0))
  if ('text' in value) return of(8, text(value.text))
  if ('texts' in value) return of(9, u32(8), u64(value.texts.length), Buffer.concat(value.texts.map(text)))
  if ('i32s' in value) return of(9, u32(5), u64(value.i32s.length), Buffer.from(Int32Array.from(value.i32s).buffer))
  return of(9, u32(6), u64(value.f32s.length), Buffer.from(Float32Array.from(value.f32s).buffer))
}

export function ggufFile(metadata: Readonly<Record<string, GgufValue>>, tensors: readonly WrittenTensor[]): Buffer {
  let offset = 0
  const encoded = tensors.map(({ type, values }) => encode(type, values))
  const infos = tensors.map(({ name, shape, type }, i) => {
    const info = Buffer.concat([text(name), u32(shape.length), ...shape.toReversed().map(u64), u32(TYPE_IDS[type]), u64(offset)])
    offset += padded(encoded[i]?.length ?? 0)
    return info
  })
  const entries = Object.entries(metadata).map(([key, value]) => entry(key, value))
  const head = Buffer.concat([Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(entries.length), ...entries, ...infos])
  const pad = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc(padded(bytes.length) - bytes.length)])
  return Buffer.concat([pad(head), ...encoded.map(pad)])
}

/** The nearest float16, ties to even; values of a model are far from its limits. */
function float16(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
  const size = Math.abs(value)
  const exponent = Math.max(-14, Math.floor(Math.log2(size || 2 ** -24)))
  const scaled = size / 2 ** (exponent - 10)
  let fraction = Math.floor(scaled)
  const rest = scaled - fraction
  if (rest > 0.5 || (rest === 0.5 && fraction % 2 === 1)) fraction++
  // A fraction below 1024 is subnormal; one that rounds up to 2048 carries into the exponent.
  return sign | (fraction < 1024 ? fraction : ((exponent + 15) << 10) + fraction - 1024)
}

export function float32(half: number): number {
  const exponent = (half >> 10) & 31
  const fraction = half & 1023
  const size = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15)
  return half & 0x8000 ? -size : size
}

function encode(type: GgufTensorType, values: Float32Array): Buffer {
  if (type === 'f32') return Buffer.from(values.buffer, values.byteOffset, values.byteLength)
  if (type === 'f16') return Buffer.from(Uint16Array.from(values, float16).buffer)
  // Round to nearest even, by the bits.
  if (type === 'bf16')
    return Buffer.from(
      Uint16Array.from(new Uint32Array(Float32Array.from(values).buffer), (bits) => (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16).buffer,
    )
  const blocks = Array.from({ length: values.length / 32 }, (_, b) => values.subarray(b * 32, b * 32 + 32))
  return Buffer.concat(blocks.map(type === 'q8_0' ? blockOf8 : blockOf4))
}

/** As quantize_row_q8_0_ref of llama.cpp. */
function blockOf8(values: Float32Array): Buffer {
  const scale = Math.fround(Math.max(...values.map(Math.abs)) / 127)
  const block = Buffer.alloc(34)
  block.writeUInt16LE(float16(scale))
  values.forEach((v, i) => void block.writeInt8(scale === 0 ? 0 : Math.round(v / scale), 2 + i))
  return block
}

/** As quantize_row_q4_0_ref of llama.cpp. */
function blockOf4(values: Float32Array): Buffer {
  const largest = values.reduce((most, v) => (Math.abs(v) > Math.abs(most) ? v : most), 0)
  const scale = Math.fround(largest / -8)
  const level = (v: number) => (scale === 0 ? 8 : Math.min(15, Math.floor(v / scale + 8.5)))
  const block = Buffer.alloc(18)
  block.writeUInt16LE(float16(scale))
  for (let i = 0; i < 16; i++) block[2 + i] = level(values[i] as number) | (level(values[i + 16] as number) << 4)
  return block
}

/** What a tensor of the type holds of the values. */
export function rounded(type: GgufTensorType, values: Float32Array): Float32Array {
  const bytes = encode(type, values)
  switch (type) {
    case 'f32':
      return values
    case 'f16':
      return Float32Array.from({ length: values.length }, (_, i) => float32(bytes.readUInt16LE(i * 2)))
    case 'bf16':
      return new Float32Array(Uint32Array.from({ length: values.length }, (_, i) => bytes.readUInt16LE(i * 2) << 16).buffer)
    case 'q8_0':
      return Float32Array.from({ length: values.length }, (_, i) => {
        const at = Math.floor(i / 32) * 34
        return float32(bytes.readUInt16LE(at)) * bytes.readInt8(at + 2 + (i % 32))
      })
    case 'q4_0':
      return Float32Array.from({ length: values.length }, (_, i) => {
        const at = Math.floor(i / 32) * 18
        const pair = bytes[at + 2 + (i % 16)] as number
        return float32(bytes.readUInt16LE(at)) * ((i % 32 < 16 ? pair & 15 : pair >> 4) - 8)
      })
  }
}

const LAYER_NAMES: readonly [string, string][] = [
  ['input_layernorm', 'attn_norm'],
  ['post_attention_layernorm', 'ffn_norm'],
  ['self_attn.q_proj', 'attn_q'],
  ['self_attn.k_proj', 'attn_k'],
  ['self_attn.v_proj', 'attn_v'],
  ['self_attn.o_proj', 'attn_output'],
  ['self_attn.q_norm', 'attn_q_norm'],
  ['self_attn.k_norm', 'attn_k_norm'],
  ['mlp.gate_proj', 'ffn_gate'],
  ['mlp.up_proj', 'ffn_up'],
  ['mlp.down_proj', 'ffn_down'],
]

function ggufName(name: string): string {
  const [, layer, part, kind] = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? []
  const found = LAYER_NAMES.find(([from]) => from === part)
  if (found) return `blk.${layer}.${found[1]}.${kind}`
  return (
    ({ 'model.embed_tokens.weight': 'token_embd.weight', 'model.norm.weight': 'output_norm.weight', 'lm_head.weight': 'output.weight' } as const)[
      name
    ] ?? name
  )
}

/** LlamaModel.permute of llama.cpp: row i D/2 + j of a head becomes row 2j + i. */
function permuted(values: Float32Array, heads: number, cols: number): Float32Array {
  const width = values.length / cols / heads
  const out = new Float32Array(values.length)
  for (let head = 0; head < heads; head++) {
    for (let row = 0; row < width; row++) {
      const [i, j] = [Math.floor(row / (width / 2)), row % (width / 2)]
      const from = (head * width + row) * cols
      out.set(values.subarray(from, from + cols), (head * width + 2 * j + i) * cols)
    }
  }
  return out
}

interface Converted {
  readonly metadata: Record<string, GgufValue>
  readonly tensors: WrittenTensor[]
}

/** A checkpoint of Llama, Mistral or Qwen as llama.cpp's converter writes it; matrices as `type`. */
export async function asGguf(dir: string, type: GgufTensorType): Promise<Converted> {
  const config = JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8')) as Record<string, unknown> & { rope_parameters: Record<string, unknown> }
  const number = (key: string) => config[key] as number
  const name = { llama: 'llama', mistral: 'llama', qwen2: 'qwen2', qwen3: 'qwen3' }[config.model_type as string] as string
  const heads = number('num_attention_heads')
  const kvHeads = number('num_key_value_heads')
  const width = number('head_dim') ?? number('hidden_size') / heads
  const { rope_theta: base, rope_type: rope } = config.rope_parameters
  const metadata: Record<string, GgufValue> = {
    'general.architecture': { text: name },
    'general.name': { text: 'converted' },
    [`${name}.context_length`]: { u32: number('max_position_embeddings') },
    [`${name}.embedding_length`]: { u32: number('hidden_size') },
    [`${name}.block_count`]: { u32: number('num_hidden_layers') },
    [`${name}.feed_forward_length`]: { u32: number('intermediate_size') },
    [`${name}.attention.head_count`]: { u32: heads },
    [`${name}.attention.head_count_kv`]: { u32: kvHeads },
    [`${name}.attention.key_length`]: { u32: width },
    [`${name}.attention.value_length`]: { u32: width },
    [`${name}.attention.layer_norm_rms_epsilon`]: { f32: number('rms_norm_eps') },
    [`${name}.rope.dimension_count`]: { u32: width },
    [`${name}.rope.freq_base`]: { f32: base as number },
    [`${name}.vocab_size`]: { u32: number('vocab_size') },
    'general.file_type': { u32: 0 },
  }
  const tensors = (await readTensors(dir)).map(({ name: own, shape, values }): WrittenTensor => {
    const isTurned = name === 'llama' && /\.(q|k)_proj\.weight$/.test(own)
    const turned = isTurned ? permuted(values, own.includes('q_proj') ? heads : kvHeads, shape[1] as number) : values
    return { name: ggufName(own), shape, type: shape.length > 1 ? type : 'f32', values: turned }
  })
  if (rope === 'llama3')
    tensors.push({ name: 'rope_freqs.weight', shape: [width / 2], type: 'f32', values: factorsOf(config.rope_parameters, width) })
  return { metadata, tensors }
}

/** As LlamaModel.generate_extra_tensors of llama.cpp's converter. */
function factorsOf(rope: Record<string, unknown>, width: number): Float32Array {
  const {
    factor,
    low_freq_factor: low,
    high_freq_factor: high,
    original_max_position_embeddings: context,
    rope_theta: base,
  } = rope as Record<string, number>
  return Float32Array.from({ length: width / 2 }, (_, i) => {
    const wave = 2 * Math.PI * (base as number) ** ((2 * i) / width)
    if (wave < (context as number) / (high as number)) return 1
    if (wave > (context as number) / (low as number)) return factor as number
    const smooth = ((context as number) / wave - (low as number)) / ((high as number) - (low as number))
    return 1 / ((1 - smooth) / (factor as number) + smooth)
  })
}

export function writeGgufFile(path: string, { metadata, tensors }: Converted, more: Readonly<Record<string, GgufValue>> = {}): string {
  writeFileSync(path, ggufFile({ ...metadata, ...more }, tensors))
  return path
}
