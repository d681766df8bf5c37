// Files that bear the name of a .bin checkpoint and are something else, told by their first bytes. A zip passes.
import { basename } from 'node:path'
import { CheckpointError } from '../../errors.js'
import type { ByteReader } from './byte-reader.js'
import { PYTHON } from './python-lines.js'

interface Kind {
  readonly matches: (head: Buffer) => boolean
  readonly is: string
  readonly remedy: (file: string) => string
}

/** The pickled number that begins every file of torch before 1.6. */
const LEGACY_MAGIC = Buffer.from('6cfc9c46f9206aa85019', 'hex')
/** First word of the authors' token files. */
const TOKEN_MAGIC = 20240520
const starts = (text: string) => (head: Buffer) => head.subarray(0, text.length).toString('latin1') === text
const fetchAgain = () => 'Fetch the file again.'

const KINDS: readonly Kind[] = [
  {
    matches: (head) => head.subarray(0, 32).includes(LEGACY_MAGIC),
    is: 'is in the legacy format of torch before 1.6 (_use_new_zipfile_serialization=False)',
    remedy: (file) => `Save it in the zip format: ${PYTHON.rewrite(file)}`,
  },
  {
    // A tar names its first member first, and says 'ustar' at 257.
    matches: (head) => head.subarray(257, 262).toString('latin1') === 'ustar',
    is: 'is a tar: a legacy file of torch before 0.2, or an archive of a checkpoint',
    remedy: (file) => `Unpack an archive, or save a legacy file in the zip format: ${PYTHON.rewrite(file)}`,
  },
  {
    matches: (head) => head[0] === 0x80 && (head[1] ?? 0) >= 2 && (head[1] ?? 9) <= 5,
    is: 'is a bare pickle, not a file of torch.save',
    remedy: (file) =>
      `Save the tensors with torch.save. Only if you trust who made the file, since this runs its code: python -c "import pickle, torch; torch.save({k: torch.as_tensor(v) for k, v in pickle.load(open('${file}', 'rb')).items()}, '${file}')"`,
  },
  { matches: starts('GGUF'), is: 'is a GGUF file', remedy: () => 'Rename it so that it ends in .gguf, and give its path as the model.' },
  { matches: starts('\x89HDF'), is: 'is an HDF5 file (TensorFlow or Keras)', remedy: () => 'Use a PyTorch or safetensors checkpoint.' },
  {
    matches: starts('version https://git-lfs'),
    is: 'is a pointer of Git LFS, not the file itself',
    remedy: () => 'Fetch the file: git lfs pull',
  },
  { matches: (head) => /^\s*<(!doctype|html)/i.test(head.toString('latin1')), is: 'is a web page, not a checkpoint', remedy: fetchAgain },
  { matches: starts('\x1f\x8b'), is: 'is compressed with gzip', remedy: () => 'Unpack it first: gunzip' },
  {
    matches: (head) => head.length >= 16 && head.readUInt32LE(0) <= 100_000_000 && head.readUInt32LE(4) === 0 && head[8] === 0x7b,
    is: 'is a safetensors file',
    remedy: () => 'Rename it to model.safetensors.',
  },
  {
    matches: (head) => head.length >= 4 && head.readUInt32LE(0) === TOKEN_MAGIC,
    is: 'is a token file, not a checkpoint',
    remedy: () => 'Point at the directory of a model.',
  },
]

/** Throws CheckpointError CHECKPOINT_INVALID that says what the file is, if it is known and no zip. */
export async function refuseOtherKinds(reader: ByteReader, path: string): Promise<void> {
  const head = Buffer.alloc(512)
  // What cannot be read is reported by whoever opens the zip.
  const length = await reader.read(head, 0).catch(() => 0)
  const bytes = head.subarray(0, length)
  const kind = KINDS.find(({ matches }) => matches(bytes))
  if (!kind) return
  throw new CheckpointError('CHECKPOINT_INVALID', {
    what: `${path}: it ${kind.is}`,
    expected: 'a zip written by torch.save',
    actual: kind.is.replace(/^is /, ''),
    remedy: kind.remedy(basename(path)),
  })
}
