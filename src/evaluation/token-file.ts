// Files of token ids, little-endian uint16, as the authors' data scripts and llm.c write them: a header of 256 int32 (magic 20240520, version 1,
// number of tokens), then the tokens. A file that does not begin with the magic has no header. Tokens are read by offset, never the whole file.
import { type FileHandle, open } from 'node:fs/promises'
import { TetradError } from '../errors.js'

const MAGIC = 20240520
/** llm.c's files of uint32 tokens, for vocabularies beyond 65536. */
const UINT32_MAGIC = 20240801
const VERSION = 1
const HEADER_BYTES = 256 * 4
/** Tokens that a file can hold: ids are uint16. */
export const MAX_FILE_VOCAB = 2 ** 16

export class TokenFile {
  readonly path: string
  readonly #file: FileHandle
  /** Where the tokens begin, bytes. */
  readonly #start: number
  readonly tokens: number

  private constructor(path: string, file: FileHandle, start: number, tokens: number) {
    this.path = path
    this.#file = file
    this.#start = start
    this.tokens = tokens
  }

  /** Rejects with TetradError EVAL_DATA_INVALID. */
  static async open(path: string): Promise<TokenFile> {
    let file: FileHandle | undefined
    try {
      file = await open(path)
      const { size } = await file.stat()
      const { start, count } = readHeader(path, await readBytes(file, 12, 0))
      const tokens = (size - start) / 2
      if (!Number.isInteger(tokens))
        throw invalid(path, 'an even number of bytes: two for each token', `${size} bytes`, 'Write the tokens as little-endian uint16.')
      if (count !== undefined && count !== tokens)
        throw invalid(path, `${count} tokens, as its header says`, `${Math.max(0, tokens)}`, 'Fetch or write the file again: it is not complete.')
      return new TokenFile(path, file, start, tokens)
    } catch (error) {
      await file?.close()
      if (error instanceof TetradError) throw error
      throw invalid(path, 'a file of tokens', error instanceof Error ? error.message : String(error), 'Check the path and its permissions.', error)
    }
  }

  /** Tokens start..start+count-1. Rejects with TetradError EVAL_DATA_INVALID. */
  async read(start: number, count: number): Promise<number[]> {
    const bytes = await readBytes(this.#file, count * 2, this.#start + start * 2)
    if (bytes.length < count * 2) {
      const actual = `it ends after ${Math.floor(bytes.length / 2)}`
      throw invalid(this.path, `${count} tokens from token ${start} on`, actual, 'Do not change the file while it is read.')
    }
    return Array.from({ length: count }, (_, i) => bytes.readUInt16LE(i * 2))
  }

  close(): Promise<void> {
    return this.#file.close()
  }
}

/** The bytes of a file with a header. tokens: ids below 65536. */
export function tokenFileBytes(tokens: readonly number[]): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES + tokens.length * 2)
  for (const [i, value] of [MAGIC, VERSION, tokens.length].entries()) bytes.writeInt32LE(value, i * 4)
  for (const [i, token] of tokens.entries()) bytes.writeUInt16LE(token, HEADER_BYTES + i * 2)
  return bytes
}

/** Where the tokens begin, and how many the header says there are. */
function readHeader(path: string, bytes: Buffer): { start: number; count: number | undefined } {
  const magic = bytes.length < 4 ? undefined : bytes.readInt32LE(0)
  if (magic === UINT32_MAGIC) {
    throw invalid(path, `tokens of two bytes (magic ${MAGIC})`, `tokens of four bytes (magic ${UINT32_MAGIC})`, 'Write the tokens as uint16.')
  }
  if (magic !== MAGIC) return { start: 0, count: undefined }
  const version = bytes.length < 12 ? undefined : bytes.readInt32LE(4)
  if (version !== VERSION)
    throw invalid(path, `a header of version ${VERSION}`, `version ${version ?? 'missing'}`, 'Write the file again in this version.')
  return { start: HEADER_BYTES, count: bytes.readInt32LE(8) }
}

/** As many bytes as there are, up to `length`. */
async function readBytes(file: FileHandle, length: number, position: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length)
  let done = 0
  while (done < length) {
    const { bytesRead } = await file.read(bytes, done, length - done, position + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return bytes.subarray(0, done)
}

export function invalid(what: string, expected: string, actual: string, remedy: string, cause?: unknown): TetradError {
  return new TetradError('EVAL_DATA_INVALID', { what: `${what} cannot be used for the evaluation`, expected, actual, remedy, cause })
}
