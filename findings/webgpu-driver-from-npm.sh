#!/usr/bin/env bash
# Guess:  WebGPU in Node (npm webgpu, Dawn) needs a Vulkan loader and a driver of the system, so it
#         cannot be tested on a bare container without system packages.
# Seen:   @sparticuz/chromium 153.0.0, a package for browsers in cloud functions, carries SwiftShader
#         as a Vulkan driver and libvulkan.so.1. With both on the path, webgpu 0.6.2 finds an adapter
#         and computes. No system package, no root. (linux-x64)
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null
npm install --ignore-scripts --no-audit --no-fund webgpu@0.6.2 @sparticuz/chromium@153.0.0 >/dev/null
node -e "
const file = 'node_modules/@sparticuz/chromium/bin/swiftshader.tar.br'
fs.writeFileSync('driver.tar', zlib.brotliDecompressSync(fs.readFileSync(file)))"
tar xf driver.tar
cat > run.mjs <<'JS'
import assert from 'node:assert'
import { create, globals } from 'webgpu'
Object.assign(globalThis, globals)
const adapter = await create([]).requestAdapter()
const device = await adapter.requestDevice()
const code = '@group(0) @binding(0) var<storage, read_write> x: array<f32>; @compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3u) { x[id.x] = f32(id.x * id.x); }'
const pipeline = device.createComputePipeline({ layout: 'auto', compute: { module: device.createShaderModule({ code }) } })
const x = device.createBuffer({ size: 16, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC })
const back = device.createBuffer({ size: 16, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ })
const encoder = device.createCommandEncoder()
const pass = encoder.beginComputePass()
pass.setPipeline(pipeline)
pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries: [{ binding: 0, resource: { buffer: x } }] }))
pass.dispatchWorkgroups(4)
pass.end()
encoder.copyBufferToBuffer(x, 0, back, 0, 16)
device.queue.submit([encoder.finish()])
await back.mapAsync(GPUMapMode.READ)
const squares = [...new Float32Array(back.getMappedRange())]
console.log(adapter.info.description, squares)
assert.match(adapter.info.description, /SwiftShader/)
assert.deepEqual(squares, [0, 1, 4, 9])
process.exit(0)
JS
LD_LIBRARY_PATH=$PWD VK_ICD_FILENAMES=$PWD/vk_swiftshader_icd.json XDG_RUNTIME_DIR=/tmp node run.mjs
