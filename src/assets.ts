// Files of this package that are found by URL at run time: worker scripts, the kernels, the embedded model.
// In a bundle import.meta.url is the bundle's, and the files are looked for in the installed package instead.
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath, pathToFileURL } from 'node:url'

/** URL of a file, given relative to the package's root. Throws if neither place has it. */
export function assetUrl(path: string): URL {
  const beside = new URL(`../../${path}`, import.meta.url)
  if (beside.protocol === 'file:' && existsSync(fileURLToPath(beside))) return beside
  const installed = new URL(path, pathToFileURL(createRequire(import.meta.url).resolve('tetrad/package.json')))
  if (existsSync(fileURLToPath(installed))) return installed
  throw new Error(
    `tetrad's file ${path} is neither beside this module nor in an installed package: keep the package tetrad installed beside a bundle`,
  )
}
