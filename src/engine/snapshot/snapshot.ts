// Saving the cached rows of a prefix to a file, and bringing them back. A file is a header, then frames of rows by layer and block of tokens,
// then its checksum (frames.ts). Nothing of a file can be found in the cache before all of it has been checked.

import { PAGE_TOKENS } from '../../../workers/protocol.js'
import { SnapshotError } from '../../errors.js'
import type { PageAllocator } from '../scheduling/page-allocator.js'
import type { CachedRows, LayerRows } from './cached-rows.js'
import { FrameReader, FrameWriter, invalid } from './frames.js'

const FORMAT = 'tetrad-snapshot'
const VERSION = 1
/** Tokens of one frame. */
const BLOCK_TOKENS = 16 * PAGE_TOKENS

/** What must be the same in a snapshot and in the engine that loads it. */
export interface SnapshotIdentity {
  /** See fingerprint.ts. */
  readonly model: string
  readonly variant: string
  readonly weights: string
  readonly cache: string
  readonly determinismKey: string
  readonly layers: number
}

/** The cache that is saved or filled. */
export interface SnapshotCache {
  readonly allocator: PageAllocator
  readonly rows: CachedRows
  readonly identity: SnapshotIdentity
  readonly vocab: number
  /** Maximum tokens of a request. */
  readonly contextTokens: number
}

/** Writes the cached rows of a prefix of these tokens. Returns how many tokens that was; the last page may be partial. */
export async function saveSnapshot(
  { allocator, rows, identity }: SnapshotCache,
  tokens: readonly number[],
  path: string,
): Promise<{ tokens: number; bytes: number }> {
  const writer = await FrameWriter.open(path)
  const held: number[] = []
  try {
    let chain = 0
    while ((held.length + 1) * PAGE_TOKENS <= tokens.length) {
      const first = held.length * PAGE_TOKENS
      const found = allocator.reuse(chain, tokens.slice(first, first + PAGE_TOKENS))
      if (!found) break
      held.push(found.page)
      chain = found.chain
    }
    const full = held.length * PAGE_TOKENS
    const rest = allocator.longestMatch(chain, tokens.slice(full, full + PAGE_TOKENS))
    const count = full + (rest?.rows ?? 0)
    if (count === 0) {
      throw new SnapshotError('SNAPSHOT_NO_ROOM', {
        what: 'the prompt was computed, and other requests needed its pages before they could be saved',
        expected: 'pages that stay cached',
        actual: `${allocator.freePages} of ${allocator.pages} free`,
        remedy: 'Save while fewer requests run, or load the engine with more cacheTokens.',
      })
    }
    if (rest) {
      allocator.retain(rest.page)
      held.push(rest.page)
    }
    const { holder } = rows
    await writer.write({ format: FORMAT, version: VERSION, ...identity, tokens: Buffer.from(Uint32Array.from(tokens.slice(0, count)).buffer) })
    for (let layer = 0; layer < identity.layers; layer++) {
      for (let first = 0; first < full; first += BLOCK_TOKENS) {
        const n = Math.min(BLOCK_TOKENS, full - first)
        await writer.write({ layer, first, rows: n, ...(await rows.read(layer, held.slice(first / PAGE_TOKENS), n)) })
      }
      if (rest) await writer.write({ layer, first: full, rows: rest.rows, ...(await rows.read(layer, [rest.page], rest.rows)) })
    }
    checkHolder(rows, holder, path)
    await writer.finish()
    return { tokens: count, bytes: writer.bytes }
  } catch (error) {
    await writer.discard()
    throw error
  } finally {
    allocator.release(held)
  }
}

