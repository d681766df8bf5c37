// How inputs of the fuzzer are made of a seed: bytes that are edited, and JSON whose structure is.
import fc from 'fast-check'

/** One change of a byte string. */
type Edit =
  | { readonly kind: 'byte'; readonly at: number; readonly value: number }
  | { readonly kind: 'number'; readonly at: number; readonly width: 1 | 2 | 4 | 8; readonly value: bigint }
  | { readonly kind: 'copy'; readonly from: number; readonly to: number; readonly length: number }
  | { readonly kind: 'insert'; readonly at: number; readonly bytes: Uint8Array }
  | { readonly kind: 'cut'; readonly at: number; readonly length: number }

const INTERESTING = [
  0n,
  1n,
  2n,
  0x7fn,
  0xffn,
  0x100n,
  0xffffn,
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  0x100000000n,
  0x1fffffffffffffn,
  0x7fffffffffffffffn,
  0xffffffffffffffffn,
]
const OPCODES = [
  ...Buffer.from(
    '(.0N]}lt)RQcbusaeqrhjKMJXGiIoSTUVdgp\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98',
    'latin1',
  ),
]

/** Where: as a share of the length, so that an edit fits every seed. */
export const place = fc.nat({ max: 0xffffff })

export function edits(structured: boolean): fc.Arbitrary<Edit[]> {
  const value = structured ? fc.constantFrom(...OPCODES) : fc.nat({ max: 255 })
  return fc.array(
    fc.oneof(
      { weight: 4, arbitrary: fc.record({ kind: fc.constant('byte' as const), at: place, value: fc.oneof(value, fc.nat({ max: 255 })) }) },
      {
        weight: 3,
        arbitrary: fc.record({
          kind: fc.constant('number' as const),
          at: place,
          width: fc.constantFrom(1 as const, 2 as const, 4 as const, 8 as const),
          value: fc.constantFrom(...INTERESTING),
        }),
      },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('copy' as const), from: place, to: place, length: fc.nat({ max: 64 }) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('insert' as const), at: place, bytes: fc.uint8Array({ maxLength: 16 }) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('cut' as const), at: place, length: fc.nat({ max: 32 }) }) },
    ),
    { minLength: 1, maxLength: 6 },
  )
}

/** Applies edits to the bytes between `start` and `end`. */
export function apply(seed: Uint8Array, changes: readonly Edit[], start = 0, end = seed.length): Uint8Array {
  let bytes: Buffer = Buffer.from(seed)
  let limit = end
  for (const edit of changes) {
    const at = (share: number) => start + Math.floor((share / 0x1000000) * Math.max(1, limit - start))
    if (edit.kind === 'byte') bytes[Math.min(at(edit.at), bytes.length - 1)] = edit.value
    else if (edit.kind === 'number') {
      const raw = Buffer.from(BigUint64Array.of(edit.value).buffer).subarray(0, edit.width)
      raw.copy(bytes, at(edit.at))
    } else if (edit.kind === 'copy') bytes.copy(bytes, at(edit.to), at(edit.from), at(edit.from) + edit.length)
    else {
      const position = at(edit.at)
      const added = edit.kind === 'insert' ? edit.bytes : new Uint8Array(0)
      const removed = edit.kind === 'cut' ? edit.length : 0
      bytes = Buffer.concat([bytes.subarray(0, position), added, bytes.subarray(position + removed)])
      limit = Math.max(start, limit + added.length - removed)
    }
  }
  return bytes
}

const text = (json: unknown) => Buffer.from(JSON.stringify(json))

/** JSON whose values and names were changed, still JSON most of the time. */
export function jsonInputs(seed: unknown): fc.Arbitrary<Uint8Array> {
  const values = fc.oneof(
    fc.constantFrom<unknown>(
      null,
      true,
      0,
      -1,
      1.5,
      1e308,
      2 ** 31,
      2 ** 53,
      '',
      'x',
      [],
      {},
      [[]],
      '__proto__',
      'F32',
      [0, 8],
      [-1, 4],
      'constructor',
    ),
    fc.jsonValue({ maxDepth: 2 }),
  )
  const change = fc.record({
    path: fc.array(place, { minLength: 1, maxLength: 3 }),
    value: values,
    remove: fc.boolean(),
    rename: fc.option(fc.constantFrom('__proto__', '', 'x', 'constructor')),
  })
  const structured = fc.array(change, { minLength: 1, maxLength: 4 }).map((changes) => {
    const root = structuredClone(seed) as Record<string, unknown>
    for (const { path, value, remove, rename } of changes) {
      let parent: Record<string, unknown> = root
      let key = ''
      for (const share of path) {
        const keys = Object.keys(parent)
        if (keys.length === 0) break
        key = keys[share % keys.length] as string
        const next = parent[key]
        if (share === path.at(-1) || typeof next !== 'object' || next === null) break
        parent = next as Record<string, unknown>
      }
      if (key === '') continue
      if (rename !== null) Object.defineProperty(parent, rename, { value: parent[key], enumerable: true, configurable: true, writable: true })
      if (remove) delete parent[key]
      else parent[key] = structuredClone(value)
    }
    return text(root)
  })
  return fc.oneof({ weight: 3, arbitrary: structured }, { weight: 1, arbitrary: edits(false).map((changes) => apply(text(seed), changes)) })
}
