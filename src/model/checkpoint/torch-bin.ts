// pytorch_model.bin: a zip of stored entries, data.pkl beside data/<key>. Reads the pickle and finds each tensor's bytes;
// the bytes themselves are read by the loader. Zip reading (zip64 too) is yauzl's.
import { basename } from 'node:path'
import { type Entry, fromRandomAccessReader, RandomAccessReader, type ZipFile } from 'yauzl'
import { CheckpointError } from '../../errors.js'
import { isBuffer, type SkippedEntry } from './buffers.js'
import type { ByteReader } from './byte-reader.js'
import { refuseOtherKinds } from './file-kinds.js'
import { refusedGlobal } from './pickle-globals.js'
import { PYTHON } from './python-lines.js'
import { modelName } from './state-dict.js'
import { elements, STORED_BYTES, type StoredType, type TensorSource } from './tensor-source.js'
import { type PickledTensor, unpickleStateDict } from './unpickler.js'

const STORAGE_TYPES: Readonly<Record<string, StoredType>> = { FloatStorage: 'f32', HalfStorage: 'f16', BFloat16Storage: 'bf16', DoubleStorage: 'f64' }

/** An entry and where its data lies. */
interface Placed {
  readonly entry: Entry
  readonly start: number
}

/** yauzl's way to read, over a ByteReader. */
class YauzlReader extends RandomAccessReader {
  readonly #reader: ByteReader

  constructor(reader: ByteReader) {
    super()
    this.#reader = reader
  }

  override read(buffer: Buffer, offset: number, length: number, position: number, callback: (error: Error | null) => void): void {
    this.#reader.read(buffer.subarray(offset, offset + length), position).then(
      (n) => callback(n === length ? null : new Error('unexpected end of file')),
      (error: Error) => callback(error),
    )
  }
}

/** Tensors of one .bin file; those that no model needs go to `onSkipped`. Throws CheckpointError. */
export async function readTorchBin(reader: ByteReader, path: string, onSkipped: (entry: SkippedEntry) => void = () => {}): Promise<TensorSource[]> {
  const { size } = reader.identity
  const entries = await placeEntries(reader, path)
  const pickle = [...entries.keys()].find((name) => name.endsWith('/data.pkl'))
  if (!pickle) throw invalid(path, 'it holds no data.pkl', 'a zip written by torch.save')
  const root = pickle.slice(0, -'data.pkl'.length)
  const read = async ({ entry, start }: Placed) => {
    const bytes = Buffer.alloc(entry.uncompressedSize)
    if ((await reader.read(bytes, start)) !== bytes.length) throw invalid(path, `${entry.fileName} is cut short`, `${bytes.length} bytes`)
    return bytes
  }
  const order = entries.get(`${root}byteorder`)
  if (order && order.entry.uncompressedSize < 16 && (await read(order)).toString() !== 'little') {
    throw invalid(path, 'its byte order is not little', 'little')
  }
  if (entries.has(`${root}constants.pkl`)) throw refusedGlobal('torch.jit.ScriptModule', path, new Uint8Array())
  const sources: TensorSource[] = []
  for (const [name, tensor] of unpickleStateDict(await read(entries.get(pickle) as Placed), path, onSkipped)) {
    const inModel = modelName(name)
    if (isBuffer(inModel, tensor.shape)) onSkipped({ name: inModel, type: tensor.storage.type, shape: tensor.shape })
    else sources.push({ ...locate(name, tensor, root, entries, path), file: { ...reader.identity, size } })
  }
  return sources
}

async function placeEntries(reader: ByteReader, path: string): Promise<Map<string, Placed>> {
  await refuseOtherKinds(reader, path)
  const { zip, entries } = await readDirectory(reader, path)
  const placed = new Map<string, Placed>()
  const spans: [number, number, string][] = []
  for (const entry of entries) {
    const start = await dataStart(zip, entry, path)
    placed.set(entry.fileName, { entry, start })
    spans.push([entry.relativeOffsetOfLocalHeader, start + entry.uncompressedSize, entry.fileName])
  }
  spans.sort((a, b) => a[0] - b[0])
  for (let i = 1; i < spans.length; i++) {
    const [[, end, first], [start, , second]] = [spans[i - 1], spans[i]] as [[number, number, string], [number, number, string]]
    if (start < end) throw invalid(path, `its entries ${first} and ${second} overlap`, 'entries apart from each other')
  }
  return placed
}

