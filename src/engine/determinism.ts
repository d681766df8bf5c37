// What fixes the bits of an output, as a key that people can read and as a digest (docs/determinism.md).
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { instructionLevel } from '../../kernels/open-backend.js'
import { KERNEL_FILES } from '../../kernels/wasm/simd-level.js'
import type { RunPlan } from '../../workers/protocol.js'
import { assetUrl } from '../assets.js'
import { readModelFile } from '../model/model-files.js'
import { VERSION } from '../version.js'

/** Hexadecimal digits of the kernels' part of the key, and of the digest. */
const KERNEL_DIGITS = 12
const DIGEST_DIGITS = 32
/** Files that say which ids a text is. */
const TOKENIZER_FILES = ['tokenizer.json', 'tokenizer_config.json'] as const

export interface Determinism {
  /** Engines with equal keys give equal bits for the same model and the same ids. */
  readonly key: string
  /** Hexadecimal: of the key and the tokenizer. Equal digests give equal bits for the same model and the same text. */
  readonly digest: string
}

/**
 * Reads the kernels' files and the tokenizer's. dir: undefined where a model has no files yet. instructions: as the ranks report them; by
 * default what the plan alone tells.
 */
export async function determinismOf(
  dir: string | undefined,
  plan: RunPlan,
  instructions = instructionLevel(plan.backend, plan.simd),
): Promise<Determinism> {
  const { backend, weights, cache, partition } = plan
  const kernels = (await sha256(codeOf(plan))).slice(0, KERNEL_DIGITS)
  const parts = [`tetrad-${VERSION}`, backend, instructions, `weights-${weights}`, `cache-${cache}`, `partition-${partition}`, `kernels-${kernels}`]
  const key = parts.join('/')
  const tokenizer = await Promise.all(TOKENIZER_FILES.map((name) => (dir === undefined ? undefined : readModelFile(dir, name))))
  return { key, digest: (await sha256([key, ...tokenizer.map((text) => text ?? '')])).slice(0, DIGEST_DIGITS) }
}

/** The build of the WebAssembly kernels; where a GPU or JavaScript computes, the modules that write or are its kernels. */
function codeOf({ backend, simd }: RunPlan): (string | Uint8Array)[] {
  if (backend === 'wasm') return [readFileSync(fileURLToPath(assetUrl(`dist/kernels/wasm/${KERNEL_FILES[simd]}`)))]
  const folders = backend === 'gpu' ? ['dist/kernels/gpu/', 'dist/workers/gpu/'] : ['dist/kernels/reference/']
  return folders.flatMap((folder) => {
    const path = fileURLToPath(assetUrl(folder))
    const names = readdirSync(path).filter((name) => name.endsWith('.js'))
    return names.sort().flatMap((name) => [name, readFileSync(`${path}${name}`)])
  })
}

/** Through the Web's interface, which a browser has too. */
async function sha256(parts: readonly (string | Uint8Array)[]): Promise<string> {
  const bytes = parts.map((part) => (typeof part === 'string' ? new TextEncoder().encode(part) : part))
  // Lengths keep neighbours apart.
  const all = bytes.flatMap((part) => [new TextEncoder().encode(`${part.length}:`), part])
  const joined = new Uint8Array(all.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of all) {
    joined.set(part, at)
    at += part.length
  }
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', joined))
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
