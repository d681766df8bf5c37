// What stands before and after attention on tensor cores: queries to f16, and the combination of parts.
import { LANES, packedQueryWidth, pad, slotsOf, type TensorShape } from './tensor-shape.js'

/** Rope queries that are rotated on their way: heads of headWidth columns from `from` on, the last 2 * half of which rotate. */
export interface UnrotatedQueries {
  readonly stride: number
  readonly from: number
  readonly headWidth: number
  readonly nope: number
  readonly half: number
  /** Columns of a head, and of its part that does not rotate, in what slots count. */
  readonly paddedWidth: number
  readonly paddedNope: number
}

/**
 * Queries of every head as f16: [groups][queryRows][rowHeads][packedQueryWidth]. bindings: count uniform, heads [query column, rope
 * column], queries (none if `ropeOnly`: the product that makes them writes them as f16), rope queries (none without rope keys), packed, and
 * with `raw` the rope table [2 * half, rows]. One thread per two scalars; workgroups: words (packedWords) by heads by rows.
 */
export function packQueries(shape: TensorShape, raw?: UnrotatedQueries, ropeOnly = false): string {
  const width = packedQueryWidth(shape)
  const { keyWidth, ropeDim, queryWidth, ropeWidth, rowHeads, queryRows } = shape
  const ropeFrom = pad(keyWidth)
  return `
@group(0) @binding(0) var<uniform> count : vec4<u32>;
@group(0) @binding(1) var<storage, read> slots : array<vec2<i32>>;
${ropeOnly ? '' : '@group(0) @binding(2) var<storage, read> q : array<f32>;'}
${ropeDim > 0 ? '@group(0) @binding(3) var<storage, read> qr : array<f32>;' : ''}
@group(0) @binding(4) var<storage, read_write> packed : array<u32>;
${
  raw
    ? `@group(0) @binding(5) var<storage, read> table : array<f32>;
fn rotated(row : u32, head : u32, c : u32) -> f32 {
  let at = row * ${raw.stride}u + ${raw.from + raw.nope}u + head * ${raw.headWidth}u; let t = row * ${2 * raw.half}u;
  if (c < ${raw.half}u) { return qr[at + c] * table[t + c] - qr[at + c + ${raw.half}u] * table[t + c + ${raw.half}u]; }
  return qr[at + c - ${raw.half}u] * table[t + c] + qr[at + c] * table[t + c - ${raw.half}u];
}`
    : ''
}
fn value(row : u32, slot : vec2<i32>, c : u32) -> f32 {
  ${ropeOnly ? '' : `if (c < ${keyWidth}u) { return q[row * ${queryWidth}u + u32(slot.x) + c]; }`}
  ${ropeDim > 0 ? `if (c >= ${ropeFrom}u && c < ${ropeFrom + ropeDim}u) { return ${raw ? `rotated(row, (u32(slot.y) - ${raw.paddedNope}u) / ${raw.paddedWidth}u, c - ${ropeFrom}u)` : `qr[row * ${ropeWidth}u + u32(slot.y) + c - ${ropeFrom}u]`}; }` : ''}
  return 0.0;
}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id : vec3<u32>) {
  if (id.x >= ${packedWords(shape, ropeOnly)}u || id.z >= count.x) { return; }
  let word = id.x + ${ropeOnly ? ropeFrom / 2 : 0}u;
  let slot = slots[id.y];
  let at = ((id.y / ${rowHeads}u * ${queryRows}u + id.z) * ${rowHeads}u + id.y % ${rowHeads}u) * ${width / 2}u + word;
  if (slot.y < 0) { packed[at] = 0u; return; }
  packed[at] = pack2x16float(vec2<f32>(value(id.z, slot, 2u * word), value(id.z, slot, 2u * word + 1u)));
}
`
}

/** Words of a head that packQueries writes. */
export function packedWords(shape: TensorShape, ropeOnly: boolean): number {
  return (packedQueryWidth(shape) - (ropeOnly ? pad(shape.keyWidth) : 0)) / 2
}

/** The table of slots that packQueries reads. */
export function slotTable({ slots }: TensorShape): Uint32Array {
  return new Uint32Array(Int32Array.from(slots.flatMap((slot) => (slot ? [slot.query, slot.rope] : [0, -1]))).buffer)
}

/** Sums of one vector of columns: each takes every COMBINERS-th part in ascending order, then they are added in a fixed tree. */
const COMBINERS = 16
const THREADS = 256
/** Vectors of a workgroup where a thread has one of the sums; with few parts it has all of them. */
const COMBINED = THREADS / COMBINERS
const SUBGROUPS = THREADS / LANES
/** The most parts that one thread combines alone. */
export const FEW_PARTS = 32

const times = (n: number, line: (i: number) => string, separator = ' ') => Array.from({ length: n }, (_, i) => line(i)).join(separator)

/** Vectors of a workgroup's columns. */
function vectorsOfGroup(valueWidth: number, few: boolean): number {
  return few ? Math.min(THREADS, 2 ** Math.ceil(Math.log2(pad(valueWidth) / 4))) : COMBINED
}

/** Workgroups of combineTensorParts along heads, of all groups, and along columns. */
export function combineGroups({ slots, valueWidth }: TensorShape, few: boolean): readonly [number, number] {
  const vectors = vectorsOfGroup(valueWidth, few)
  return [few ? Math.ceil(slots.length / (THREADS / vectors)) : slots.length, Math.ceil(pad(valueWidth) / 4 / vectors)]
}

