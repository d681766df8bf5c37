// Shared by the GPU benchmarks: a device of this thread, its description, buffers of random values, and times by timestamps.
/// <reference types="@webgpu/types" />
import { GpuContext } from '../kernels/gpu/context.js'
import { GpuTimer } from '../kernels/gpu/gpu-timer.js'
import { type Dispatch, Program, type StepSize } from '../kernels/gpu/program.js'
import { machine, median } from './measure.js'

/** Every pass is for one row. */
export const ONE_ROW: StepSize = { rows: 1, selected: 1, parts: 1, singles: 1, prompts: 0 }

export interface GpuBench {
  readonly context: GpuContext
  readonly program: Program
  readonly timer: GpuTimer
}

/** `name`: part of an adapter's name; undefined: the first hardware adapter. */
export async function openGpu(name?: string): Promise<GpuBench> {
  const context = await GpuContext.acquire({ adapter: name, checks: false })
  const program = new Program(context)
  return { context, program, timer: new GpuTimer(context) }
}

export function gpuLine({ context }: GpuBench): string {
  const { device, description, tensorCores } = context.adapter
  return `${device} (${description}), tensor cores ${tensorCores ? 'used' : 'not reachable'}; ${machine()}`
}

/** Microseconds of each run of `passes[i % passes.length]`; a pass is one list of dispatches, timed from its first to its last. */
export async function timePasses({ context, program, timer }: GpuBench, passes: readonly (readonly Dispatch[])[], runs: number): Promise<number[]> {
  const encode = (encoder: GPUCommandEncoder, i: number, timed: boolean) => {
    const pass = encoder.beginComputePass(timed ? timer.pass('run') : {})
    for (const { pipeline, bindGroup, groups } of passes[i % passes.length] as readonly Dispatch[]) {
      pass.setPipeline(pipeline)
      pass.setBindGroup(0, bindGroup)
      pass.dispatchWorkgroups(...groups(ONE_ROW))
    }
    pass.end()
  }
  const submit = async (timed: boolean) => {
    const encoder = context.device.createCommandEncoder()
    program.encode(encoder, [], ONE_ROW)
    for (let i = 0; i < runs; i++) encode(encoder, i, timed)
    timer.resolve(encoder)
    context.device.queue.submit([encoder.finish()])
    await context.settle(context.device.queue.onSubmittedWorkDone())
  }
  // An idle card runs at a fraction of its clock.
  const until = performance.now() + 300
  while (performance.now() < until) await submit(false)
  await submit(true)
  return (await timer.take()).map(({ start, end }) => (end - start) * 1000)
}

/** A hash in WGSL. `hash` is the same in JavaScript. */
const HASH = `fn bits(i : u32) -> u32 { var u = i * 0x9E3779B1u; u = (u ^ (u >> 15u)) * 0x2C1B3C6Du; u = u ^ (u >> 12u); return u; }`

function hash(i: number): number {
  let u = Math.imul(i, 0x9e3779b1) >>> 0
  u = Math.imul(u ^ (u >>> 15), 0x2c1b3c6d) >>> 0
  return (u ^ (u >>> 12)) >>> 0
}

/** Element i of a buffer that fillRandom filled: exact in float16, -1 to 1. */
export function randomF16(i: number): number {
  return ((hash(i) & 2047) - 1024) / 1024
}

/** Fills a buffer with float16, two a word; or with words whose halves are bf16 of magnitude 0.01..2. */
export async function fillRandom({ context, program }: GpuBench, buffer: GPUBuffer, format: 'f16' | 'bf16'): Promise<void> {
  const words = Math.floor(buffer.size / 4)
  const value = `(f32(bits(2u * i) & 2047u) - 1024.0) / 1024.0, (f32(bits(2u * i + 1u) & 2047u) - 1024.0) / 1024.0`
  const code = `@group(0) @binding(0) var<storage, read_write> out : array<u32>;
${HASH}
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id : vec3<u32>, @builtin(num_workgroups) n : vec3<u32>) {
  for (var i = id.x; i < ${words}u; i += n.x * 256u) { out[i] = ${format === 'f16' ? `pack2x16float(vec2<f32>(${value}))` : '(bits(i) & 0x81ff81ffu) + 0x3c003c00u'}; }
}`
  const fill = await program.wgsl('fill', code, [buffer], () => [8192, 1, 1])
  const encoder = context.device.createCommandEncoder()
  program.encode(encoder, [fill], ONE_ROW)
  context.device.queue.submit([encoder.finish()])
  await context.settle(context.device.queue.onSubmittedWorkDone())
}

