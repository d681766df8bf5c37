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
 * column], queries, rope queries (none without rope keys), packed. One thread per two scalars; workgroups: words of a head, 64 at a time,
 * by heads by rows.
 */
export function packQueries(shape: TensorShape): string {
  const width = packedQueryWidth(shape)
  const { keyWidth, ropeDim, queryWidth, ropeWidth, rowHeads, queryRows } = shape
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
  let at = ((id.y / ${rowHeads}u * ${queryRows}u + id.z) * ${rowHeads}u + id.y % ${rowHeads}u) * ${width / 2}u + id.x;
  if (slot.y < 0) { packed[at] = 0u; return; }
  packed[at] = pack2x16float(vec2<f32>(value(id.z, slot, 2u * id.x), value(id.z, slot, 2u * id.x + 1u)));
}
`
}

/**
 * The rope columns of packed queries, rotated, where the product that makes the others writes those: for a kernel that has work of its own
 * besides. It calls `ropes(row, i)` for every i below `words`. Bindings from `first` on: heads, queries, packed; the kernel's `table` is the rope
 * table [2 * half, rows].
 */
export function ropeQueries(shape: TensorShape, raw: UnrotatedQueries, first: number): { readonly code: string; readonly words: number } {
  const width = packedQueryWidth(shape)
  const { keyWidth, ropeDim, rowHeads, queryRows } = shape
  const words = pad(ropeDim) / 2
  const { stride, from, nope, headWidth, half, paddedNope, paddedWidth } = raw
  const code = `
@group(0) @binding(${first}) var<storage, read> slots : array<vec2<i32>>;
@group(0) @binding(${first + 1}) var<storage, read> qr : array<f32>;
@group(0) @binding(${first + 2}) var<storage, read_write> packed : array<u32>;
fn ropeQuery(row : u32, head : u32, c : u32) -> f32 {
  if (c >= ${ropeDim}u) { return 0.0; }
  let at = row * ${stride}u + ${from + nope}u + head * ${headWidth}u; let t = row * ${2 * half}u;
  if (c < ${half}u) { return qr[at + c] * table[t + c] - qr[at + c + ${half}u] * table[t + c + ${half}u]; }
  return qr[at + c - ${half}u] * table[t + c] + qr[at + c] * table[t + c - ${half}u];
}
fn ropes(row : u32, i : u32) {
  let head = i / ${words}u; let word = i % ${words}u; let slot = slots[head];
  let at = ((head / ${rowHeads}u * ${queryRows}u + row) * ${rowHeads}u + head % ${rowHeads}u) * ${width / 2}u + ${pad(keyWidth) / 2}u + word;
  if (slot.y < 0) { packed[at] = 0u; return; }
  let own = (u32(slot.y) - ${paddedNope}u) / ${paddedWidth}u;
  packed[at] = pack2x16float(vec2<f32>(ropeQuery(row, own, 2u * word), ropeQuery(row, own, 2u * word + 1u)));
}`
  return { code, words: words * shape.slots.length }
}

/** The table of slots that packQueries and ropeQueries read. */
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
  const halves = Array.from({ length: Math.log2(COMBINERS) }, (_, i) => COMBINERS >> (i + 1))
  const tree = (name: string) => halves.map((half) => times(half, (i) => `${name}${i} += ${name}${i + half};`)).join(' ')
  const store = (sum: string, weight: string) =>
    `out[(row * ${groups.length * groupHeads}u + group * ${groupHeads}u + head) * ${vectors}u + column] = ${sum} / ${weight};`
  /** A thread reads the states of all parts. */
  const alone = `let column = id.y * ${wide}u + lid % ${wide}u;
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
  ${tree('sum')} ${tree('weight')}
  ${store('sum0', 'weight0')}`
  /** A subgroup has one head: each lane reads the state of a part, and the parts' sums are on their way at the same time. */
  const batch = (first: number, n: number) =>
    times(
      n,
      (k) =>
        `sum${k} = fma(vec4<f32>(subgroupShuffle(e, ${first + k}u)), z[(base + min(${first + k}u, count - 1u) * step) * ${vectors}u + column], sum${k});`,
      '\n    ',
    )
  const together = `let wanted = id.y * ${wide}u + lid % ${wide}u; let column = min(wanted, ${vectors - 1}u);
  if (slot >= ${slots.length}u) { return; }
  let s = state[base + min(lane, count - 1u) * step]; let m = subgroupMax(s.x); let e = select(0.0, exp2(s.x - m), lane < count);
  ${times(COMBINERS, (i) => `var sum${i} = vec4<f32>(0.0);`)}
  if (count <= ${COMBINERS / 2}u) {
    ${batch(0, COMBINERS / 2)}
  } else {
    ${batch(0, COMBINERS)}
    if (count > ${COMBINERS}u) {
    ${batch(COMBINERS, COMBINERS)} }
  }
  var weight = fma(subgroupShuffleXor(e, ${COMBINERS}u), subgroupShuffleXor(s.y, ${COMBINERS}u), fma(e, s.y, 0.0));
  ${halves.map((half) => `weight += subgroupShuffleXor(weight, ${half}u);`).join(' ')}
  ${tree('sum')}
  weight = subgroupShuffle(weight, 0u);
  if (wanted < ${vectors}u) { ${store('sum0', 'weight')} }`
  const head = !few ? 'id.x' : wide < LANES ? `id.x * ${THREADS / wide}u + lid / ${wide}u` : `id.x * ${THREADS / wide}u + sg / ${wide / LANES}u`
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
      ? wide < LANES
        ? alone
        : together
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