function readDirectory(reader: ByteReader, path: string): Promise<{ zip: ZipFile; entries: Entry[] }> {
  return new Promise((resolve, reject) => {
    const fail = (cause: Error) =>
      reject(
        new CheckpointError('CHECKPOINT_INVALID', {
          what: `${path}: it is not a readable zip: ${cause.message}`,
          expected: 'a zip written by torch.save',
          remedy: 'Fetch the file again. A file of tokens, though also named .bin, is not a checkpoint.',
          cause,
        }),
      )
    fromRandomAccessReader(new YauzlReader(reader), reader.identity.size, { lazyEntries: true, autoClose: false }, (error, zip) => {
      if (error) return fail(error)
      const entries: Entry[] = []
      const names = new Set<string>()
      zip.on('error', fail)
      zip.on('end', () => resolve({ zip, entries }))
      zip.on('entry', (entry: Entry) => {
        const refuse = (what: string, expected: string) => reject(invalid(path, `its entry ${entry.fileName.slice(0, 80)} ${what}`, expected))
        if (entry.compressionMethod !== 0) return refuse('is compressed', 'stored entries')
        if (entry.compressedSize !== entry.uncompressedSize) return refuse('lies about its size', 'equal sizes')
        if (names.has(entry.fileName)) return refuse('is there twice', 'unique names')
        names.add(entry.fileName)
        entries.push(entry)
        zip.readEntry()
      })
      zip.readEntry()
    })
  })
}

/** In the general purpose flags: the sizes follow the data, and those of the local header mean nothing. */
const SIZES_FOLLOW = 8
const SIZE_IN_ZIP64 = 0xffffffff

/** Byte offset of a stored entry's data, its local header checked against the directory. */
function dataStart(zip: ZipFile, entry: Entry, path: string): Promise<number> {
  return new Promise((resolve, reject) => {
    zip.readLocalFileHeader(entry, (error, header) => {
      const refuse = (what: string, cause?: unknown) =>
        reject(invalid(path, `its entry ${entry.fileName.slice(0, 80)} ${what}`, 'a local header that agrees with the directory', cause))
      if (error) return refuse(`has no good local header: ${error.message}`, error)
      if (header.compressionMethod !== 0) return refuse('is compressed')
      if (!header.fileName.equals(entry.fileNameRaw)) return refuse('has another name in its local header')
      const { uncompressedSize } = header
      const told = (header.generalPurposeBitFlag & SIZES_FOLLOW) === 0 && uncompressedSize !== SIZE_IN_ZIP64
      if (told && uncompressedSize !== entry.uncompressedSize) return refuse('lies about its size')
      resolve(header.fileDataStart)
    })
  })
}

function locate(name: string, tensor: PickledTensor, root: string, entries: Map<string, Placed>, path: string): Omit<TensorSource, 'file'> {
  const { storage, shape, strides, offset } = tensor
  const dtype = STORAGE_TYPES[storage.type]
  if (!dtype) {
    throw new CheckpointError('TENSOR_DTYPE', {
      what: `${path}: ${name} has the type ${storage.type}`,
      expected: Object.keys(STORAGE_TYPES).join(', '),
      actual: storage.type,
      remedy: `Convert the checkpoint to float32, float16 or bfloat16: ${PYTHON.bfloat16(basename(path))}`,
    })
  }
  const placed = entries.get(`${root}data/${storage.key}`)
  if (!placed) throw invalid(path, `the storage of ${name} is missing`, `an entry data/${storage.key.slice(0, 40)}`)
  const bytes = STORED_BYTES[dtype]
  const last = shape.reduce((sum, d, i) => sum + (d - 1) * (strides[i] as number), offset)
  const empty = shape.includes(0)
  if (storage.elements * bytes > placed.entry.uncompressedSize || offset > storage.elements || (!empty && last >= storage.elements)) {
    throw invalid(path, `${name} reaches past its storage`, 'a tensor inside its storage')
  }
  if (elements(shape) > Number.MAX_SAFE_INTEGER) throw invalid(path, `${name} has more elements than any file`, 'a tensor inside its storage')
  const source = { name, path, dtype, shape, offset: placed.start + offset * bytes }
  return isContiguous(shape, strides) ? source : { ...source, strides }
}

function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  let step = 1
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== step) return false
    step *= shape[i] as number
  }
  return true
}

function invalid(path: string, what: string, expected: string, cause?: unknown): CheckpointError {
  return new CheckpointError('CHECKPOINT_INVALID', {
    what: `${path}: ${what}`,
    expected,
    remedy: 'Fetch the file again or save it with torch.save.',
    cause,
  })
}
