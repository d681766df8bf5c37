// GGML's blocks of 32 values. A value is the block's scale times a small integer, which float32 holds exactly.
// Source: llama.cpp, ggml/src/ggml-quants.c, dequantize_row_q8_0 and dequantize_row_q4_0.

import { f32BitsFromF16 } from './float-formats.js'

export const GGML_BLOCK = 32

export type BlockedType = 'q8_0' | 'q4_0'

/**
 * Bytes of a block. q8_0: a float16 scale, then 32 signed bytes. q4_0: a float16 scale, then 16 bytes: values 0..15 in the low halves,
 * 16..31 in the high ones, each plus 8.
 */
export const GGML_BLOCK_BYTES: Readonly<Record<BlockedType, number>> = { q8_0: 34, q4_0: 18 }

const bits = new Uint32Array(1)
const floats = new Float32Array(bits.buffer)

export function isBlocked(type: string): type is BlockedType {
  return type === 'q8_0' || type === 'q4_0'
}

/** block: its bytes. out: [32] integers. */
export function integersOf(type: BlockedType, block: Uint8Array, out: Int8Array): void {
  for (let i = 0; i < GGML_BLOCK; i++) {
    if (type === 'q8_0') out[i] = block[2 + i] as number
    else out[i] = (((block[2 + (i & 15)] as number) >> (i < 16 ? 0 : 4)) & 15) - 8
  }
}

/** float16 bits. */
export function scaleBitsOf(block: Uint8Array): number {
  return (block[0] as number) | ((block[1] as number) << 8)
}

export function scaleOf(block: Uint8Array): number {
  bits[0] = f32BitsFromF16(scaleBitsOf(block))
  return floats[0] as number
}

const integers = new Int8Array(GGML_BLOCK)

/** blocks: whole ones. out: [count] values. */
export function dequantize(type: BlockedType, blocks: Uint8Array, out: Float32Array): void {
  const bytes = GGML_BLOCK_BYTES[type]
  for (let b = 0; b < out.length / GGML_BLOCK; b++) {
    const block = blocks.subarray(b * bytes, (b + 1) * bytes)
    const scale = scaleOf(block)
    integersOf(type, block, integers)
    for (let i = 0; i < GGML_BLOCK; i++) out[b * GGML_BLOCK + i] = scale * (integers[i] as number)
  }
}
