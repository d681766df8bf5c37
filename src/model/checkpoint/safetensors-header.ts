// The header of a safetensors file to be written: lengths in the order given, padded so that the data are aligned.

export interface HeaderEntry {
  readonly name: string
  /** As the format spells it: BF16, U8. */
  readonly dtype: string
  readonly shape: readonly number[]
  readonly bytes: number
}

export function safetensorsHeader(
  entries: readonly HeaderEntry[],
  metadata: Readonly<Record<string, string>>,
): { header: Buffer; dataBytes: number } {
  let at = 0
  const described = entries.map(({ name, dtype, shape, bytes }) => {
    const start = at
    at += bytes
    return [name, { dtype, shape, data_offsets: [start, at] }] as const
  })
  const json = Buffer.from(JSON.stringify({ __metadata__: metadata, ...Object.fromEntries(described) }))
  const padded = Buffer.concat([json, Buffer.alloc((8 - (json.length % 8)) % 8, ' ')])
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(padded.length))
  return { header: Buffer.concat([length, padded]), dataBytes: at }
}
