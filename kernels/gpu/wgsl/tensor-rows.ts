// Rows of float32 activations to the float16 tiles that products on tensor cores read, with a scale a row: nothing is beyond float16's
// range whatever the model. What stands before a product (a sum of partials, RMS norm, SwiGLU) is done on the way.
import { inverseBits, SIDE, TILE_VECTORS } from './tensor-matmul-shape.js'

const THREADS = 256
const LANES = 32
/** Pairs of columns of a region that one subgroup packs alone. */
const NARROW_PAIRS = 256

/** Columns of a row that one product sums over. */
export interface Region {
  /** First column of the source. */
  readonly from: number
  /** First vec4<u32> of the tiles, and first of the scales. */
  readonly to: number
  readonly scale: number
  readonly cols: number
}

/** u32 of an entry of the table of regions. */
export const REGION_WORDS = 5

/** Entries: from, to, scale, cols, bits of 1 / cols. */
export function regionTable(regions: readonly Region[]): Uint32Array {
  return Uint32Array.from(regions.flatMap(({ from, to, scale, cols }) => [from, to, scale, cols, inverseBits(cols)]))
}

/**
 * Where activations come from: WGSL of `fn value(row : u32, c : u32) -> f32`, over bindings from FIRST_SOURCE on. `store`: WGSL that keeps
 * value v of column c of `row`, for sources that are one region.
 */
export interface RowSource {
  readonly code: string
  /** Scalars that are read for a value. */
  readonly reads: number
  readonly store?: (v: string, c: string) => string
}

/** The first binding of a source's buffers. */
export const FIRST_SOURCE = 4

const input = (i: number, name: string, access = 'read', type = 'f32') =>
  `@group(0) @binding(${FIRST_SOURCE + i}) var<storage, ${access}> ${name} : array<${type}>;`

/** x: [stride, rows] */
export function plainRows(stride: number): RowSource {
  return { reads: 1, code: `${input(0, 'x')}\nfn value(row : u32, c : u32) -> f32 { return x[row * ${stride}u + c]; }` }
}

/** Heads of `padded` columns each, out of heads of headWidth columns from `from` on; x: [stride, rows]. */
export function headColumns(stride: number, from: number, headWidth: number, padded: number): RowSource {
  return {
    reads: 1,
    code: `${input(0, 'x')}\nfn value(row : u32, c : u32) -> f32 { return x[row * ${stride}u + ${from}u + c / ${padded}u * ${headWidth}u + c % ${padded}u]; }`,
  }
}

/** silu(gate) * up; x: [stride, rows], for each plane of `width` columns the gates, then the ups. */
export function swigluRows(stride: number, width: number): RowSource {
  return {
    reads: 2,
    code: `${input(0, 'x')}
fn value(row : u32, c : u32) -> f32 {
  let at = row * ${stride}u + c / ${width}u * ${2 * width}u + c % ${width}u; let gate = x[at];
  return gate / (1.0 + exp(-gate)) * x[at + ${width}u];
}`,
  }
}

/** x + (((p0 + p1) + p2) + p3), which also goes to `sum`. x, sum: [width, rows]; p: [width, planeRows, 4]. */
export function sumRows(width: number, planeRows: number): RowSource {
  const plane = width * planeRows
  return {
    reads: 5,
    code: `${input(0, 'x')} ${input(1, 'p')} ${input(2, 'sum', 'read_write')}
fn value(row : u32, c : u32) -> f32 { let at = row * ${width}u + c; return x[at] + (((p[at] + p[at + ${plane}u]) + p[at + ${2 * plane}u]) + p[at + ${3 * plane}u]); }`,
    store: (v, c) => `sum[row * ${width}u + ${c}] = ${v};`,
  }
}

/**
 * Heads' outputs, each the sum over the planes that have it, ascending, times a factor; with a gate, times its sigmoid. p: [stride,
 * planeRows, planes]; places: [4, heads], first column of the head in plane i, or -1; gates: [gateStride, rows] from gateFrom on.
 */
