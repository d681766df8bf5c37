#!/usr/bin/env bash
# Guess:  a softmax in a gpu.js kernel can start its running maximum at -Infinity.
# Seen:   gpu.js 2.24.1 in WebGPU mode (webgpu 0.6.2, SwiftShader): the constants Infinity and
#         -Infinity become the largest float32, 3.4028234663852886e38, with their sign. CPU mode keeps
#         them. A mask of -Infinity is then a finite score, and `-Infinity - max` can stay finite. An
#         infinity that is computed (1 / 0), or passed in an array, stays infinite in both.
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
const [cpu, gpu] = await both(function (s) { return this.thread.x === 0 ? Infinity : -Infinity }, [[1]], [2])
const computed = await both(function (a) { return a[this.thread.x] / 0 }, [[1, -1]], [2])
const passed = await both(function (a) { return a[this.thread.x] }, [[Infinity, -Infinity]], [2])
console.log({ cpu, gpu, computed, passed })
const most = 3.4028234663852886e38
assert.deepEqual(cpu, [Infinity, -Infinity])
assert.deepEqual(gpu, [most, -most])
assert.deepEqual(computed, [cpu, cpu])
assert.deepEqual(passed, [cpu, cpu])
process.exit(0)
JS
node run.mjs
