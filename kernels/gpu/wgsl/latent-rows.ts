// What a row of a latent model writes to the cache, in one dispatch: its streams, each RMS-normed, and its rotated rope key.
import { type GpuCacheFormat, PAGE_TOKENS } from '../../cache-format.js'

const THREADS = 64

/** Columns of x, [stride, rows], and regions of the cache in elements. */
export interface LatentRows {
  readonly stride: number
  /** Streams of `width` columns from streamsFrom on; rows of the cache are a multiple of 4, zeros past the width. */
  readonly streams: number
  readonly streamsFrom: number
  readonly width: number
  readonly rowWidth: number
  readonly regionStride: number
  readonly epsilon: number
  /** The rope key: 2 * half columns from `from` on. */
  readonly rope: { readonly from: number; readonly half: number; readonly region: number; readonly rowWidth: number } | undefined
}

/** What the kernel does besides: WGSL of `fn ropes(row : u32, i : u32)`, with bindings from FIRST_QUERY on, for i below `words`. */
export interface QueriesBeside {
  readonly code: string
  readonly words: number
}

export const FIRST_QUERY = 6

/** Workgroups of a row. */
export function latentGroups(shape: LatentRows, queries?: QueriesBeside): number {
  return latentVectors(shape) + Math.ceil((queries?.words ?? 0) / THREADS)
}

function latentVectors({ streams, rope }: LatentRows): number {
  return streams + (rope ? 1 : 0)
}

/**
 * bindings: rows [table, length, ...], pages, cache, x, norm weights [width, streams], rope table [2 * half, rows]: cos, sin (none without
 * rope), then those of `queries`. Workgroups: latentGroups by rows.
 */
export function writeLatentRows(shape: LatentRows, { perWord, pack }: GpuCacheFormat, queries?: QueriesBeside): string {
  const { stride, streams, streamsFrom, width, rowWidth, regionStride, epsilon, rope } = shape
  const store = (value: (c: string) => string) => (perWord === 1 ? value('w') : `pack2(${value('(2u * w)')}, ${value('(2u * w + 1u)')})`)
  const normed = (c: string) =>
    `select(0.0, x[at + min(${c}, ${width - 1}u)] / root * weights[id.x * ${width}u + min(${c}, ${width - 1}u)], ${c} < ${width}u)`
  return `
@group(0) @binding(0) var<storage, read> rows : array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> pages : array<u32>;
@group(0) @binding(2) var<storage, read_write> cache : array<${perWord === 1 ? 'f32' : 'u32'}>;
@group(0) @binding(3) var<storage, read> x : array<f32>;
@group(0) @binding(4) var<storage, read> weights : array<f32>;
${rope ? '@group(0) @binding(5) var<storage, read> table : array<f32>;' : ''}
var<workgroup> squares : array<f32, ${THREADS}>;
${pack}
${
  rope
    ? `fn rotated(row : u32, c : u32) -> f32 {
  if (c >= ${2 * rope.half}u) { return 0.0; }
  let at = row * ${stride}u + ${rope.from}u; let t = row * ${2 * rope.half}u;
  if (c < ${rope.half}u) { return x[at + c] * table[t + c] - x[at + c + ${rope.half}u] * table[t + c + ${rope.half}u]; }
  return x[at + c - ${rope.half}u] * table[t + c] + x[at + c] * table[t + c - ${rope.half}u];
}`
    : ''
}
${queries?.code ?? ''}
@compute @workgroup_size(${THREADS})
fn main(@builtin(local_invocation_index) lid : u32, @builtin(workgroup_id) id : vec3<u32>) {
  ${
    queries
      ? `if (id.x >= ${latentVectors(shape)}u) {
    let i = (id.x - ${latentVectors(shape)}u) * ${THREADS}u + lid;
    if (i < ${queries.words}u) { ropes(id.y, i); }
    return;
  }`
      : ''
  }
  let row = rows[id.y];
  let position = row.y - 1u;
  let cached = pages[row.x + position / ${PAGE_TOKENS}u] * ${PAGE_TOKENS}u + position % ${PAGE_TOKENS}u;
  let at = id.y * ${stride}u + ${streamsFrom}u + id.x * ${width}u;
  let isStream = id.x < ${streams}u;
  var square = 0.0;
  if (isStream) { for (var c = lid; c < ${width}u; c += ${THREADS}u) { square = fma(x[at + c], x[at + c], square); } }
  squares[lid] = square;
  workgroupBarrier();
  for (var n = ${THREADS / 2}u; n > 0u; n >>= 1u) { if (lid < n) { squares[lid] += squares[lid + n]; } workgroupBarrier(); }
  if (isStream) {
    let root = sqrt(squares[0] / ${width}.0 + ${epsilon});
    let to = (id.x * ${regionStride}u + cached * ${rowWidth}u) / ${perWord}u;
    for (var w = lid; w < ${rowWidth / perWord}u; w += ${THREADS}u) { cache[to + w] = ${store(normed)}; }
  }${
    rope
      ? ` else {
    let to = (${rope.region}u + cached * ${rope.rowWidth}u) / ${perWord}u;
    for (var w = lid; w < ${rope.rowWidth / perWord}u; w += ${THREADS}u) { cache[to + w] = ${store((c) => `rotated(id.y, ${c})`)}; }
  }`
      : ''
  }
}
`
}