export function headRows(shape: {
  readonly width: number
  readonly stride: number
  readonly planeRows: number
  readonly planes: number
  readonly factor: number
  readonly gate: { readonly stride: number; readonly from: number } | undefined
}): RowSource {
  const { width, stride, planeRows, planes, factor, gate } = shape
  // Without branches, so that all loads of a row are on their way at once.
  const add = (i: number) =>
    `{ let place = places[c / ${width}u * 4u + ${i}u]; let has = place >= 0.0; let one = p[(${i * planeRows}u + row) * ${stride}u + u32(max(place, 0.0)) + c % ${width}u];
    sum = select(sum, select(sum + one, one, first), has); first = first && !has; }`
  return {
    reads: planes + (gate ? 1 : 0),
    code: `${input(0, 'p')} ${input(1, 'places')} ${gate ? input(2, 'gates') : ''}
fn value(row : u32, c : u32) -> f32 {
  var sum = 0.0; var first = true;
  ${Array.from({ length: planes }, (_, i) => add(i)).join('\n  ')}
  return sum * ${factor}${gate ? ` / (1.0 + exp(-gates[row * ${gate.stride}u + ${gate.from}u + c]))` : ''};
}`,
  }
}

export interface RowPacking {
  /** How many regions, and steps of 16 columns of each. */
  readonly regions: number
  readonly steps: number
  /** Two float16 a scalar. */
  readonly pair: boolean
  /** RMS norm over the region's columns, this added to the mean square: times `norm`, divided by the root by way of the row's scale. */
  readonly epsilon: number | undefined
  readonly source: RowSource
}

const NORM = '@group(0) @binding(3) var<storage, read> norm : array<f32>;'

/** A subgroup packs a row of a region alone. */
function isNarrow(steps: number): boolean {
  return (steps * SIDE) / 2 <= NARROW_PAIRS
}

/** Regions that a workgroup packs. */
export function regionsOfGroup(steps: number): number {
  return isNarrow(steps) ? THREADS / LANES : 1
}

const times = (n: number, line: (i: number) => string, separator = '\n') => Array.from({ length: n }, (_, i) => line(i)).join(separator)

/** WGSL of one row of a region, which a subgroup or THREADS invocations share. */
interface RowCode {
  /** Variables of the module. */
  readonly shared: string
  /** From `row`, `region.source` and `region.cols` to v0, v1 ..., `up` and `scale`; `me`: the invocation's place among those that share. */
  readonly body: string
  /** From WGSL that stores pair `i` of the columns: float16 `high`, and with two float16 a scalar `low`. */
  readonly write: (store: string) => string
}

