// The public way to download a model of the Hub. Knows its options, not how it is done.
import { checkInstance, checkNames, checkSignal, isFunction } from '../options/check.js'
import type { DownloadProgress } from '../options/public-types.js'
import { parseHubAddress } from './hub-address.js'

/** Options of pull. */
export interface PullOptions {
  /** Called while files are downloaded. */
  onProgress?: (progress: DownloadProgress) => void
  /** Stops the download, which then rejects with LOAD_ABORTED. What was downloaded is kept. */
  signal?: AbortSignal
}

/** What pull made sure of. */
export interface PullResult {
  /** The directory of the model, or its .gguf file: give it to Engine.load. */
  readonly path: string
  /** Of the repository: 40 hexadecimal digits. */
  readonly commit: string
  /** Bytes that came over the network; 0: the cache had all. */
  readonly downloadedBytes: number
}

/**
 * Makes sure that a model of the Hugging Face Hub is on this machine.
 * @param address hf:owner/name[@revision][/folder], or with /file.gguf at its end
 * @throws OptionError OPTION_INVALID, HubError, TetradError OUTPUT_FAILED or LOAD_ABORTED
 */
export async function pull(address: string, options: PullOptions = {}): Promise<PullResult> {
  const o = checkNames('pull', options, ['onProgress', 'signal'])
  const onProgress = checkInstance('onProgress', o.onProgress, isFunction, 'a function') as PullOptions['onProgress']
  const signal = checkSignal(o.signal)
  const parsed = parseHubAddress(address)
  // The library is large: it is loaded when it is needed.
  const [{ pullWith }, { hubSettings }] = await Promise.all([import('./pull.js'), import('./hub-settings.js')])
  return pullWith(parsed, await hubSettings(), onProgress, signal)
}
