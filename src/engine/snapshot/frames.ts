// A snapshot file as frames: 4 bytes of length (little-endian), then that many bytes of MessagePack. The last frame is the SHA-256 of all
// before it. Knows no models; believes no length.
import { createHash, type Hash, randomBytes } from 'node:crypto'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { SnapshotError, TetradError } from '../../errors.js'
import { packMessage, unpackMessage } from '../../message-pack.js'

/** Maximum size of a frame: a length in a file cannot make the reader allocate more. */
export const MAX_FRAME_BYTES = 64 << 20

/** Writes a file under a temporary name and renames it when it is complete. Throws TetradError OUTPUT_FAILED. */
export class FrameWriter {
  readonly #path: string
  readonly #temporary: string
  readonly #file: FileHandle
  readonly #hash = createHash('sha256')
  bytes = 0

  private constructor(path: string, temporary: string, file: FileHandle) {
    this.#path = path
    this.#temporary = temporary
    this.#file = file
  }

  static async open(path: string): Promise<FrameWriter> {
    const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`
    const file = await open(temporary, 'wx').catch((cause: unknown) => {
      throw failed(path, cause)
    })
    return new FrameWriter(path, temporary, file)
  }

  async write(value: unknown): Promise<void> {
    const body = packMessage(value)
    if (body.length > MAX_FRAME_BYTES) throw new RangeError(`a frame of ${body.length} bytes`)
    const length = Buffer.alloc(4)
    length.writeUInt32LE(body.length)
    try {
      await writeAll(this.#file, length)
      await writeAll(this.#file, body)
    } catch (cause) {
      throw failed(this.#path, cause)
    }
    this.#hash.update(length).update(body)
    this.bytes += 4 + body.length
  }

  /** Writes the checksum and renames the file. */
  async finish(): Promise<void> {
    await this.write({ sha256: this.#hash.copy().digest() })
    try {
      await this.#file.sync()
      await this.#file.close()
      await rename(this.#temporary, this.#path)
    } catch (cause) {
      throw failed(this.#path, cause)
    }
  }

  /** Deletes the temporary file. */
  async discard(): Promise<void> {
    await this.#file.close().catch(() => {})
    await rm(this.#temporary, { force: true })
  }
}

async function writeAll(file: FileHandle, bytes: Buffer): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += (await file.write(bytes, done)).bytesWritten
}

function failed(path: string, cause: unknown): TetradError {
  return new TetradError('OUTPUT_FAILED', {
    what: `the snapshot ${path} could not be written`,
    actual: cause instanceof Error ? cause.message : String(cause),
    remedy: 'Check the path, its permissions and the room on its disk.',
    cause,
  })
}

/** Reads frames one after another. Throws SnapshotError SNAPSHOT_INVALID for a file that is not a valid snapshot. */
export class FrameReader {
  readonly #path: string
  readonly #file: FileHandle
  readonly #hash: Hash = createHash('sha256')
  #left: number

  private constructor(path: string, file: FileHandle, size: number) {
    this.#path = path
    this.#file = file
    this.#left = size
  }

  static async open(path: string): Promise<FrameReader> {
    try {
      const file = await open(path, 'r')
      const { size } = await file.stat()
      return new FrameReader(path, file, size)
    } catch (cause) {
      throw invalid(path, cause instanceof Error ? cause.message : String(cause), cause)
    }
  }

  /** The next frame; it is part of the checksum. */
  async next(): Promise<unknown> {
    const { length, body } = await this.#read()
    this.#hash.update(length).update(body)
    return this.#decode(body)
  }

  /** The last frame: throws unless it is the checksum of those before it and nothing follows. */
  async end(): Promise<void> {
    const expected = this.#hash.digest()
    const last = this.#decode((await this.#read()).body)
    const found = typeof last === 'object' && last !== null ? (last as { sha256?: unknown }).sha256 : undefined
    if (!(found instanceof Uint8Array) || !expected.equals(found)) throw invalid(this.#path, 'the checksum does not match the contents')
    if (this.#left > 0) throw invalid(this.#path, `${this.#left} bytes follow the checksum`)
  }

  async close(): Promise<void> {
    await this.#file.close()
  }

  async #read(): Promise<{ length: Buffer; body: Buffer }> {
    const length = await this.#take(4)
    const bytes = length.readUInt32LE()
    if (bytes > MAX_FRAME_BYTES) throw invalid(this.#path, `a frame claims ${bytes} bytes`)
    return { length, body: await this.#take(bytes) }
  }

  async #take(bytes: number): Promise<Buffer> {
    if (bytes > this.#left) throw invalid(this.#path, `it ends ${bytes - this.#left} bytes too early`)
    const buffer = Buffer.alloc(bytes)
    for (let done = 0; done < bytes; ) {
      const { bytesRead } = await this.#file.read(buffer, done, bytes - done)
      if (bytesRead === 0) throw invalid(this.#path, 'it became shorter while it was read')
      done += bytesRead
    }
    this.#left -= bytes
    return buffer
  }

  #decode(body: Buffer): unknown {
    try {
      return unpackMessage(body)
    } catch (cause) {
      throw invalid(this.#path, `a frame is not MessagePack: ${cause instanceof Error ? cause.message : String(cause)}`, cause)
    }
  }
}

export function invalid(path: string, actual: string, cause?: unknown): SnapshotError {
  return new SnapshotError('SNAPSHOT_INVALID', {
    what: `${path} is not a valid snapshot`,
    expected: 'a file that saveSnapshot wrote',
    actual,
    remedy: 'Save the snapshot again.',
    ...(cause !== undefined && { cause }),
  })
}
