// What a user gives as a model, as a path: an address of the Hub is downloaded first.
import type { DownloadProgress } from '../options/public-types.js'
import { isHubAddress } from './hub-address.js'
import { pull } from './pull-model.js'

interface LocalModelOptions {
  readonly onDownload?: ((progress: DownloadProgress) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

/** `model`: a path, which is returned as it is, or hf:owner/name[@revision][/folder]. Rejects as pull does. */
export async function localModel(model: string, { onDownload, signal }: LocalModelOptions = {}): Promise<string> {
  if (!isHubAddress(model)) return model
  const { path } = await pull(model, { ...(onDownload && { onProgress: onDownload }), ...(signal && { signal }) })
  return path
}
