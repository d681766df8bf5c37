// Packed bf16 weights (kernels/packing.ts) to the float16 tiles that products on tensor cores read, on the device.
import { SIDE, TILE_VECTORS, VECTORS_PER_SCALE } from './tensor-matmul-shape.js'

const THREADS = 256

/** One matrix to convert; words are u32 of packed weights, vectors are vec4<u32> of tiles. */
export interface Repack {
  /** First word of the packed matrix. */
  readonly from: number
  /** First vector of the tiles. */
  readonly to: number
  readonly rows: number
  readonly cols: number
}

/** u32 of an entry: from, to, rows, cols, panel, 0, 0, 0. */
export const REPACK_WORDS = 8

/** One entry a panel of 16 rows. */
export function repackTable(matrices: readonly Repack[]): Uint32Array {
  const entries = matrices.flatMap(({ from, to, rows, cols }) =>
    Array.from({ length: Math.ceil(rows / SIDE) }, (_, panel) => [from, to, rows, cols, panel, 0, 0, 0]),
  )
  return Uint32Array.from(entries.flat())
}

/**
 * bindings: packed words, entries, tiles, scales, uniform [first entry, 0, 0, 0]. Workgroups: entries.
 * A row w becomes float16 of w * 2^e, where e takes its largest magnitude to 2^14..2^15, and its scale is 2^-e: no weight is beyond
 * float16, and weights down to 2^-30 of the row's largest keep all 8 bits of bf16.
 */
export function repackWeights(steps: number): string {
  return `
struct Entry { source : u32, to : u32, rows : u32, cols : u32, panel : u32, a : u32, b : u32, c : u32 }
@group(0) @binding(0) var<storage, read> packed : array<u32>;
@group(0) @binding(1) var<storage, read> entries : array<Entry>;
@group(0) @binding(2) var<storage, read_write> tiles : array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> scales : array<f32>;
@group(0) @binding(4) var<uniform> first : vec4<u32>;
var<workgroup> most : array<u32, ${THREADS}>;
// Bits of bf16 (row r of a panel, column c), in the high half.
fn bits(e : Entry, r : u32, c : u32) -> u32 {
  let row = e.panel * ${SIDE}u + r;
  if (row >= e.rows || c >= e.cols) { return 0u; }
  let inTile = row % 32u;
  let word = packed[e.source + (row / 32u * e.cols + c) * 16u + inTile / 8u * 4u + inTile % 4u];
  return select(word << 16u, word & 0xffff0000u, inTile / 4u % 2u == 1u);
}
@compute @workgroup_size(${THREADS})
fn main(@builtin(local_invocation_index) lid : u32, @builtin(workgroup_id) id : vec3<u32>) {
  let e = entries[first.x + id.x];
  var largest = 0u;
  for (var c = lid / ${SIDE}u; c < e.cols; c += ${THREADS / SIDE}u) { largest = max(largest, bits(e, lid % ${SIDE}u, c) & 0x7fffffffu); }
  most[lid] = largest;
  workgroupBarrier();
  for (var n = ${THREADS / 2}u; n >= ${SIDE}u; n >>= 1u) { if (lid < n) { most[lid] = max(most[lid], most[lid + n]); } workgroupBarrier(); }
  let row = lid / 2u % ${SIDE}u; let to = e.to + e.panel * ${steps * TILE_VECTORS}u;
  // 2^14 over the power of two below the largest; 1 for rows of zeros.
  let exponent = clamp(141 - i32(most[row] >> 23u), -100, 100);
  let up = select(bitcast<f32>(u32(127 + exponent) << 23u), 1.0, most[row] == 0u);
  if (lid < 2u * ${SIDE}u && lid % 2u == 0u && e.panel * ${SIDE}u + row < e.rows) { scales[to / ${VECTORS_PER_SCALE}u + row] = 1.0 / up; }
  for (var v = lid; v < ${steps * TILE_VECTORS}u; v += ${THREADS}u) {
    let c = v / ${TILE_VECTORS}u * ${SIDE}u + v % 2u * 8u;
    var out = vec4<u32>();
    for (var i = 0u; i < 4u; i++) {
      out[i] = pack2x16float(vec2<f32>(bitcast<f32>(bits(e, row, c + 2u * i)), bitcast<f32>(bits(e, row, c + 2u * i + 1u))) * up);
    }
    tiles[to + v] = out;
  }
}
`
}
