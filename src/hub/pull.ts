// hf:owner/name[@revision][/folder] to a path on this machine: what the model needs of it, downloaded once into the Hub's cache.
// Listing and revisions are @huggingface/hub's. Its downloads do not continue, check no hash and wait without end, so those are
// download-blob.ts. 2.17.5.
import { readFile, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { listFiles, modelInfo } from '@huggingface/hub'
import { HubError, TetradError } from '../errors.js'
import { parseIndex } from '../model/checkpoint/checkpoint.js'
import type { DownloadProgress } from '../options/public-types.js'
import { cachedModel } from './cached-model.js'
import { downloadBlob } from './download-blob.js'
import { DownloadMeter } from './download-meter.js'
import type { HubAddress } from './hub-address.js'
import { cannotWrite, HubCache, isCommit, sizeOf } from './hub-cache.js'
import { HubClient } from './hub-client.js'
import { invalidAnswer } from './hub-errors.js'
import { type ChosenFiles, chooseFiles, type HubFile, listed, partsOf } from './hub-files.js'
import type { HubSettings } from './hub-settings.js'
import type { PullResult } from './pull-model.js'

/** As pull of pull-model.ts, with settings that need not come from the environment. */
export async function pullWith(
  address: HubAddress,
  settings: HubSettings,
  onProgress?: (progress: DownloadProgress) => void,
  signal?: AbortSignal,
): Promise<PullResult> {
  const cache = new HubCache(settings.cacheDir, address.repo)
  const known = await cache.commitOf(address.revision)
  const cached = known === undefined ? undefined : await cachedModel(cache, known, address)
  const asCached = (commit: string, path: string) => ({ path, commit, downloadedBytes: 0 })
  // A commit never changes.
  if (known !== undefined && cached !== undefined && (settings.offline || isCommit(address.revision))) return asCached(known, cached)
  if (settings.offline) throw offline(address, cache)
  try {
    return await new Pull(address, cache, new HubClient(address, settings, signal), onProgress).run()
  } catch (error) {
    if (!(error instanceof HubError) || error.code !== 'HUB_UNREACHABLE' || known === undefined || cached === undefined) throw error
    process.emitWarning(`${settings.endpoint} cannot be reached (${error.actual}): ${address.text} is what the cache has, commit ${known}`, {
      type: 'TetradWarning',
      code: 'HUB_CACHED',
    })
    return asCached(known, cached)
  }
}

class Pull {
  readonly #address: HubAddress
  readonly #cache: HubCache
  readonly #client: HubClient
  readonly #meter: DownloadMeter

  constructor(address: HubAddress, cache: HubCache, client: HubClient, onProgress: ((progress: DownloadProgress) => void) | undefined) {
    this.#address = address
    this.#cache = cache
    this.#client = client
    this.#meter = new DownloadMeter(onProgress)
  }

  async run(): Promise<PullResult> {
    const { repo, revision, folder } = this.#address
    const hub = { fetch: this.#client.fetch, hubUrl: this.#client.settings.endpoint }
    const { sha } = await understood(modelInfo({ ...hub, name: repo, revision, additionalFields: ['sha'] }))
    if (!isCommit(String(sha))) throw invalidAnswer(`the Hub names no commit of ${repo}`, '40 hexadecimal digits', String(sha).slice(0, 80))
    const commit = String(sha)
    const path = folder.split('/').map(encodeURIComponent).join('/')
    const files = await understood(listed(listFiles({ ...hub, repo, revision: commit, path }), folder))
    const chosen = chooseFiles(files, this.#address)
    await this.#fetch(chosen.files, commit)
    if (chosen.index) await this.#fetch(await this.#parts(chosen.index, files, commit), commit)
    // Only now: a revision whose files are not all there must not replace one that is complete.
    await this.#cache.setCommit(revision, commit)
    return { path: this.#pathOf(chosen, commit), commit, downloadedBytes: this.#meter.gotBytes }
  }

  #pathOf({ gguf }: ChosenFiles, commit: string): string {
    const dir = this.#cache.snapshot(commit, this.#address.folder)
    return gguf === undefined ? dir : join(dir, gguf)
  }

  async #parts(index: HubFile, files: ReadonlyMap<string, HubFile>, commit: string): Promise<HubFile[]> {
    const path = this.#cache.snapshot(commit, index.path)
    return partsOf(parseIndex(await readFile(path, 'utf8'), path), files, this.#address)
  }

  async #fetch(files: readonly HubFile[], commit: string): Promise<void> {
    const missing: HubFile[] = []
    for (const file of files) if ((await sizeOf(this.#cache.snapshot(commit, file.path))) !== file.size) missing.push(file)
    for (const { size } of missing) this.#meter.expect(size)
    await this.#checkRoom(missing)
    const { endpoint } = this.#client.settings
    for (const file of missing) {
      this.#meter.begin(file.name)
      const url = `${endpoint}/${this.#address.repo}/resolve/${commit}/${file.path.split('/').map(encodeURIComponent).join('/')}`
      const blob = await downloadBlob(this.#client, this.#cache, file, url, (bytes, got) => this.#meter.add(bytes, got))
      await this.#cache.link(blob, commit, file.path)
    }
  }

  async #checkRoom(missing: readonly HubFile[]): Promise<void> {
    let bytes = 0
    for (const file of missing) {
      const blob = await this.#cache.blob(file.hash)
      const there = (await sizeOf(blob)) === file.size ? file.size : ((await sizeOf(`${blob}.incomplete`)) ?? 0)
      bytes += Math.max(0, file.size - there)
    }
    if (bytes === 0) return
    const { bavail, bsize } = await this.#cache.write(() => statfs(this.#cache.dir))
    if (bavail * bsize < bytes) throw cannotWrite(this.#cache.dir, `${Math.floor((bavail * bsize) / 2 ** 20)} MiB free`, bytes)
  }
}

/** What the library throws of an answer that it does not understand. */
async function understood<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (error) {
    if (error instanceof TetradError) throw error
    throw invalidAnswer('the Hub sent an answer that is not of its API', 'JSON', error instanceof Error ? error.message.slice(0, 200) : String(error))
  }
}

function offline(address: HubAddress, cache: HubCache): HubError {
  return new HubError('HUB_UNREACHABLE', {
    what: `${address.text} is not in the cache, and HF_HUB_OFFLINE is set`,
    expected: `a complete model in ${cache.snapshot('<commit>', address.folder)}`,
    remedy: `Unset HF_HUB_OFFLINE, or copy the cache from a machine that ran: tetrad pull ${address.text}`,
  })
}
