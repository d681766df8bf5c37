// The authors' token files: headerless little-endian uint16. Windows are read by offset, never the whole file.
import { type FileHandle, open } from 'node:fs/promises'
import { TetradError } from '../errors.js'

export class TokenFile {
  readonly path: string
  readonly #file: FileHandle
  readonly tokens: number

  private constructor(path: string, file: FileHandle, tokens: number) {
    this.path = path
    this.#file = file
    this.tokens = tokens
  }

  /** Throws TetradError EVAL_DATA_INVALID. */
  static async open(path: string): Promise<TokenFile> {
    let file: FileHandle | undefined
    try {
      file = await open(path)
      const { size } = await file.stat()
      if (size % 2 === 0) return new TokenFile(path, file, size / 2)
      throw invalid(path, 'an even number of bytes: two a token', `${size} bytes`, 'Write the tokens as headerless little-endian uint16.')
    } catch (error) {
      await file?.close()
      if (error instanceof TetradError) throw error
      throw invalid(path, 'a file of tokens', error instanceof Error ? error.message : String(error), 'Check the path and its permissions.', error)
    }
  }

  /** Tokens start..start+count-1. */
  async read(start: number, count: number): Promise<number[]> {
    const bytes = Buffer.alloc(count * 2)
    let done = 0
    while (done < bytes.length) {
      const { bytesRead } = await this.#file.read(bytes, done, bytes.length - done, start * 2 + done)
      if (bytesRead === 0)
        throw invalid(
          this.path,
          `${count} tokens from ${start} on`,
          `it ends after ${Math.floor(done / 2)}`,
          'Do not change the file while it is read.',
        )
      done += bytesRead
    }
    return Array.from({ length: count }, (_, i) => bytes.readUInt16LE(i * 2))
  }

  close(): Promise<void> {
    return this.#file.close()
  }
}

export function invalid(what: string, expected: string, actual: string, remedy: string, cause?: unknown): TetradError {
  return new TetradError('EVAL_DATA_INVALID', { what: `${what} cannot be used for the evaluation`, expected, actual, remedy, cause })
}
