#!/usr/bin/env bash
# Guess:  reading past the end of an array in a gpu.js kernel gives NaN (undefined as a number), as in
#         its CPU mode, so a mistake in the index arithmetic is seen at once.
# Seen:   gpu.js 2.24.1 in WebGPU mode (webgpu 0.6.2, SwiftShader): a[n + 3] and a[-1] both give the
#         LAST element, since WGSL clamps the index and -1 is a large unsigned number. A kernel that
#         reads the previous token at position 0 silently reads the newest one.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null
npm install --ignore-scripts --no-audit --no-fund gpu.js@2.24.1 webgpu@0.6.2 @sparticuz/chromium@153.0.0 >/dev/null
node -e "
const file = \"node_modules/@sparticuz/chromium/bin/swiftshader.tar.br\"
fs.writeFileSync(\"driver.tar\", zlib.brotliDecompressSync(fs.readFileSync(file)))"
tar xf driver.tar
export LD_LIBRARY_PATH=$PWD VK_ICD_FILENAMES=$PWD/vk_swiftshader_icd.json XDG_RUNTIME_DIR=/tmp
cat > gpu.mjs <<'JS'
import { create, globals } from "webgpu"
Object.assign(globalThis, globals)
Object.defineProperty(globalThis, "navigator", { value: { gpu: create([]) }, configurable: true })
const { GPU } = (await import("gpu.js")).default
const [cpu, gpu] = ["cpu", "webgpu"].map((mode) => new GPU({ mode }))
/** The same kernel in CPU mode and in WebGPU mode, as arrays. */
export async function both(kernel, args, output) {
  const results = []
  for (const device of [cpu, gpu]) results.push(Array.from(await device.createKernel(kernel, { output })(...args)))
  return results
}
JS
cat > run.mjs <<'JS'
import assert from 'node:assert'
import { both } from './gpu.mjs'
const [cpu, gpu] = await both(function (a) { return a[this.thread.x - 1] }, [[10, 20, 30]], [6])
console.log({ cpu, gpu })
assert.deepEqual(cpu, [NaN, 10, 20, 30, NaN, NaN])
assert.deepEqual(gpu, [30, 10, 20, 30, 30, 30])
process.exit(0)
JS
node run.mjs