/** keeping, writing: conditions in WGSL for what the source stores, and for what goes to workgroup memory. */
function rowCode({ steps, pair, epsilon, source }: Omit<RowPacking, 'regions'>, keeping = 'true', writing = 'true'): RowCode {
  const normed = epsilon !== undefined
  const pairs = (steps * SIDE) / 2
  const narrow = isNarrow(steps)
  const sharing = narrow ? LANES : THREADS
  const each = Math.ceil(pairs / sharing)
  const inside = (j: number, body: string) => ((j + 1) * sharing <= pairs ? `{ ${body} }` : `if (me + ${j * sharing}u < ${pairs}u) { ${body} }`)
  // Loads come before stores, and past the last column its own value is loaded: nothing waits for another load.
  const load = (j: number) => `let c${j} = 2u * (me + ${j * sharing}u);
  var v${j} = vec2<f32>(value(row, region.source + min(c${j}, last)), value(row, region.source + min(c${j} + 1u, last)));
  v${j} = select(vec2<f32>(0.0), v${j}, vec2<bool>(c${j} < region.cols, c${j} + 1u < region.cols));
  ${normed ? `let n${j} = vec2<f32>(norm[min(c${j}, last)], norm[min(c${j} + 1u, last)]);` : ''}`
  const take = (j: number) => `${normed ? `square = fma(v${j}.x, v${j}.x, square); square = fma(v${j}.y, v${j}.y, square); v${j} *= n${j};` : ''}
  largest = max(largest, max(abs(v${j}.x), abs(v${j}.y)));`
  const { store } = source
  const keep = (j: number) =>
    `if (c${j} < region.cols) { ${store?.(`v${j}.x`, `c${j}`)} } if (c${j} + 1u < region.cols) { ${store?.(`v${j}.y`, `c${j} + 1u`)} }`
  const storing = store === undefined ? '' : `if (${keeping}) { ${times(each, keep, ' ')} }`
  const reduce = narrow
    ? `let most = subgroupMax(largest); ${normed ? times(5, (i) => `square += subgroupShuffleXor(square, ${16 >> i}u);`, ' ') : ''} let total = ${normed ? 'square' : '0.0'};`
    : `largest = subgroupMax(largest); ${normed ? times(5, (i) => `square += subgroupShuffleXor(square, ${16 >> i}u);`, ' ') : ''}
  if (lane == 0u && ${writing}) { maxima[sg] = largest; ${normed ? 'squares[sg] = square;' : ''} }
  workgroupBarrier();
  var most = maxima[0]; var total = ${normed ? 'squares[0]' : '0.0'};
  for (var i = 1u; i < ${THREADS / LANES}u; i++) { most = max(most, maxima[i]); ${normed ? 'total += squares[i];' : ''} }`
  const write = (to: string) => (j: number) =>
    inside(
      j,
      `let i = me + ${j * sharing}u; let v = v${j} * up;
    ${
      pair
        ? `// 11 bits are float16; v - unpack2x16float(pack2x16float(v)) is 0 on NVIDIA's Vulkan driver, which takes that for v - v.
    let both = bitcast<vec2<f32>>(bitcast<vec2<u32>>(v) & vec2<u32>(0xffffe000u)); let high = pack2x16float(both); let low = pack2x16float(v - both);`
        : 'let high = pack2x16float(v);'
    } ${to}`,
    )
  return {
    shared: narrow
      ? ''
      : `var<workgroup> maxima : array<f32, ${THREADS / LANES}>; ${normed ? `var<workgroup> squares : array<f32, ${THREADS / LANES}>;` : ''}`,
    body: `var largest = 0.0; ${normed ? 'var square = 0.0;' : ''}
  let last = region.cols - 1u;
  ${times(each, load, '\n  ')}
  ${storing}
  ${times(each, take, '\n  ')}
  ${reduce}
  // The largest magnitude to 2^14..2^15; 1 for rows of zeros. Two kernels have this code: a quotient before a sum, or under a root, was
  // compiled for one of them to other instructions than for the other by NVIDIA's driver (580.159.04), a last bit apart.
  let exponent = clamp(141 - i32(bitcast<u32>(most) >> 23u), -100, 100);
  let up = select(bitcast<f32>(u32(127 + exponent) << 23u), 1.0, most == 0.0);
  let scale = ${normed ? `inverseSqrt(fma(total, bitcast<f32>(region.inverse), ${epsilon})) / up` : '1.0 / up'};`,
    write: (to) => times(each, write(to), '\n  '),
  }
}

/**
 * bindings: regions, tiles, scales, the norm's weight if normed, then the source's. Workgroups: groups of regionsOfGroup regions by rows.
 * Sums of squares and maxima: a thread's pairs of columns in ascending order, then a tree, whatever other rows there are.
 */
