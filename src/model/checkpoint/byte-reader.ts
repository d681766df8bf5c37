// Reading a file by position, and knowing that it stayed the same file. Buffers stand in for files in tests.
import { type FileHandle, open } from 'node:fs/promises'

/** What tells a file that was replaced or rewritten while it was being loaded. */
export interface FileIdentity {
  readonly size: number
  readonly mtimeMs: number
  readonly ino: number
}

export interface ByteReader {
  readonly identity: FileIdentity
  /** Reads up to target.length bytes from a position; fewer only at the end. */
  read(target: Uint8Array, position: number): Promise<number>
}

/** Opens a file for `use` and closes it after. */
export async function withFile<T>(path: string, use: (reader: ByteReader) => Promise<T>): Promise<T> {
  const file = await open(path, 'r')
  try {
    const { size, mtimeMs, ino } = await file.stat()
    return await use({ identity: { size, mtimeMs, ino }, read: (target, position) => readFully(file, target, position) })
  } finally {
    await file.close()
  }
}

async function readFully(file: FileHandle, target: Uint8Array, position: number): Promise<number> {
  let done = 0
  while (done < target.length) {
    const { bytesRead } = await file.read(target, done, target.length - done, position + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return done
}

export function readerOf(bytes: Uint8Array): ByteReader {
  return {
    identity: { size: bytes.length, mtimeMs: 0, ino: 0 },
    read: async (target, position) => {
      const part = bytes.subarray(position, position + target.length)
      target.set(part)
      return part.length
    },
  }
}
