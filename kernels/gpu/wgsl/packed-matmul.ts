// Matrix times rows, over the packed tiles that the CPU kernels read (kernels/packing.ts, int8-packing.ts): the stored bytes are
// read and unpacked here, once for up to ROWS rows. One pipeline per format for every number of rows, so a row has the same
// bits alone or among others (design rule 7). A sum over k is: each of LANES threads takes every LANES-th column in ascending order,
// then the lanes' sums are added in a fixed tree.
import { INT8_BLOCK_BYTES, INT8_TILE_ROWS } from '../../int8-packing.js'
import { TILE_ROWS, type WeightFormat } from '../../packing.js'

/** Rows of activations that share one read of a tile. */
export const MATMUL_ROWS = 4
const THREADS = 256

/** Rows of outputs of one workgroup. */
export function tileRows(format: WeightFormat): number {
  return format === 'int8' ? INT8_TILE_ROWS : TILE_ROWS
}

/** Bytes of a tile of k columns. */
export function tileBytes(format: WeightFormat, k: number): number {
  if (format === 'int8') return Math.ceil(k / 32) * INT8_BLOCK_BYTES
  return TILE_ROWS * k * (format === 'bf16' ? 2 : 4)
}

/** A tile as the kernel takes it: [first 16-byte word of the weights, first column of x, first column of y, k, valid rows, 0, 0, 0]. */
export const TILE_WORDS = 8

const times = (n: number, line: (i: number) => string) => Array.from({ length: n }, (_, i) => line(i)).join('\n')

/** What a thread does with one column (int8: block of 32) c: its loads, and the products with row t of activations. */
interface Column {
  readonly load: string
  readonly use: (t: number, normed: boolean) => string
}

/** x of one column; normed: times the norm's weight, its square added before. */
const scalar = (t: number, normed: boolean) => {
  const x = `xs[xFirst + ${t}u * dims.x + c]`
  return normed ? `let v = ${x}; square${t} = fma(v, v, square${t}); let x = vec4<f32>(v * norm[c]);` : `let x = vec4<f32>(${x});`
}

const COLUMNS: Readonly<Record<WeightFormat, Column>> = {
  bf16: {
    load: 'let w0 = w[first + c * 4u + quad]; let low = bitcast<vec4<f32>>(w0 << vec4<u32>(16u)); let high = bitcast<vec4<f32>>(w0 & vec4<u32>(0xffff0000u));',
    use: (t, normed) => `{ ${scalar(t, normed)} lo${t} = fma(low, x, lo${t}); hi${t} = fma(high, x, hi${t}); }`,
  },
  f32: {
    load: 'let low = bitcast<vec4<f32>>(w[first + c * 8u + quad * 2u]); let high = bitcast<vec4<f32>>(w[first + c * 8u + quad * 2u + 1u]);',
    use: (t, normed) => `{ ${scalar(t, normed)} lo${t} = fma(low, x, lo${t}); hi${t} = fma(high, x, hi${t}); }`,
  },
  // In a block of 32 columns 32 threads: 8 groups of 4 columns x 4 quads of rows.
  int8: {
    load: 'let w0 = w[first + c * 38u + inBlock]; let scale = bitcast<vec4<f32>>(w[first + c * 38u + 32u + quad]);',
    use: (t, normed) => `{ let v = column4(xFirst + ${t}u * dims.x, c * 32u + group * 4u, k);
      ${normed ? `square${t} += dot(v, v); let x = v * norm4(c * 32u + group * 4u, k);` : 'let x = v;'}
      lo${t} = fma(scale, vec4<f32>(dot(unpack4xI8f(w0.x), x), dot(unpack4xI8f(w0.y), x), dot(unpack4xI8f(w0.z), x), dot(unpack4xI8f(w0.w), x)), lo${t}); }`,
  },
}

