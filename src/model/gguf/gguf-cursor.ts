// The bytes of a GGUF header, read in order. Numbers are little-endian; lengths are believed only as far as there are bytes.

/** The bytes end before what is read. */
export class OutOfBytes extends Error {}

/** What the bytes say cannot be. */
export class Malformed extends Error {}

const MAX_DEPTH = 2
const VALUES = {
  0: { bytes: 1, read: (b: Buffer, at: number) => b.readUInt8(at) },
  1: { bytes: 1, read: (b: Buffer, at: number) => b.readInt8(at) },
  2: { bytes: 2, read: (b: Buffer, at: number) => b.readUInt16LE(at) },
  3: { bytes: 2, read: (b: Buffer, at: number) => b.readInt16LE(at) },
  4: { bytes: 4, read: (b: Buffer, at: number) => b.readUInt32LE(at) },
  5: { bytes: 4, read: (b: Buffer, at: number) => b.readInt32LE(at) },
  6: { bytes: 4, read: (b: Buffer, at: number) => b.readFloatLE(at) },
  7: { bytes: 1, read: (b: Buffer, at: number) => b.readUInt8(at) !== 0 },
  10: { bytes: 8, read: (b: Buffer, at: number) => whole(b.readBigUInt64LE(at)) },
  11: { bytes: 8, read: (b: Buffer, at: number) => whole(b.readBigInt64LE(at)) },
  12: { bytes: 8, read: (b: Buffer, at: number) => b.readDoubleLE(at) },
} as const
const STRING = 8
const ARRAY = 9

/** A number where it is a safe one. */
function whole(value: bigint): number | bigint {
  return BigInt.asIntN(54, value) === value ? Number(value) : value
}

export class GgufCursor {
  readonly #bytes: Buffer
  readonly #utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  #at: number

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes
    this.#at = at
  }

  get position(): number {
    return this.#at
  }

  u32(): number {
    return this.#bytes.readUInt32LE(this.#advance(4))
  }

  u64(): bigint {
    return this.#bytes.readBigUInt64LE(this.#advance(8))
  }

  string(): string {
    const length = this.#count(1)
    const start = this.#advance(length)
    try {
      return this.#utf8.decode(this.#bytes.subarray(start, start + length))
    } catch {
      throw new Malformed(`the text at byte ${start} is not UTF-8`)
    }
  }

  /** A value of metadata after its type: a number, a bigint, a boolean, a text or an array of these. */
  value(type = this.u32(), depth = 0): unknown {
    if (type === STRING) return this.string()
    if (type === ARRAY) {
      if (depth >= MAX_DEPTH) throw new Malformed('arrays are nested deeply')
      const item = this.u32()
      const bytes = Object.hasOwn(VALUES, item) ? VALUES[item as keyof typeof VALUES].bytes : item === STRING ? 8 : 12
      return Array.from({ length: this.#count(bytes) }, () => this.value(item, depth + 1))
    }
    if (!Object.hasOwn(VALUES, type)) throw new Malformed(`${type} is no type of a value`)
    const { bytes, read } = VALUES[type as keyof typeof VALUES]
    return read(this.#bytes, this.#advance(bytes))
  }

  /** A number of items that have `bytes` or more each. */
  #count(bytes: number): number {
    const count = this.u64()
    if (count * BigInt(bytes) > BigInt(this.#bytes.length - this.#at)) throw new OutOfBytes()
    return Number(count)
  }

  #advance(bytes: number): number {
    const start = this.#at
    if (start + bytes > this.#bytes.length) throw new OutOfBytes()
    this.#at += bytes
    return start
  }
}
