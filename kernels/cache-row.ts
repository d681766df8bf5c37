// How a cached row is stored. The int8 layout's arithmetic is in wasm/assembly/attention-int8.ts.

/** f16: of the GPU only; int8: of the CPU only. */
export type CacheFormat = 'f32' | 'bf16' | 'f16' | 'int8'

/** One row (a token) of a cache stream. */
export interface CacheRow {
  readonly format: CacheFormat
  /** Values of a row, and with padding to whole vectors: a multiple of 4. */
  readonly width: number
  readonly paddedWidth: number
  /** Columns 0..keyWidth-1 are what scores are made of. */
  readonly keyWidth: number
  /** int8: columns from here on have a scale of their own; paddedWidth: none have. */
  readonly split: number
  readonly bytes: number
  /** int8: bytes from a row's start to its scale (the sum is behind it), and to the scale of its values. */
  readonly scaleAt: number
  readonly valueScaleAt: number
  /** int8: columns whose integers the sum is of: the keys, in whole groups of 4. */
  readonly sumWidth: number
}

const SCALAR_BYTES: Readonly<Record<CacheFormat, number>> = { f32: 4, bf16: 2, f16: 2, int8: 1 }
/** int8: the scale and the keys' sum, and the values' own scale. */
const INT8_META_BYTES = 8
const INT8_VALUE_SCALE_BYTES = 4

/** reference: whether the row is the reference backend's, which keeps float64. valueOffset: first column of values. */
export function cacheRow(
  reference: boolean,
  format: CacheFormat,
  columns: { readonly width: number; readonly paddedWidth: number; readonly keyWidth: number; readonly valueOffset: number },
): CacheRow {
  const { width, paddedWidth, keyWidth, valueOffset } = columns
  // Values that are no keys are of another size than keys.
  const split = valueOffset >= keyWidth && keyWidth > 0 && valueOffset < width ? valueOffset : paddedWidth
  const int8Bytes = width > 0 ? INT8_META_BYTES + (split < paddedWidth ? INT8_VALUE_SCALE_BYTES : 0) : 0
  const bytes = reference ? paddedWidth * 8 : paddedWidth * SCALAR_BYTES[format] + (format === 'int8' ? int8Bytes : 0)
  const valueScaleAt = split < paddedWidth ? paddedWidth + INT8_META_BYTES : paddedWidth
  const sumWidth = Math.min(paddedWidth, Math.ceil(keyWidth / 4) * 4)
  return { format, width, paddedWidth, keyWidth, split, bytes, scaleAt: paddedWidth, valueScaleAt, sumWidth }
}

/** Scalars (4 or 8 bytes) of room that the queries of `lanes` heads with n columns need: those themselves, or integers and scales. */
export function queryScalars(n: number, lanes: number): number {
  return (n + 1) * lanes
}
