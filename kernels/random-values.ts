// Random cached values, for timing what would take long to compute.

/**
 * Word i of a buffer of random values of 0.125 to 2, of either sign: one float32, or two of 16 bits. None is so small that it or its
 * products are subnormal, which some processors take a hundred times as long for.
 */
export function randomWord(i: number, format: 'f32' | 'bf16' | 'f16'): number {
  const bits = Math.imul(i + 1, 2654435761)
  if (format === 'f32') return float(bits, 23, 127)
  const [exponentAt, bias] = format === 'bf16' ? [7, 127] : [10, 15]
  return (float(bits >> 16, exponentAt, bias) << 16) | (float((bits << 16) >> 16, exponentAt, bias) & 0xffff)
}

/** Sign and mantissa as they are; of the exponent two bits. */
function float(bits: number, exponentAt: number, bias: number): number {
  const exponent = bias - 3 + ((bits >>> exponentAt) & 3)
  return (bits & (2 ** exponentAt - 1)) | (exponent << exponentAt) | (bits < 0 ? -1 << (exponentAt === 23 ? 31 : 15) : 0)
}