/**
 * Attention of the whole context from its parts, for entries of up to `rows` rows. bindings: rows, entries, z, state, out [rows][groups]
 * [groupHeads][packedValueWidth], round, sizes (see tensorAttention). `few`: for rows of up to FEW_PARTS parts; the order of sums is the
 * same. Workgroups: combineGroups by rows of the round's entries.
 */
export function combineTensorParts(shape: TensorShape, rows: number, few: boolean): string {
  const { valueWidth, groups, groupHeads, rowHeads, slots } = shape
  const vectors = pad(valueWidth) / 4
  const H = slotsOf(shape, rows)
  const wide = vectorsOfGroup(valueWidth, few)
  const one = (sum: string, weight: string, e = 'exp2(s.x - m)') =>
    `let at = base + i * step; let s = state[at]; let e = ${e}; ${sum} = fma(vec4<f32>(e), z[at * ${vectors}u + column], ${sum}); ${weight} = fma(e, s.y, ${weight});`
  const tree: string[] = []
  for (let k = COMBINERS / 2; k >= 1; k /= 2) tree.push(times(k, (i) => `sum${i} += sum${i + k}; weight${i} += weight${i + k};`))
  const store = (sum: string, weight: string) =>
    `out[(row * ${groups.length * groupHeads}u + group * ${groupHeads}u + head) * ${vectors}u + column] = ${sum} / ${weight};`
  const head = few ? `id.x * ${THREADS / wide}u + lid / ${wide}u` : 'id.x'
  return `enable subgroups;
@group(0) @binding(0) var<storage, read> rows : array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> entries : array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> z : array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> state : array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> out : array<vec4<f32>>;
@group(0) @binding(5) var<uniform> round : vec4<u32>;
@group(0) @binding(6) var<uniform> sizes : vec4<u32>;
${few ? '' : `var<workgroup> most : array<f32, ${SUBGROUPS}>; var<workgroup> scalars : array<f32, ${THREADS}>; var<workgroup> vectors : array<vec4<f32>, ${THREADS}>;`}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) id : vec3<u32>, @builtin(subgroup_id) sg : u32, @builtin(subgroup_invocation_id) lane : u32) {
  let lid = sg * ${LANES}u + lane;
  let inRound = id.z / ${rows}u; let own = id.z % ${rows}u;
  let entry = entries[round.x * sizes.x + inRound];
  if (own >= entry.y) { return; }
  let row = entry.x + own;
  let count = rows[row].w;
  let slot = ${head};
  let group = slot / ${rowHeads}u; let head = slot % ${rowHeads}u;
  let step = ${groups.length * H}u;
  let base = inRound * sizes.y * step + group * ${H}u + own * ${rowHeads}u + head;
  ${
    few
      ? `let column = id.y * ${wide}u + lid % ${wide}u;
  if (slot >= ${slots.length}u || column >= ${vectors}u) { return; }
  var m = state[base].x;
  for (var i = 1u; i < count; i++) { m = max(m, state[base + i * step].x); }
  ${times(COMBINERS, (i) => `var sum${i} = vec4<f32>(0.0); var weight${i} = 0.0;`)}
  // Sums without a part stay 0.
  if (count <= ${COMBINERS / 2}u) {
    ${times(COMBINERS / 2, (k) => `{ let i = min(${k}u, count - 1u); let own = ${k}u < count; ${one(`sum${k}`, `weight${k}`, 'select(0.0, exp2(s.x - m), own)')} }`, '\n    ')}
  } else { for (var first = 0u; first < count; first += ${COMBINERS}u) {
    ${times(COMBINERS, (k) => `{ let i = min(first + ${k}u, count - 1u); let own = first + ${k}u < count; ${one(`sum${k}`, `weight${k}`, 'select(0.0, exp2(s.x - m), own)')} }`, '\n    ')}
  } }
  ${tree.join('\n  ')}
  ${store('sum0', 'weight0')}`
      : `var largest = -3.0e38;
  for (var i = lid; i < count; i += ${THREADS}u) { largest = max(largest, state[base + i * step].x); }
  largest = subgroupMax(largest);
  if (lane == 0u) { most[sg] = largest; }
  workgroupBarrier();
  var m = most[0];
  for (var i = 1u; i < ${SUBGROUPS}u; i++) { m = max(m, most[i]); }
  let column = id.y * ${COMBINED}u + lid % ${COMBINED}u;
  var sum = vec4<f32>(0.0); var weight = 0.0;
  if (column < ${vectors}u) { for (var i = lid / ${COMBINED}u; i < count; i += ${COMBINERS}u) { ${one('sum', 'weight')} } }
  vectors[lid] = sum; scalars[lid] = weight;
  workgroupBarrier();
  for (var k = ${THREADS / 2}u; k >= ${COMBINED}u; k >>= 1u) { if (lid < k) { vectors[lid] += vectors[lid + k]; scalars[lid] += scalars[lid + k]; } workgroupBarrier(); }
  if (lid < ${COMBINED}u && column < ${vectors}u) { ${store('vectors[lid]', 'scalars[lid]')} }`
  }
}
`
}
