import test from 'ava'
import { randomBf16Pair, randomF16Pair, randomFloat32 } from '../../kernels/random-values.js'

const COUNT = 4096
const WORDS = { f32: randomFloat32, bf16: randomBf16Pair, f16: randomF16Pair }

/** Values of a buffer of words. */
function values(format: 'f32' | 'bf16' | 'f16'): number[] {
  const words = Int32Array.from({ length: COUNT }, (_, i) => WORDS[format](i))
  if (format === 'f32') return [...new Float32Array(words.buffer)]
  const halves = [...new Uint16Array(words.buffer)]
  if (format === 'bf16') return [...new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer)]
  return halves.map((half) => (half & 0x8000 ? -1 : 1) * (1 + (half & 1023) / 1024) * 2 ** (((half >> 10) & 31) - 15))
}

for (const format of ['f32', 'bf16', 'f16'] as const) {
  test(`random ${format} values are of 0.125 to 2, of either sign, and hardly ever the same twice`, (t) => {
    const all = values(format)
    t.is(all.length, format === 'f32' ? COUNT : 2 * COUNT)
    t.true(all.every((v) => Math.abs(v) >= 0.125 && Math.abs(v) < 2))
    const negative = all.filter((v) => v < 0).length / all.length
    t.true(negative > 0.4 && negative < 0.6, String(negative))
    t.true(new Set(all).size > (format === 'bf16' ? 500 : 0.6 * COUNT), String(new Set(all).size))
    for (const [low, high] of [
      [0.125, 0.25],
      [0.25, 0.5],
      [0.5, 1],
      [1, 2],
    ] as const) {
      const share = all.filter((v) => Math.abs(v) >= low && Math.abs(v) < high).length / all.length
      t.true(share > 0.15 && share < 0.35, `${low}: ${share}`)
    }
  })
}
