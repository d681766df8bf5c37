// What tells one version of a model from another: a hash over its files.
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { pipeline } from 'node:stream/promises'

/** Files that say what a model answers: weights, configuration, tokenizer, chat template. */
const OF_MODEL = /\.(json|safetensors|bin|pt|jinja|tetrad|gguf)$/

/** Hexadecimal SHA-256 over names and contents of the files of a model directory, or of a model that is one file; reads them once. Rejects with what the file system says. */
export async function modelDigest(dir: string): Promise<string> {
  const isFile = (await stat(dir)).isFile()
  const names = isFile ? [basename(dir)] : await filesOf(dir)
  const hash = createHash('sha256')
  for (const name of names) {
    const file = createHash('sha256')
    await pipeline(createReadStream(isFile ? dir : join(dir, name), { highWaterMark: 1 << 20 }), file)
    hash.update(`${name}\0${file.digest('hex')}\0`)
  }
  return hash.digest('hex')
}

async function filesOf(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true })
  return entries
    .filter((entry) => !entry.isDirectory() && OF_MODEL.test(entry.name))
    .map(({ name }) => name)
    .sort()
}

/** Identifies what a served model answers: equal fingerprints give equal answers. 16 hexadecimal digits. */
export function servedFingerprint(name: string, digest: string, determinismKey: string): string {
  return createHash('sha256').update(`${name}\0${digest}\0${determinismKey}`).digest('hex').slice(0, 16)
}