/** Copies the first `floats` float32 values of a buffer. */
export async function readBack({ context }: GpuBench, buffer: GPUBuffer, floats: number): Promise<Float32Array> {
  const staging = context.device.createBuffer({ size: floats * 4, usage: 1 | 8 })
  const encoder = context.device.createCommandEncoder()
  encoder.copyBufferToBuffer(buffer, 0, staging, 0, floats * 4)
  context.device.queue.submit([encoder.finish()])
  await context.settle(staging.mapAsync(1))
  const data = new Float32Array(staging.getMappedRange().slice(0))
  staging.destroy()
  return data
}

/** A kernel that does nothing but read a range of a buffer, in 16-byte words. */
export function readOnly(words: number): string {
  return `@group(0) @binding(0) var<storage, read> x : array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out : array<u32>;
@group(0) @binding(2) var<uniform> first : vec4<u32>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id : vec3<u32>, @builtin(num_workgroups) n : vec3<u32>) {
  let step = n.x * 256u; var sum = vec4<u32>(0u); var i = id.x;
  for (; i + 3u * step < ${words}u; i += 4u * step) { sum += (x[first.x + i] ^ x[first.x + i + step]) + (x[first.x + i + 2u * step] ^ x[first.x + i + 3u * step]); }
  for (; i < ${words}u; i += step) { sum += x[first.x + i]; }
  if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x12345u) { out[0] = 1u; }
}`
}

/** GB/s at which a kernel reads so many bytes. */
export async function gpuReadRate(adapter?: string, bytes = 2 ** 30): Promise<number> {
  const gpu = await openGpu(adapter)
  const probe = gpu.program.buffer(bytes)
  await fillRandom(gpu, probe, 'bf16')
  const read = await gpu.program.wgsl('read', readOnly(bytes / 16), [probe, gpu.program.buffer(16), gpu.program.uniform(new Uint32Array(4))], () => [
    132 * 8,
    1,
    1,
  ])
  const rate = bytes / median(await timePasses(gpu, [[read]], 10)) / 1000
  await gpu.context.destroy()
  return rate
}

/** Subgroups of a workgroup, sums of each, and rounds of `multiplyOnly`. */
const MULTIPLY = { subgroups: 8, sums: 8, rounds: 2000, workgroups: 132 * 4 }

/** A kernel that multiplies 16 x 16 matrices of float16 in registers, as products on tensor cores do, and loads nothing. */
function multiplyOnly(): string {
  const sums = Array.from({ length: MULTIPLY.sums }, (_, i) => i)
  return `enable f16; enable subgroups; enable chromium_experimental_subgroup_matrix; enable chromium_disable_uniformity_analysis;
alias Left = subgroup_matrix_left<f16, 16, 16>; alias Right = subgroup_matrix_right<f16, 16, 16>; alias Sum = subgroup_matrix_result<f32, 16, 16>;
@group(0) @binding(0) var<storage, read> x : array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out : array<f32>;
var<workgroup> tile : array<vec4<u32>, 64>;
@compute @workgroup_size(${MULTIPLY.subgroups * 32})
fn main(@builtin(local_invocation_index) lid : u32, @builtin(workgroup_id) id : vec3<u32>) {
  if (lid < 64u) { tile[lid] = x[lid]; }
  workgroupBarrier();
  let l = subgroupMatrixLoad<Left, row_major>(&tile, 0u, 2u);
  let r = subgroupMatrixLoad<Right, col_major>(&tile, 32u, 2u);
  ${sums.map((i) => `var c${i} = Sum();`).join(' ')}
  for (var n = 0u; n < ${MULTIPLY.rounds}u; n++) { ${sums.map((i) => `c${i} = subgroupMatrixMultiplyAccumulate(l, r, c${i});`).join(' ')} }
  ${sums.map((i) => `subgroupMatrixStore<row_major>(&out, (id.x * ${MULTIPLY.sums}u + ${i}u) * 256u, c${i}, 16u);`).join(' ')}
}`
}

/** GFLOP/s of matrices in registers; undefined: the device has no tensor cores. */
export async function gpuMultiplyRate(adapter?: string): Promise<number | undefined> {
  const gpu = await openGpu(adapter)
  if (!gpu.context.adapter.tensorCores) {
    await gpu.context.destroy()
    return undefined
  }
  const { subgroups, sums, rounds, workgroups } = MULTIPLY
  const x = gpu.program.buffer(1024)
  await fillRandom(gpu, x, 'f16')
  const out = gpu.program.buffer(workgroups * sums * 256 * 4)
  const multiply = await gpu.program.wgsl('multiply', multiplyOnly(), [x, out], () => [workgroups, 1, 1])
  const us = median(await timePasses(gpu, [[multiply]], 10))
  await gpu.context.destroy()
  return (2 * 16 ** 3 * subgroups * sums * rounds * workgroups) / us / 1000
}
