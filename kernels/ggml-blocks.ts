// GGML's blocks of 32 values to float32. A value is the block's scale times a small integer, which float32 holds exactly.
// Source: llama.cpp, ggml/src/ggml-quants.c, dequantize_row_q8_0 and dequantize_row_q4_0.

import { f32BitsFromF16 } from './float-formats.js'

const BLOCK = 32
/** A float16 scale, then 32 signed bytes. */
const Q8_0_BYTES = 34
/** A float16 scale, then 16 bytes: values 0..15 in the low halves, 16..31 in the high ones, each plus 8. */
const Q4_0_BYTES = 18

const bits = new Uint32Array(1)
const floats = new Float32Array(bits.buffer)

export type BlockedType = 'q8_0' | 'q4_0'

export function isBlocked(type: string): type is BlockedType {
  return type === 'q8_0' || type === 'q4_0'
}

/** blocks: whole ones. out: [count] values. */
export function dequantize(type: BlockedType, blocks: Uint8Array, out: Float32Array): void {
  const count = out.length / BLOCK
  if (type === 'q8_0') {
    const signed = new Int8Array(blocks.buffer, blocks.byteOffset, blocks.length)
    for (let b = 0; b < count; b++) {
      const at = b * Q8_0_BYTES
      const scale = float16(blocks[at] as number, blocks[at + 1] as number)
      for (let i = 0; i < BLOCK; i++) out[b * BLOCK + i] = scale * (signed[at + 2 + i] as number)
    }
    return
  }
  for (let b = 0; b < count; b++) {
    const at = b * Q4_0_BYTES
    const scale = float16(blocks[at] as number, blocks[at + 1] as number)
    for (let i = 0; i < BLOCK / 2; i++) {
      const pair = blocks[at + 2 + i] as number
      out[b * BLOCK + i] = scale * ((pair & 15) - 8)
      out[b * BLOCK + BLOCK / 2 + i] = scale * ((pair >> 4) - 8)
    }
  }
}

/** Of its bytes, lower first. */
function float16(low: number, high: number): number {
  bits[0] = f32BitsFromF16(low | (high << 8))
  return floats[0] as number
}