/** Loads the rows of a file into free pages and caches them. Throws SnapshotError; then nothing of the file is cached. */
export async function loadSnapshot(cache: SnapshotCache, path: string): Promise<number[]> {
  const { allocator, rows, identity } = cache
  const reader = await FrameReader.open(path)
  const pages: number[] = []
  try {
    const tokens = readHeader(await reader.next(), cache, path)
    const needed = Math.ceil(tokens.length / PAGE_TOKENS)
    while (pages.length < needed) {
      const page = allocator.allocate(pages.length)
      if (page === undefined) break
      pages.push(page)
    }
    if (pages.length < needed) {
      throw new SnapshotError('SNAPSHOT_NO_ROOM', {
        what: `the cache has no room for the snapshot ${path}`,
        expected: `${needed} free pages of ${PAGE_TOKENS} tokens`,
        actual: String(pages.length),
        remedy: 'Wait until requests have ended, or load the engine with more cacheTokens.',
      })
    }
    const { holder } = rows
    const full = Math.floor(tokens.length / PAGE_TOKENS) * PAGE_TOKENS
    for (let layer = 0; layer < identity.layers; layer++) {
      for (let first = 0; first < tokens.length; ) {
        const n = first < full ? Math.min(BLOCK_TOKENS, full - first) : tokens.length - full
        await rows.write(layer, pages.slice(first / PAGE_TOKENS), n, readRows(await reader.next(), cache, path, layer, first, n))
        first += n
      }
    }
    await reader.end()
    checkHolder(rows, holder, path)
    let chain = 0
    for (const [i, page] of pages.entries()) {
      const own = tokens.slice(i * PAGE_TOKENS, (i + 1) * PAGE_TOKENS)
      if (own.length === PAGE_TOKENS) chain = allocator.cacheFullPage(page, chain, own)
      else allocator.cachePartialPage(page, chain, own)
    }
    return tokens
  } finally {
    allocator.release(pages)
    await reader.close()
  }
}

/** What was cached on devices is lost when ranks are restarted. */
function checkHolder(rows: CachedRows, holder: object, path: string): void {
  if (rows.holder === holder) return
  throw new SnapshotError('SNAPSHOT_NO_ROOM', {
    what: `the ranks were restarted and lost the cache on their devices while ${path} was saved or loaded`,
    expected: 'no restart',
    actual: 'a restart',
    remedy: 'Save or load it again.',
  })
}

function readHeader(value: unknown, { identity, vocab, contextTokens }: SnapshotCache, path: string): number[] {
  const header = asMap(value, path)
  if (header.format !== FORMAT) throw invalid(path, 'the header has another format')
  if (header.version !== VERSION) throw mismatch(path, 'version', String(VERSION), header.version)
  for (const name of ['variant', 'layers', 'weights', 'cache', 'determinismKey', 'model'] as const) {
    if (header[name] !== identity[name]) throw mismatch(path, name, String(identity[name]), header[name])
  }
  const bytes = header.tokens
  if (!(bytes instanceof Uint8Array) || bytes.length === 0 || bytes.length % 4 !== 0) throw invalid(path, 'it contains no tokens')
  if (bytes.length / 4 > contextTokens) throw mismatch(path, 'context', `at most ${contextTokens} tokens`, bytes.length / 4)
  const tokens = [...new Uint32Array(Uint8Array.from(bytes).buffer)]
  if (tokens.some((token) => token >= vocab)) throw invalid(path, 'a token is not in the vocabulary')
  return tokens
}

function readRows(value: unknown, { rows }: SnapshotCache, path: string, layer: number, first: number, n: number): LayerRows {
  const frame = asMap(value, path)
  if (frame.layer !== layer || frame.first !== first || frame.rows !== n)
    throw invalid(path, `rows ${first} of layer ${layer} are missing or out of order`)
  const sizes = rows.sizes(n)
  const bytes = (found: unknown, size: number): Uint8Array => {
    if (found instanceof Uint8Array && found.length === size) return found
    throw invalid(path, `rows ${first} of layer ${layer} have the wrong size`)
  }
  const { streams } = frame
  if (!Array.isArray(streams) || streams.length !== sizes.streams) throw invalid(path, `layer ${layer} has the wrong number of streams`)
  return {
    streams: streams.map((stream) => bytes(stream, sizes.stream)),
    ropes: bytes(frame.ropes, sizes.ropes),
    coefficients: bytes(frame.coefficients, sizes.coefficients),
  }
}

function asMap(value: unknown, path: string): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  throw invalid(path, 'a frame has the wrong type')
}

function mismatch(path: string, name: string, expected: string, actual: unknown): SnapshotError {
  return new SnapshotError('SNAPSHOT_MISMATCH', {
    what: `the snapshot ${path} was saved with another ${name}`,
    expected,
    actual: typeof actual === 'string' || typeof actual === 'number' ? String(actual).slice(0, 200) : 'none',
    remedy: 'Load it with the same model, formats and determinism key, or save it again with this engine.',
  })
}
