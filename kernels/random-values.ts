// Random cached values, for timing what would take long to compute: of 0.125 to 2, of either sign. None is so small that it or its
// products are subnormal, which some processors compute a hundred times slower.

/** Word i of a buffer of float32. */
export function randomFloat32(i: number): number {
  return float(bitsOf(i), 23, 127)
}

/** Word i of a buffer of bfloat16, two in a word. */
export function randomBf16Pair(i: number): number {
  return pair(bitsOf(i), 7, 127)
}

/** Word i of a buffer of float16, two in a word. */
export function randomF16Pair(i: number): number {
  return pair(bitsOf(i), 10, 15)
}

function bitsOf(i: number): number {
  return Math.imul(i + 1, 2654435761)
}

function pair(bits: number, exponentAt: number, bias: number): number {
  return (float(bits >> 16, exponentAt, bias) << 16) | (float((bits << 16) >> 16, exponentAt, bias) & 0xffff)
}

/** Sign and significand as they are; two random bits of the exponent. */
function float(bits: number, exponentAt: number, bias: number): number {
  const exponent = bias - 3 + ((bits >>> exponentAt) & 3)
  return (bits & (2 ** exponentAt - 1)) | (exponent << exponentAt) | (bits < 0 ? -1 << (exponentAt === 23 ? 31 : 15) : 0)
}
