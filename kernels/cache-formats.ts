// The table of cache formats, and how a cached row is laid out. Code asks the record of a format and never compares its name.
import type { CacheFormat, CacheFormatRecord, CacheRow, CpuCacheFormat, GpuCacheFormat } from './cache-format.js'
import { roundHalfEven, roundToBf16 } from './float-formats.js'
import { randomBf16Pair, randomF16Pair, randomFloat32 } from './random-values.js'
import { BF16_CACHE, F32_CACHE, INT8_CACHE } from './wasm/cache-kernels.js'

/** In descending order of bytes. */
export const CACHE_FORMAT_NAMES = ['f32', 'bf16', 'f16', 'int8'] as const satisfies readonly CacheFormat[]

const fillWords = (randomWord: (i: number) => number) => (bytes: Uint8Array) => {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
  for (let i = 0; i < words.length; i++) words[i] = randomWord(i)
}

const roundRow = (values: Float64Array) => {
  for (let i = 0; i < values.length; i++) values[i] = roundToBf16(values[i] as number)
}

export const CACHE_FORMATS: Readonly<Record<CacheFormat, CacheFormatRecord>> = {
  f32: {
    summary: 'float32. 4 bytes a value. All backends.',
    scalarBytes: 4,
    scaled: false,
    cpu: { ...F32_CACHE, round: () => {}, fillRandom: fillWords(randomFloat32) },
    gpu: { perWord: 1, pack: '', unpack: (word) => word, tensorCores: false, gpuJs: true, randomWord: randomFloat32 },
  },
  bf16: {
    summary: 'bfloat16, rounded to nearest even when a row is written. 2 bytes a value. All backends, but not with gpu.js kernels.',
    scalarBytes: 2,
    scaled: false,
    cpu: { ...BF16_CACHE, round: roundRow, fillRandom: fillWords(randomBf16Pair) },
    gpu: {
      perWord: 2,
      // Infinities and NaNs need no care: a row that has them fails its request.
      pack: `fn rounded(x : f32) -> u32 { let u = bitcast<u32>(x); return (u + 0x7fffu + ((u >> 16u) & 1u)) >> 16u; }
fn pack2(a : f32, b : f32) -> u32 { return rounded(a) | (rounded(b) << 16u); }`,
      unpack: (word) => `vec2<f32>(bitcast<f32>(${word} << 16u), bitcast<f32>(${word} & 0xffff0000u))`,
      tensorCores: false,
      gpuJs: false,
      randomWord: randomBf16Pair,
    },
  },
  f16: {
    summary: 'float16, rounded to nearest even. 2 bytes a value. GPU only; attention runs on tensor cores where the adapter has them.',
    scalarBytes: 2,
    scaled: false,
    cpu: undefined,
    gpu: {
      perWord: 2,
      pack: 'fn pack2(a : f32, b : f32) -> u32 { return pack2x16float(vec2<f32>(a, b)); }',
      unpack: (word) => `unpack2x16float(${word})`,
      tensorCores: true,
      gpuJs: false,
      randomWord: randomF16Pair,
    },
  },
  int8: {
    summary:
      'Integers of 8 bits with a scale for each row and latent, and one for its values where they lie beside the keys: 1 byte a value and 8 or 12 ' +
      'bytes a row. Scores are dot products with queries of 7 bits. CPU only, and not for tpa.',
    scalarBytes: 1,
    scaled: true,
    cpu: { ...INT8_CACHE, round: roundToIntegers, fillRandom: randomIntegers },
    gpu: undefined,
  },
}

/** The CPU's side of a format. Throws RangeError for one that the CPU does not support; options are checked before. */
export function cpuCacheFormat(format: CacheFormat): CpuCacheFormat {
  const { cpu } = CACHE_FORMATS[format]
  if (!cpu) throw new RangeError(`the CPU does not support a cache of ${format}`)
  return cpu
}

/** The GPU's side of a format. Throws RangeError for one that the GPU does not support; options are checked before. */
export function gpuCacheFormat(format: CacheFormat): GpuCacheFormat {
  const { gpu } = CACHE_FORMATS[format]
  if (!gpu) throw new RangeError(`the GPU does not support a cache of ${format}`)
  return gpu
}

/** Bytes of a row's scale and of its keys' sum; its values' own scale. */
const META_BYTES = 8
const VALUE_SCALE_BYTES = 4

/** reference: the row is the reference backend's, which stores float64. valueOffset: first column of values. */
export function cacheRow(
  reference: boolean,
  format: CacheFormat,
  columns: { readonly width: number; readonly paddedWidth: number; readonly keyWidth: number; readonly valueOffset: number },
): CacheRow {
  const { scalarBytes, scaled } = CACHE_FORMATS[format]
  const { width, paddedWidth, keyWidth, valueOffset } = columns
  // Values that are not keys as well differ from keys in magnitude.
  const split = valueOffset >= keyWidth && keyWidth > 0 && valueOffset < width ? valueOffset : paddedWidth
  const scaleBytes = scaled && width > 0 ? META_BYTES + (split < paddedWidth ? VALUE_SCALE_BYTES : 0) : 0
  const bytes = reference ? paddedWidth * 8 : paddedWidth * scalarBytes + scaleBytes
  const valueScaleAt = split < paddedWidth ? paddedWidth + META_BYTES : paddedWidth
  const sumWidth = Math.min(paddedWidth, Math.ceil(keyWidth / 4) * 4)
  return { format, width, paddedWidth, keyWidth, split, bytes, scaleAt: paddedWidth, valueScaleAt, sumWidth }
}

/** Scalars (4 or 8 bytes) of room that the queries of `lanes` heads with n columns need: those themselves, or integers and scales. */
export function queryScalars(n: number, lanes: number): number {
  return (n + 1) * lanes
}

/** Rounds to multiples of max |v| / 127, columns from `split` on by themselves. */
function roundToIntegers(values: Float64Array, { split, width }: CacheRow): void {
  for (const part of [values.subarray(0, Math.min(split, width)), values.subarray(Math.min(split, width))]) {
    const scale = part.reduce((largest, v) => Math.max(largest, Math.abs(v)), 0) / 127
    for (let i = 0; i < part.length; i++) part[i] = scale && roundHalfEven((part[i] as number) / scale) * scale
  }
}

/** Integers with scales that give values in -1..1. */
function randomIntegers(bytes: Uint8Array, row: CacheRow): void {
  for (let i = 0; i < bytes.length; i++) bytes[i] = ((Math.imul(i + 1, 2654435761) >>> 16) % 255) - 127
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  for (let start = 0; start < bytes.length; start += row.bytes) {
    let sum = 0
    for (let i = 0; i < row.sumWidth; i++) sum += view.getInt8(start + i)
    view.setFloat32(start + row.scaleAt, 1 / 127, true)
    view.setFloat32(start + row.valueScaleAt, 1 / 127, true)
    view.setInt32(start + row.scaleAt + 4, sum, true)
  }
}
