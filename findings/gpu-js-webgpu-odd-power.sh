#!/usr/bin/env bash
# Guess:  `a ** 3` means the same in a gpu.js kernel as in JavaScript: (-2) ** 3 is -8.
# Seen:   gpu.js 2.24.1 in WebGPU mode (webgpu 0.6.2, SwiftShader): 8, the cube of the absolute value.
#         CPU mode gives -8. Odd powers of negative numbers lose their sign; GELU's x ** 3 is wrong.
#         x * x * x is right in both.
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
const x = [[-2, -0.5, 3]]
const [cpu, gpu] = await both(function (a) { return a[this.thread.x] ** 3 }, x, [3])
const products = await both(function (a) { return a[this.thread.x] * a[this.thread.x] * a[this.thread.x] }, x, [3])
console.log({ cpu, gpu, products })
assert.deepEqual(cpu, [-8, -0.125, 27])
assert.deepEqual(gpu.map((v) => Math.round(v * 1000) / 1000), [8, 0.125, 27])
assert.deepEqual(products, [cpu, cpu])
process.exit(0)
JS
node run.mjs
