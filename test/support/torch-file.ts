// Writes what torch.save writes, and what it would never write: zips of stored entries and pickles of state dicts.
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { crc32 } from 'node:zlib'

export interface ZipEntry {
  readonly name: string
  readonly data: Uint8Array
  /** Lies about itself, for tests. */
  readonly method?: number
  readonly localName?: string
  readonly localSize?: number
}

const u16 = (n: number) => Buffer.from(Uint16Array.of(n).buffer)
const u32 = (n: number) => Buffer.from(Uint32Array.of(n).buffer)
const u64 = (n: number) => Buffer.from(BigUint64Array.of(BigInt(n)).buffer)

/** A zip with every size and offset in zip64 fields when `zip64`; entries start at the offsets given, or one after the other. */
export function zipParts(entries: readonly ZipEntry[], zip64 = false, starts: readonly number[] = []): { parts: [number, Buffer][]; size: number } {
  const parts: [number, Buffer][] = []
  const directory: Buffer[] = []
  let at = 0
  for (const [i, { name, data, method = 0, localName = name, localSize = data.length }] of entries.entries()) {
    at = starts[i] ?? at
    const crc = crc32(data)
    const local = Buffer.from(localName)
    const raw = Buffer.from(name)
    parts.push([
      at,
      Buffer.concat([
        u32(0x04034b50),
        u16(20),
        u16(0),
        u16(method),
        u16(0),
        u16(0),
        u32(crc),
        u32(localSize),
        u32(localSize),
        u16(local.length),
        u16(0),
        local,
        data,
      ]),
    ])
    const extra = zip64 ? Buffer.concat([u16(1), u16(24), u64(data.length), u64(data.length), u64(at)]) : Buffer.alloc(0)
    const small = (n: number) => u32(zip64 ? 0xffffffff : n)
    directory.push(
      Buffer.concat([
        u32(0x02014b50),
        u16(45),
        u16(45),
        u16(0),
        u16(method),
        u16(0),
        u16(0),
        u32(crc),
        small(data.length),
        small(data.length),
        u16(raw.length),
        u16(extra.length),
        u16(0),
        u16(0),
        u16(0),
        u32(0),
        small(at),
        raw,
        extra,
      ]),
    )
    at += 30 + local.length + data.length
  }
  const central = Buffer.concat(directory)
  const end = zip64
    ? Buffer.concat([
        u32(0x06064b50),
        u64(44),
        u16(45),
        u16(45),
        u32(0),
        u32(0),
        u64(entries.length),
        u64(entries.length),
        u64(central.length),
        u64(at),
        u32(0x07064b50),
        u32(0),
        u64(at + central.length),
        u32(1),
        u32(0x06054b50),
        u16(0),
        u16(0),
        u16(0xffff),
        u16(0xffff),
        u32(0xffffffff),
        u32(0xffffffff),
        u16(0),
      ])
    : Buffer.concat([u32(0x06054b50), u16(0), u16(0), u16(entries.length), u16(entries.length), u32(central.length), u32(at), u16(0)])
  parts.push([at, Buffer.concat([central, end])])
  return { parts, size: at + central.length + end.length }
}

export function zip(entries: readonly ZipEntry[], zip64 = false): Buffer {
  const { parts, size } = zipParts(entries, zip64)
  const bytes = Buffer.alloc(size)
  for (const [at, part] of parts) part.copy(bytes, at)
  return bytes
}

/** Writes parts at their offsets; what lies between is a hole. */
export function writeSparse(path: string, { parts, size }: { parts: readonly [number, Buffer][]; size: number }): void {
  const file = openSync(path, 'w')
  for (const [at, part] of parts) writeSync(file, part, 0, part.length, at)
  ftruncateSync(file, size)
  closeSync(file)
}

export interface SavedTensor {
  readonly name: string
  /** FloatStorage, DoubleStorage, ... */
  readonly storage: string
  readonly key: string
  /** Elements of the whole storage. */
  readonly elements: number
  readonly offset?: number
  readonly shape: readonly number[]
  readonly strides?: readonly number[]
}

const text = (s: string) => Buffer.concat([Buffer.from('X'), u32(Buffer.byteLength(s)), Buffer.from(s)])
const int = (n: number) => (n < 2 ** 31 ? Buffer.concat([Buffer.from('J'), u32(n)]) : Buffer.concat([Buffer.from([0x8a, 8]), u64(n)]))
const tuple = (items: readonly Buffer[]) => Buffer.concat([Buffer.from('('), ...items, Buffer.from('t')])
const global = (module: string, name: string) => Buffer.from(`c${module}\n${name}\n`)

export function contiguousStrides(shape: readonly number[]): number[] {
  return shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1))
}

/** The pickle of a state dict, as torch.save writes it (protocol 2). */
export function pickleStateDict(tensors: readonly SavedTensor[]): Buffer {
  const items = tensors.map(({ name, storage, key, elements, offset = 0, shape, strides = contiguousStrides(shape) }) => {
    const id = Buffer.concat([tuple([text('storage'), global('torch', storage), text(key), text('cpu'), int(elements)]), Buffer.from('Q')])
    const hooks = Buffer.concat([global('collections', 'OrderedDict'), Buffer.from(')R')])
    const args = tuple([id, int(offset), tuple(shape.map(int)), tuple(strides.map(int)), Buffer.from([0x89]), hooks])
    return Buffer.concat([text(name), global('torch._utils', '_rebuild_tensor_v2'), args, Buffer.from('R')])
  })
  return Buffer.concat([Buffer.from([0x80, 2]), Buffer.from('}('), ...items, Buffer.from('u.')])
}

/** A whole .bin: the pickle and the storages by key. */
export function torchEntries(tensors: readonly SavedTensor[], storages: ReadonlyMap<string, Uint8Array>): ZipEntry[] {
  const entries: ZipEntry[] = [
    { name: 'm/data.pkl', data: pickleStateDict(tensors) },
    { name: 'm/byteorder', data: Buffer.from('little') },
  ]
  for (const [key, data] of storages) entries.push({ name: `m/data/${key}`, data })
  return entries
}
