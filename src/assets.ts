// Files of this package that are found by URL at run time: worker scripts, the kernels, the embedded model.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** Directory of the model that the package contains: 16 M parameters, trained on public-domain stories. */
export const EMBEDDED_MODEL = fileURLToPath(new URL('../../models/tiny', import.meta.url))

/** URL of a file, given relative to the package's root. Throws where this module was copied away from them, as bundlers do. */
export function assetUrl(path: string): URL {
  const url = new URL(`../../${path}`, import.meta.url)
  if (existsSync(fileURLToPath(url))) return url
  throw new Error(
    `tetrad's file ${path} is not beside its code: tetrad starts worker threads from files, so keep it out of the bundle (esbuild --external:tetrad)`,
  )
}
