// One file of a repository into the cache: continued where an earlier attempt ended, and kept only if its hash is right.
import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { type HubCache, sizeOf } from './hub-cache.js'
import { ATTEMPTS, type HubClient, mayPass } from './hub-client.js'
import { invalidAnswer } from './hub-errors.js'
import type { HubFile } from './hub-files.js'

/** How far a file is: `done` bytes are on disk and in the hash. */
interface State {
  readonly file: FileHandle
  hash: Hash
  done: number
  /** Bytes before `done` come from an earlier run. */
  continued: boolean
}

/** Told of bytes that are on disk: `got` over the network, or found from an earlier run; negative if they were worthless. */
export type OnBytes = (bytes: number, got: boolean) => void

/**
 * Fetches `url`, which is `file`, into the cache and returns the blob's path. Two processes that fetch the same file write the same
 * bytes to the same places.
 * Rejects with HubError, TetradError OUTPUT_FAILED or LOAD_ABORTED.
 */
export async function downloadBlob(client: HubClient, cache: HubCache, file: HubFile, url: string, onBytes: OnBytes): Promise<string> {
  const blob = await cache.blob(file.hash)
  if ((await sizeOf(blob)) === file.size) {
    onBytes(file.size, false)
    return blob
  }
  // Python continues this file too.
  const partial = `${blob}.incomplete`
  for (let round = 1; ; round++) {
    const handle = await cache.write(() => openPartial(partial))
    const state: State = { file: handle, hash: newHash(file), done: 0, continued: false }
    try {
      await findEarlier(state, partial, file, onBytes)
      await fetchRest(client, cache, state, file, url, onBytes)
    } finally {
      await handle.close()
    }
    const actual = state.hash.digest('hex')
    if (actual === file.hash) {
      await cache
        .write(() => rename(partial, blob))
        .catch(async (error) => {
          // Another process was faster.
          if ((await sizeOf(blob)) !== file.size) throw error
        })
      return blob
    }
    await rm(partial, { force: true })
    onBytes(-state.done, false)
    // What an earlier run left may be of another file; what came now is not fetched twice.
    if (!state.continued || round > 1) throw invalidAnswer(`${file.path} has another hash than the Hub says`, file.hash, actual)
  }
}

function newHash({ hash, size }: HubFile): Hash {
  return hash.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`)
}

async function openPartial(path: string): Promise<FileHandle> {
  return open(path, 'r+').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    return open(path, 'w+')
  })
}

async function findEarlier(state: State, path: string, { size }: HubFile, onBytes: OnBytes): Promise<void> {
  const { size: found } = await state.file.stat()
  if (found > size) await state.file.truncate(0)
  if (found === 0 || found > size) return
  for await (const part of createReadStream(path, { end: found - 1, highWaterMark: 1 << 20 })) state.hash.update(part as Buffer)
  state.done = found
  state.continued = true
  onBytes(found, false)
}

async function fetchRest(client: HubClient, cache: HubCache, state: State, file: HubFile, url: string, onBytes: OnBytes): Promise<void> {
  for (let failures = 0; state.done < file.size; ) {
    const before = state.done
    try {
      await fetchOnce(client, cache, state, file, url, onBytes)
      // The answer ended early without an error.
      if (state.done < file.size && state.done === before) throw invalidAnswer(`${file.path} ends early`, `${file.size} bytes`, `${state.done}`)
    } catch (error) {
      failures = state.done > before ? 1 : failures + 1
      if (!mayPass(error) || failures >= ATTEMPTS) throw error
      await client.pause(failures)
    }
  }
}

async function fetchOnce(client: HubClient, cache: HubCache, state: State, file: HubFile, url: string, onBytes: OnBytes): Promise<void> {
  // Compressed bytes would have other lengths than the file's.
  const headers = { 'accept-encoding': 'identity', ...(state.done > 0 && { range: `bytes=${state.done}-` }) }
  const { response, parts, cancel } = await client.request(url, { headers })
  const { status } = response
  if (status !== 200 && status !== 206) {
    cancel()
    if (status !== 416) throw client.refusal(response)
    throw invalidAnswer(`${file.path} is shorter than the Hub says`, `${file.size} bytes`, `at most ${state.done}`)
  }
  if (status === 206) {
    const from = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1]
    if (Number(from) !== state.done) {
      cancel()
      throw invalidAnswer(`another part of ${file.path} came than was asked for`, `bytes from ${state.done} on`, `bytes from ${from} on`)
    }
  } else if (state.done > 0) {
    // The server does not continue: from the start.
    onBytes(-state.done, false)
    state.done = 0
    state.hash = newHash(file)
    state.continued = false
  }
  for await (const part of parts) {
    if (state.done + part.length > file.size) throw invalidAnswer(`${file.path} is longer than the Hub says`, `${file.size} bytes`, 'more')
    await cache.write(() => writeFully(state.file, part, state.done))
    state.hash.update(part)
    state.done += part.length
    onBytes(part.length, true)
  }
}

async function writeFully(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done)
    done += bytesWritten
  }
}