/** Adds this thread's columns, ascending, to lo<t> and hi<t> (8 rows; int8: lo<t>, 4 rows) of every row of activations. */
function loop(format: WeightFormat, normed: boolean): string {
  const { load, use } = COLUMNS[format]
  const int8 = format === 'int8'
  const stride = THREADS / (int8 ? 32 : 4)
  const ofRows = (rows: number) => `
    for (var c = ${int8 ? 'lid / 32u' : 'lid / 4u'}; c < all; c += ${stride}u) {
      ${load}
      ${times(rows, (t) => (t === 0 ? use(t, normed) : `if (${t}u < rows) ${use(t, normed)}`))}
    }`
  // The same sums for one row of activations as for several: only what is asked in between differs.
  return `
  let all = ${int8 ? '(k + 31u) / 32u' : 'k'};
  ${int8 ? 'let inBlock = lid % 32u; let group = inBlock / 4u; let quad = inBlock % 4u;' : 'let quad = lid % 4u;'}
  if (rows == 1u) { ${ofRows(1)} } else { ${ofRows(MATMUL_ROWS)} }`
}

/**
 * bindings: dims uniform [x stride, y stride, 0, 0], count uniform, weights, tiles, x, y, and normed: the norm's weight.
 * epsilon, if given: x is RMS-normed on its way in: products with x * weight, divided by sqrt(mean of x's squares + epsilon) at the end.
 * Workgroups: tiles by groups of MATMUL_ROWS rows.
 */
export function packedMatmul(format: WeightFormat, epsilon?: number): string {
  const normed = epsilon !== undefined
  const int8 = format === 'int8'
  const out = tileRows(format)
  // Sums of the lanes meet here: [64 lanes][out rows].
  const lanes = 64
  const parts = THREADS / out
  const each = lanes / parts
  const lane = int8 ? 'lid / 32u * 8u + group' : 'lid / 4u'
  const put = (t: number) =>
    (normed ? `if (quad == 0u) { squares[${lane}] = square${t}; } ` : '') +
    (int8
      ? `partial[(${lane}) * 4u + quad] = lo${t};`
      : `partial[(${lane}) * 8u + quad * 2u] = lo${t}; partial[(${lane}) * 8u + quad * 2u + 1u] = hi${t};`)
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
${
  int8
    ? `fn unpack4xI8f(v : u32) -> vec4<f32> { return vec4<f32>(vec4<i32>(i32(v << 24u), i32(v << 16u), i32(v << 8u), i32(v)) >> vec4<u32>(24u)); }
fn column4(at : u32, c : u32, k : u32) -> vec4<f32> {
  if (c + 4u <= k) { return vec4<f32>(xs[at + c], xs[at + c + 1u], xs[at + c + 2u], xs[at + c + 3u]); }
  var v = vec4<f32>(0.0);
  if (c < k) { v.x = xs[at + c]; } if (c + 1u < k) { v.y = xs[at + c + 1u]; } if (c + 2u < k) { v.z = xs[at + c + 2u]; }
  return v;
}
${
  normed
    ? `fn norm4(c : u32, k : u32) -> vec4<f32> {
  let last = k - 1u;
  return vec4<f32>(norm[min(c, last)], norm[min(c + 1u, last)], norm[min(c + 2u, last)], norm[min(c + 3u, last)]);
}`
    : ''
}`
    : ''
}
@compute @workgroup_size(${THREADS})
fn main(@builtin(local_invocation_index) lid : u32, @builtin(workgroup_id) group_id : vec3<u32>) {
  let tile = tiles[group_id.x];
  let k = tile.k; let first = tile.w;
  let row0 = group_id.y * ${MATMUL_ROWS}u; let rows = min(${MATMUL_ROWS}u, count.x - row0);
  let xFirst = tile.x + row0 * dims.x;
  ${times(MATMUL_ROWS, (t) => `var lo${t} = vec4<f32>(0.0);${int8 ? '' : ` var hi${t} = vec4<f32>(0.0);`}${normed ? ` var square${t} = 0.0;` : ''}`)}
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
