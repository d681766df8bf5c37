// Whether the cache has all of a model, told from its files alone.
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseIndex } from '../model/checkpoint/checkpoint.js'
import type { HubAddress } from './hub-address.js'
import { type HubCache, sizeOf } from './hub-cache.js'
import { WEIGHTS } from './hub-files.js'

/** The path of a model whose configuration and weights are all there; undefined: something is missing. */
export async function cachedModel(cache: HubCache, commit: string, { folder, file }: HubAddress): Promise<string | undefined> {
  const dir = cache.snapshot(commit, folder)
  const has = async (name: string) => (await sizeOf(join(dir, name))) !== undefined
  if (file !== undefined) return (await has(file)) ? join(dir, file) : undefined
  for (const name of WEIGHTS) {
    if (!(await has(name))) continue
    if (!(await has('config.json'))) return undefined
    return !name.endsWith('.index.json') || (await hasParts(dir, name)) ? dir : undefined
  }
  const ggufs = (await readdir(dir).catch(() => [])).filter((name) => name.endsWith('.gguf'))
  // Of several the Hub must be asked which are there.
  return ggufs.length === 1 && (await has(ggufs[0] as string)) ? join(dir, ggufs[0] as string) : undefined
}

async function hasParts(dir: string, index: string): Promise<boolean> {
  const path = join(dir, index)
  const fileOf = parseIndex(await readFile(path, 'utf8'), path)
  const sizes = await Promise.all([...new Set(fileOf.values())].map((name) => sizeOf(join(dir, name))))
  return sizes.every((size) => size !== undefined)
}
