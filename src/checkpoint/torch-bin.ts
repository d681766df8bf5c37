// pytorch_model.bin: a zip of stored entries, data.pkl beside data/<key>. Reads the pickle and finds each tensor's bytes;
// the bytes themselves are read by the loader. Zip reading is yauzl's.
import { type FileHandle, open } from 'node:fs/promises'
import { type Entry, fromFd, type ZipFile } from 'yauzl'
import { CheckpointError } from '../errors.js'
import { elements, STORED_BYTES, type StoredType, type TensorSource } from './tensor-source.js'
import { type PickledTensor, unpickleStateDict } from './unpickler.js'

const STORAGE_TYPES: Readonly<Record<string, StoredType>> = { FloatStorage: 'f32', HalfStorage: 'f16', BFloat16Storage: 'bf16' }

/** Tensors of one .bin file. Throws CheckpointError. */
export async function readTorchBin(path: string): Promise<TensorSource[]> {
  const file = await open(path, 'r')
  try {
    const { zip, entries } = await readEntries(file, path)
    const pickle = [...entries.keys()].find((name) => name.endsWith('/data.pkl'))
    if (!pickle) throw invalid(path, 'it holds no data.pkl', 'a zip written by torch.save')
    const root = pickle.slice(0, -'data.pkl'.length)
    const order = entries.get(`${root}byteorder`)
    if (order && (await readEntry(file, zip, order, path)).toString() !== 'little') throw invalid(path, 'its byte order is not little', 'little')
    const tensors = unpickleStateDict(await readEntry(file, zip, entries.get(pickle) as Entry, path), path)
    return await Promise.all(Array.from(tensors, ([name, tensor]) => locate(name, tensor, root, entries, zip, path)))
  } finally {
    await file.close()
  }
}

function readEntries(file: FileHandle, path: string): Promise<{ zip: ZipFile; entries: Map<string, Entry> }> {
  return new Promise((resolve, reject) => {
    const fail = (cause: Error) => reject(invalid(path, `it is no readable zip: ${cause.message}`, 'a zip written by torch.save', cause))
    fromFd(file.fd, { lazyEntries: true, autoClose: false }, (error, zip) => {
      if (error) return fail(error)
      const entries = new Map<string, Entry>()
      zip.on('error', fail)
      zip.on('end', () => resolve({ zip, entries }))
      zip.on('entry', (entry) => {
        if (entry.compressionMethod !== 0) return reject(invalid(path, `${entry.fileName} is compressed`, 'stored entries'))
        if (entry.compressedSize !== entry.uncompressedSize) return reject(invalid(path, `${entry.fileName} lies about its size`, 'equal sizes'))
        if (entries.has(entry.fileName)) return reject(invalid(path, `${entry.fileName} is there twice`, 'unique names'))
        entries.set(entry.fileName, entry)
        zip.readEntry()
      })
      zip.readEntry()
    })
  })
}

/** Byte offset of a stored entry's data. */
function dataStart(zip: ZipFile, entry: Entry, path: string): Promise<number> {
  return new Promise((resolve, reject) => {
    zip.readLocalFileHeader(entry, { minimal: true }, (error, header) => {
      if (error) return reject(invalid(path, `${entry.fileName}: ${error.message}`, 'a local header', error))
      const { fileDataStart } = header as { fileDataStart: number }
      if (fileDataStart + entry.uncompressedSize > zip.fileSize)
        return reject(invalid(path, `${entry.fileName} runs past the end`, 'entries inside the file'))
      resolve(fileDataStart)
    })
  })
}

async function readEntry(file: FileHandle, zip: ZipFile, entry: Entry, path: string): Promise<Buffer> {
  const start = await dataStart(zip, entry, path)
  const bytes = Buffer.alloc(entry.uncompressedSize)
  const { bytesRead } = await file.read(bytes, 0, bytes.length, start)
  if (bytesRead !== bytes.length) throw invalid(path, `${entry.fileName} is cut short`, `${bytes.length} bytes`)
  return bytes
}

async function locate(
  name: string,
  tensor: PickledTensor,
  root: string,
  entries: Map<string, Entry>,
  zip: ZipFile,
  path: string,
): Promise<TensorSource> {
  const { storage, shape, strides, offset } = tensor
  const dtype = STORAGE_TYPES[storage.type]
  if (!dtype) {
    throw new CheckpointError('TENSOR_DTYPE', {
      what: `${path}: ${name} has the type ${storage.type}`,
      expected: Object.keys(STORAGE_TYPES).join(', '),
      actual: storage.type,
      remedy: 'Convert the checkpoint to float32, float16 or bfloat16.',
    })
  }
  const entry = entries.get(`${root}data/${storage.key}`)
  if (!entry) throw invalid(path, `the storage of ${name} is missing`, `an entry data/${storage.key.slice(0, 40)}`)
  const bytes = STORED_BYTES[dtype]
  if (entry.uncompressedSize < storage.elements * bytes || offset + elements(shape) > storage.elements) {
    throw invalid(path, `${name} reaches past its storage`, 'a tensor inside its storage')
  }
  if (!isContiguous(shape, strides)) throw invalid(path, `${name} is not contiguous`, 'row-major strides')
  return { name, path, dtype, shape, offset: (await dataStart(zip, entry, path)) + offset * bytes }
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
