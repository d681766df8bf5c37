// Matrix times rows, over the packed tiles that the CPU kernels read (kernels/weight-formats.ts). The stored bytes are read and unpacked
// here, once for up to MATMUL_ROWS rows. One pipeline for each format serves every number of rows, so a row has the same bits alone or with
// others (docs/determinism.md, rule 7). Order of a sum over k: each of 64 lanes takes every 64th column (int8: group of 4 columns) in
// ascending order, then the sums of the lanes are added in a fixed tree.
import { packedBytes } from '../../packing.js'
import type { WeightFormat } from '../../weight-format.js'
import { WEIGHT_FORMATS } from '../../weight-formats.js'

/** Rows of activations that share one read of a tile. */
export const MATMUL_ROWS = 4
const THREADS = 256

/** Rows of outputs of one workgroup. */
export function tileRows(format: WeightFormat): number {
  return WEIGHT_FORMATS[format].tileRows
}

/** Bytes of a tile of k columns. */
export function tileBytes(format: WeightFormat, k: number): number {
  return packedBytes(tileRows(format), k, format)
}

/** Words of a tile in the table: [first 16-byte word of the weights, first column of x, first column of y, k, valid rows, 0, 0, 0]. */
export const TILE_WORDS = 8

const times = (n: number, line: (i: number) => string) => Array.from({ length: n }, (_, i) => line(i)).join('\n')

/** Adds this thread's columns, ascending, to lo<t> (and hi<t>) of every row of activations. */
function loop(format: WeightFormat, normed: boolean): string {
  const { load, use, threads, count, position } = WEIGHT_FORMATS[format].wgsl
  const ofRows = (rows: number) => `
    for (var c = lid / ${threads}u; c < all; c += ${THREADS / threads}u) {
      ${load}
      ${times(rows, (t) => (t === 0 ? use(t, normed) : `if (${t}u < rows) ${use(t, normed)}`))}
    }`
  // The same sums for one row of activations as for several: only the test of `rows` in between differs.
  return `
  let all = ${count};
  ${position}
  if (rows == 1u) { ${ofRows(1)} } else { ${ofRows(MATMUL_ROWS)} }`
}

/**
 * bindings: dims uniform [x stride, y stride, 0, 0], count uniform, weights, tiles, x, y, and normed: the norm's weight.
 * epsilon, if given: x is RMS-normed first: products with x * weight, divided by sqrt(mean of x's squares + epsilon) at the end.
 * Workgroups: tiles by groups of MATMUL_ROWS rows.
 */
export function packedMatmul(format: WeightFormat, epsilon?: number): string {
  const normed = epsilon !== undefined
  const { wgsl } = WEIGHT_FORMATS[format]
  const out = tileRows(format)
  // Partial sums: [64 lanes][out rows].
  const lanes = 64
  const parts = THREADS / out
  const each = lanes / parts
  const { lane } = wgsl
  const two = wgsl.sums === 2
  const put = (t: number) =>
    (normed ? `if (quad == 0u) { squares[${lane}] = square${t}; } ` : '') +
    (two
      ? `partial[(${lane}) * 8u + quad * 2u] = lo${t}; partial[(${lane}) * 8u + quad * 2u + 1u] = hi${t};`
      : `partial[(${lane}) * 4u + quad] = lo${t};`)
  return `
struct Tile { w : u32, x : u32, y : u32, k : u32, rows : u32, a : u32, b : u32, c : u32 }
@group(0) @binding(0) var<uniform> dims : vec4<u32>;
@group(0) @binding(1) var<uniform> count : vec4<u32>;
@group(0) @binding(2) var<storage, read> w : array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> tiles : array<Tile>;
@group(0) @binding(4) var<storage, read> xs : array<f32>;
@group(0) @binding(5) var<storage, read_write> ys : array<f32>;
${normed ? '@group(0) @binding(6) var<storage, read> norm : array<f32>;' : ''}
var<workgroup> partial : array<vec4<f32>, ${(lanes * out) / 4}>;
var<workgroup> sums : array<f32, ${THREADS}>;
${normed ? `var<workgroup> squares : array<f32, ${lanes}>; var<workgroup> squareSums : array<f32, ${parts}>;` : ''}
${wgsl.functions(normed)}
@compute @workgroup_size(${THREADS})
fn main(@builtin(local_invocation_index) lid : u32, @builtin(workgroup_id) group_id : vec3<u32>) {
  let tile = tiles[group_id.x];
  let k = tile.k; let first = tile.w;
  let row0 = group_id.y * ${MATMUL_ROWS}u; let rows = min(${MATMUL_ROWS}u, count.x - row0);
  let xFirst = tile.x + row0 * dims.x;
  ${times(MATMUL_ROWS, (t) => `var lo${t} = vec4<f32>(0.0);${two ? ` var hi${t} = vec4<f32>(0.0);` : ''}${normed ? ` var square${t} = 0.0;` : ''}`)}
  ${loop(format, normed)}
  ${times(
    MATMUL_ROWS,
    (t) => `if (${t}u < rows) {
    ${put(t)}
    workgroupBarrier();
    { let r = lid % ${out}u; let part = lid / ${out}u; var sum = 0.0;
      for (var i = 0u; i < ${each}u; i++) { sum += partial[(part * ${each}u + i) * ${out / 4}u + r / 4u][r % 4u]; }
      sums[lid] = sum;
      ${normed ? `if (r == 0u) { var total = 0.0; for (var i = 0u; i < ${each}u; i++) { total += squares[part * ${each}u + i]; } squareSums[part] = total; }` : ''} }
    workgroupBarrier();
    if (lid < tile.rows) { var sum = 0.0; for (var i = 0u; i < ${parts}u; i++) { sum += sums[i * ${out}u + lid]; }
      ${normed ? `var total = 0.0; for (var i = 0u; i < ${parts}u; i++) { total += squareSums[i]; } sum /= sqrt(total / f32(k) + ${epsilon});` : ''}
      ys[tile.y + (row0 + ${t}u) * dims.y + lid] = sum; }
    workgroupBarrier();
  }`,
  )}
}
`
}
