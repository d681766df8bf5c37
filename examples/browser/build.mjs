// Bundles the compiled engine for a browser: dist/browser/. The engine's own code is unchanged; what it takes from Node is replaced by
// shims/: files by what was fetched, worker threads by Web Workers.
import { fileURLToPath } from 'node:url'
import * as esbuild from 'esbuild-wasm'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))

/** Modules of the engine and packages that a browser has another kind of. */
const REPLACED = [
  [/^node:/, 'shims/node.js'],
  [/^piscina$/, 'shims/piscina.js'],
  [/^comlink\/dist\/esm\/node-adapter\.mjs$/, 'shims/endpoint.js'],
  [/^synckit$/, 'shims/absent.js'],
  [/\/torch-bin\.js$/, 'shims/absent.js'],
  [/\/assets\.js$/, 'shims/assets.js'],
  [/\/constraints\/matcher-thread\.js$|^\.\/matcher-thread\.js$/, 'shims/matcher-thread.js'],
  [/\/hub\/local-model\.js$/, 'shims/local-model.js'],
  [/\/(?:checkpoint|\.)\/load-weights\.js$/, 'shims/load-weights.js'],
]

const shims = {
  name: 'shims',
  setup(build) {
    for (const [filter, path] of REPLACED) build.onResolve({ filter }, () => ({ path: here(path) }))
    // Loaded only where they are asked for: GPU ranks, and the native tokenizer.
    build.onResolve({ filter: /^(webgpu|gpu\.js|acorn|tokenizers)$/ }, ({ path }) => ({ path, external: true }))
  },
}

/** Returns what each bundle is made of, in bytes by module. */
export async function bundle(outdir = here('../../dist/browser')) {
  const { metafile } = await esbuild.build({
    entryPoints: [here('main.js'), here('rank-worker.js')],
    outdir,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    metafile: true,
    logLevel: 'error',
    plugins: [shims],
  })
  await esbuild.stop?.()
  return metafile
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await bundle()
