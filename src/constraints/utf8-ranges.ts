// Ranges of code points as sequences of ranges of bytes.

/** Inclusive. */
export type ByteRange = readonly [from: number, to: number]

/** UTF-8 of the code points in [from, to] without surrogates: sequences of byte ranges, apart from each other. */
export function* utf8Sequences(from: number, to: number): Generator<readonly ByteRange[]> {
  for (const [low, high] of [
    [0, 0x7f],
    [0x80, 0x7ff],
    [0x800, 0xd7ff],
    [0xe000, 0xffff],
    [0x10000, 0x10ffff],
  ] as const) {
    const [a, b] = [Math.max(from, low), Math.min(to, high)]
    if (a <= b) yield* sameLength([...Buffer.from(String.fromCodePoint(a))], [...Buffer.from(String.fromCodePoint(b))])
  }
}

/** Byte sequences of one length from `a` to `b`: a prefix in common, then a first byte that differs. */
function* sameLength(a: readonly number[], b: readonly number[]): Generator<readonly ByteRange[]> {
  const [first = 0, ...restA] = a
  const [last = 0, ...restB] = b
  if (restA.length === 0) {
    yield [[first, last]]
    return
  }
  if (first === last) {
    for (const rest of sameLength(restA, restB)) yield [[first, first], ...rest]
    return
  }
  const low = restA.map(() => 0x80)
  const high = restA.map(() => 0xbf)
  const wholeLow = restA.every((byte) => byte === 0x80)
  const wholeHigh = restB.every((byte) => byte === 0xbf)
  if (!wholeLow) for (const rest of sameLength(restA, high)) yield [[first, first], ...rest]
  const from = wholeLow ? first : first + 1
  const to = wholeHigh ? last : last - 1
  if (from <= to) yield [[from, to], ...low.map(() => [0x80, 0xbf] as const)]
  if (!wholeHigh) for (const rest of sameLength(low, restB)) yield [[last, last], ...rest]
}
