// The cache on disk, in the layout of Python's huggingface_hub: what either downloads, the other finds.
//   models--owner--name/refs/<revision>             the commit that a revision was last
//   models--owner--name/blobs/<hash>                contents
//   models--owner--name/snapshots/<commit>/<path>   links to blobs
import { copyFile, mkdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { getRepoFolderName } from '@huggingface/hub'
import { TetradError } from '../errors.js'
import { mib } from '../mib.js'

const COMMIT = /^[0-9a-f]{40}$/

export function isCommit(revision: string): boolean {
  return COMMIT.test(revision)
}

export class HubCache {
  readonly #dir: string

  /** `repo`: owner/name, checked by parseHubAddress. */
  constructor(cacheDir: string, repo: string) {
    this.#dir = join(cacheDir, getRepoFolderName({ name: repo, type: 'model' }))
  }

  /** The commit that a revision is, or was when it was last asked for; undefined: it was never asked for. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision
    const text = await readFile(join(this.#dir, 'refs', revision), 'utf8').catch(() => '')
    return isCommit(text.trim()) ? text.trim() : undefined
  }

  async setCommit(revision: string, commit: string): Promise<void> {
    if (isCommit(revision)) return
    const path = join(this.#dir, 'refs', revision)
    await this.write(async () => {
      await mkdir(dirname(path), { recursive: true })
      await writeFile(`${path}.${process.pid}`, commit)
      await rename(`${path}.${process.pid}`, path)
    })
  }

  /** `path`: of a file or folder in the repository; '' is its root. */
  snapshot(commit: string, path: string): string {
    return join(this.#dir, 'snapshots', commit, path)
  }

  /** Path of a blob. `hash`: hexadecimal. */
  async blob(hash: string): Promise<string> {
    await this.write(() => mkdir(join(this.#dir, 'blobs'), { recursive: true }))
    return join(this.#dir, 'blobs', hash)
  }

  /** Makes the blob appear in the snapshot: as a link, or as a copy where the file system has no links. */
  async link(blob: string, commit: string, path: string): Promise<void> {
    const at = this.snapshot(commit, path)
    await this.write(async () => {
      await mkdir(dirname(at), { recursive: true })
      await rm(at, { force: true })
      await symlink(relative(dirname(at), blob), at).catch(async (error: NodeJS.ErrnoException) => {
        // Another process was faster.
        if (error.code === 'EEXIST') return
        await copyFile(blob, at)
      })
    })
  }

  /** Runs what writes. Throws TetradError OUTPUT_FAILED, which names a full disk. */
  async write<T>(run: () => Promise<T>): Promise<T> {
    try {
      return await run()
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException
      if (typeof code !== 'string' || cause instanceof TetradError) throw cause
      throw cannotWrite(this.#dir, code === 'ENOSPC' || code === 'EDQUOT' ? 'its disk is full' : message, undefined, cause)
    }
  }

  get dir(): string {
    return this.#dir
  }
}

/** Size of a file, followed through links; undefined: there is none. */
export async function sizeOf(path: string): Promise<number | undefined> {
  const found = await stat(path).catch(() => undefined)
  return found?.isFile() ? found.size : undefined
}

/** bytes: that are needed, if that is known. */
export function cannotWrite(dir: string, actual: string, bytes?: number, cause?: unknown): TetradError {
  return new TetradError('OUTPUT_FAILED', {
    what: `cannot write to the cache ${dir}`,
    expected: bytes === undefined ? 'a directory that can be written to, with room' : `room for ${mib(bytes)}`,
    actual,
    remedy: 'Free space, or set HF_HUB_CACHE to a directory on another disk. What was downloaded is kept.',
    cause,
  })
}
