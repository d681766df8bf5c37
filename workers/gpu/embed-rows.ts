// The first dispatch of a step whose embeddings come as bf16: widens them to the residual, exactly.
import type { Dispatch, ProgramParts } from '../../kernels/gpu/program.js'
import type { GpuBuffers } from './buffers.js'
import { Embeddings } from './embeddings.js'
import type { GpuPlan } from './plan.js'

const THREADS = 256

/** bindings: bf16 [words, rows], two a word; x [width, rows]. Workgroups: words by rows. */
export function widenRows(width: number): string {
  const words = Embeddings.words(width)
  return `
@group(0) @binding(0) var<storage, read> packed : array<u32>;
@group(0) @binding(1) var<storage, read_write> x : array<f32>;
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id : vec3<u32>) {
  if (id.x >= ${words}u) { return; }
  let pair = packed[id.y * ${words}u + id.x]; let at = id.y * ${width}u + 2u * id.x;
  x[at] = bitcast<f32>(pair << 16u);
  if (2u * id.x + 1u < ${width}u) { x[at + 1u] = bitcast<f32>(pair & 0xffff0000u); }
}
`
}

export function embedRows(program: ProgramParts, { shape }: GpuPlan, { embeddings, residual }: GpuBuffers): Promise<Dispatch> {
  const groups = Math.ceil(Embeddings.words(shape.embed) / THREADS)
  return program.wgsl('embedding', widenRows(shape.embed), [embeddings, residual.buffer], ({ rows }) => [groups, rows, 1])
}
