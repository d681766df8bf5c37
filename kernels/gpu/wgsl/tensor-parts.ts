// The kernels before and after attention on tensor cores: queries to f16, and the combination of parts.
import { packedQueryWidth, pad, type TensorShape } from './tensor-shape.js'

/**
 * Queries of every slot as f16: [rows][slots][packedQueryWidth]. bindings: count uniform, slots [query column, rope column], queries,
 * rope queries (none without rope keys), packed. One thread per two scalars; workgroups: words by slots by rows.
 */
export function packQueries(shape: TensorShape): string {
  const width = packedQueryWidth(shape)
  const { keyWidth, ropeDim, queryWidth, ropeWidth } = shape
  const ropeFrom = pad(keyWidth)
  return `
@group(0) @binding(0) var<uniform> count : vec4<u32>;
@group(0) @binding(1) var<storage, read> slots : array<vec2<i32>>;
@group(0) @binding(2) var<storage, read> q : array<f32>;
${ropeDim > 0 ? '@group(0) @binding(3) var<storage, read> qr : array<f32>;' : ''}
@group(0) @binding(4) var<storage, read_write> packed : array<u32>;
fn value(row : u32, slot : vec2<i32>, c : u32) -> f32 {
  if (c < ${keyWidth}u) { return q[row * ${queryWidth}u + u32(slot.x) + c]; }
  ${ropeDim > 0 ? `if (c >= ${ropeFrom}u && c < ${ropeFrom + ropeDim}u) { return qr[row * ${ropeWidth}u + u32(slot.y) + c - ${ropeFrom}u]; }` : ''}
  return 0.0;
}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id : vec3<u32>) {
  if (id.x >= ${width / 2}u || id.z >= count.x) { return; }
  let slot = slots[id.y];
  let at = (id.z * ${shape.slots.length}u + id.y) * ${width / 2}u + id.x;
  if (slot.y < 0) { packed[at] = 0u; return; }
  packed[at] = pack2x16float(vec2<f32>(value(id.z, slot, 2u * id.x), value(id.z, slot, 2u * id.x + 1u)));
}
`
}

/** The table of slots that packQueries reads. */
export function slotTable({ slots }: TensorShape): Uint32Array {
  return new Uint32Array(Int32Array.from(slots.flatMap((slot) => (slot ? [slot.query, slot.rope] : [0, -1]))).buffer)
}

/** Lanes that share the parts of one vector of columns, and vectors of a workgroup. */
const COMBINERS = 32
const COMBINED = 8

/**
 * Attention of the whole context from its parts. bindings: rows, z, state, out [rows][slots][packedValueWidth], uniform [first row, 0, 0, 0].
 * Each of COMBINERS lanes takes every COMBINERS-th part in ascending order, then lanes are added in a fixed tree.
 * Workgroups: slots by groups of 4 * COMBINED columns by rows.
 */
export function combineTensorParts({ valueWidth, slots, parts }: TensorShape): string {
  const threads = COMBINERS * COMBINED
  const vectors = pad(valueWidth) / 4
  const S = slots.length
  return `
@group(0) @binding(0) var<storage, read> rows : array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> z : array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> state : array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> out : array<vec4<f32>>;
@group(0) @binding(4) var<uniform> first : vec4<u32>;
var<workgroup> scalars : array<f32, ${threads}>;
var<workgroup> vectors : array<vec4<f32>, ${threads}>;
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) id : vec3<u32>, @builtin(local_invocation_index) lid : u32) {
  let count = rows[first.x + id.z].w;
  let base = id.z * ${parts * S}u + id.x;
  var most = -3.0e38;
  for (var i = lid; i < count; i += ${threads}u) { most = max(most, state[base + i * ${S}u].x); }
  scalars[lid] = most;
  workgroupBarrier();
  for (var k = ${threads / 2}u; k > 0u; k >>= 1u) { if (lid < k) { scalars[lid] = max(scalars[lid], scalars[lid + k]); } workgroupBarrier(); }
  let m = scalars[0];
  workgroupBarrier();
  let column = id.y * ${COMBINED}u + lid % ${COMBINED}u;
  var sum = vec4<f32>(0.0); var weight = 0.0;
  if (column < ${vectors}u) {
    for (var i = lid / ${COMBINED}u; i < count; i += ${COMBINERS}u) {
      let at = base + i * ${S}u; let s = state[at]; let e = exp2(s.x - m);
      sum += e * z[at * ${vectors}u + column]; weight += e * s.y;
    }
  }
  vectors[lid] = sum; scalars[lid] = weight;
  workgroupBarrier();
  for (var k = ${threads / 2}u; k >= ${COMBINED}u; k >>= 1u) { if (lid < k) { vectors[lid] += vectors[lid + k]; scalars[lid] += scalars[lid + k]; } workgroupBarrier(); }
  if (lid < ${COMBINED}u && column < ${vectors}u) { out[((first.x + id.z) * ${S}u + id.x) * ${vectors}u + column] = vectors[lid] / scalars[lid]; }
}
`
}

/** Workgroups of combineTensorParts along columns. */
export function combineGroups(valueWidth: number): number {
  return Math.ceil(pad(valueWidth) / 4 / COMBINED)
}
