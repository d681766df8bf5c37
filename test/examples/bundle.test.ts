// The browser's bundle of the compiled engine. A new import of a Node module that no shim knows is found here, without a browser.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { ROOT } from '../support/fixtures.js'

test('every import of the engine that a page makes is bundled', async (t) => {
  const { bundle } = (await import(`${ROOT}examples/browser/build.mjs`)) as {
    bundle: (
      outdir: string,
    ) => Promise<{ inputs: Record<string, unknown>; outputs: Record<string, { imports: { path: string; external?: boolean }[] }> }>
  }
  const folder = mkdtempSync(join(tmpdir(), 'tetrad-bundle-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const { inputs, outputs } = await bundle(folder)
  t.true(Object.keys(inputs).some((path) => path.endsWith('src/engine/engine.js')))
  const external = new Set(Object.values(outputs).flatMap(({ imports }) => imports.filter((one) => one.external).map(({ path }) => path)))
  t.deepEqual(
    [...external].filter((path) => !['webgpu', 'gpu.js', 'acorn', 'tokenizers'].includes(path)),
    [],
  )
})