export function packRows(packing: RowPacking): string {
  const { regions, steps, pair, epsilon, source } = packing
  const P = pair ? 2 : 1
  const narrow = isNarrow(steps)
  const { shared, body, write } = rowCode(packing)
  return `enable subgroups;
struct Region { source : u32, to : u32, scale : u32, cols : u32, inverse : u32 }
@group(0) @binding(0) var<storage, read> regions : array<Region>;
@group(0) @binding(1) var<storage, read_write> tiles : array<u32>;
@group(0) @binding(2) var<storage, read_write> scales : array<f32>;
${epsilon === undefined ? '' : NORM}
${source.code}
${shared}
@compute @workgroup_size(${THREADS})
fn main(@builtin(subgroup_id) sg : u32, @builtin(subgroup_invocation_id) lane : u32, @builtin(workgroup_id) id : vec3<u32>) {
  let index = ${narrow ? `id.x * ${THREADS / LANES}u + sg` : 'id.x'};
  let me = ${narrow ? 'lane' : `sg * ${LANES}u + lane`};
  ${narrow ? `if (index >= ${regions}u) { return; }` : ''}
  let region = regions[index];
  let row = id.y;
  ${body}
  if (me == 0u) { scales[region.scale + row] = scale; }
  let first = region.to * 4u + row / ${SIDE}u * ${steps * P * TILE_VECTORS * 4}u + row % ${SIDE}u * 8u;
  ${write(`let to = first + i / 8u * ${P * TILE_VECTORS * 4}u + i % 8u; tiles[to] = high; ${pair ? `tiles[to + ${TILE_VECTORS * 4}u] = low;` : ''}`)}
}
`
}

/** Rows of a product's activations, packed by the product's own workgroups: the bits are those of packRows. */
export interface OwnRows {
  /** One, or a tile of rows where a subgroup packs one. */
  readonly rows: number
  /** Bytes of workgroup memory. */
  readonly bytes: number
  /** Declarations of the module: bindings from 3 on (NORM, then the source's), and variables. */
  readonly declarations: string
  /**
   * What all invocations of the workgroup do, given `region` {source, cols, inverse}, `count` [rows], `sg`, `lane` and `id`: fills `own` and
   * `ownScales`; a barrier must follow. Workgroup id.y == 0 stores what the source stores.
   */
  readonly fill: string
  /** Vector of `own` where step s of part p begins, and vectors from a row to the next. */
  readonly at: (p: number, s: string) => string
  readonly stride: number
}

/** Threads that share the packing of one row. */
export const OWN_THREADS = THREADS

/** threads: of a workgroup, a multiple of OWN_THREADS. several: more than one row, where the packing can. */
export function ownRows(packing: Omit<RowPacking, 'regions'>, threads = OWN_THREADS, several = true): OwnRows {
  const { steps, pair, epsilon, source } = packing
  const narrow = isNarrow(steps)
  const rows = several && narrow && source.store === undefined ? SIDE : 1
  const rowVectors = steps * 2 * (pair ? 2 : 1)
  // Of one row, rows after it are columns of later steps: nobody reads their sums. 16 bytes between rows avoid bank conflicts.
  const stride = rows === 1 ? 2 : rowVectors + 1
  const vectors = rows === 1 ? rowVectors + 2 * (SIDE - 1) : rows * stride
  // Of more threads, each OWN_THREADS do the same, and the first of them write.
  const first = threads === OWN_THREADS ? 'true' : `sg < ${OWN_THREADS / LANES}u`
  const { shared, body, write } = rowCode(packing, `id.y == 0u && ${first}`, first)
  const at = rows === 1 ? '' : `row * ${stride}u + `
  const packed = write(`own[${at}i / 4u][i % 4u] = high; ${pair ? `own[${at}${steps * 2}u + i / 4u][i % 4u] = low;` : ''}`)
  const fill = narrow
    ? `for (var row = sg; row < min(count.x, ${rows}u); row += ${threads / LANES}u) { let me = lane;
  ${body}
  if (me == 0u) { ownScales[row] = scale; }
  ${packed} }`
    : `let me = sg % ${OWN_THREADS / LANES}u * ${LANES}u + lane; let row = 0u;
  ${body}
  if (${first}) { if (me == 0u) { ownScales[0] = scale; }
  ${packed} }`
  return {
    rows,
    // With the scales, and eight of each reduction.
    bytes: vectors * 16 + 4 * rows + 2 * 4 * (THREADS / LANES),
    declarations: `${epsilon === undefined ? '' : NORM}
${source.code}
${shared}
var<workgroup> own : array<vec4<u32>, ${vectors}>; var<workgroup> ownScales : array<f32, ${rows}>;`,
    fill,
    at: (p, s) => `(${s}) * 2u + ${p * steps * 2}u`,
    stride,
  }
}
