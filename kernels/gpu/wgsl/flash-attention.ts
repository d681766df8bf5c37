// Flash decoding over the paged cache on any adapter: a part of a row's context for a group of heads per workgroup, page by page with
// an online softmax. It outputs unnormalized sums and (maximum, sum of weights); a gpu.js kernel combines the parts in ascending
// order. How a row is cut into parts depends only on its own length, so its bits do not depend on other rows (docs/determinism.md, rule 7).
import { type GpuCacheFormat, PAGE_TOKENS } from '../../cache-format.js'

/** Heads of one workgroup. */
export const HEAD_GROUP = 8
const THREADS = 128

/** Up to HEAD_GROUP heads that attend over one stream. */
export interface HeadGroup {
  /** First element of the stream's region. */
  readonly region: number
  /** First column of the first head's query, and of its rope query. */
  readonly query: number
  readonly ropeQuery: number
  /** First head in the output. */
  readonly out: number
  /** First lane of the coefficients. */
  readonly lane: number
  readonly heads: number
}

export interface FlashShape {
  readonly format: GpuCacheFormat
  readonly groups: readonly HeadGroup[]
  /** Scalars of a row of q, and from one head to the next. */
  readonly queryWidth: number
  readonly queryStride: number
  /** The same of the rope queries. */
  readonly ropeWidth: number
  readonly ropeStride: number
  readonly rowWidth: number
  readonly keyOffset: number
  readonly keyWidth: number
  readonly valueOffset: number
  /** Columns of a head's weighted sum, a multiple of 4. */
  readonly valueWidth: number
  /** 0: no rope key of its own. */
  readonly ropeDim: number
  readonly ropeRegion: number
  readonly ropeRowWidth: number
  /** Keys and values are sums of `rank` vectors with cached coefficients, [2 * rank][lanes]. */
  readonly factors: { readonly rank: number; readonly valueStride: number; readonly region: number; readonly lanes: number } | undefined
  readonly scale: number
  /** Heads of a row's output. */
  readonly outHeads: number
  /** Maximum number of parts of a row. */
  readonly parts: number
}

const times = (n: number, line: (i: number) => string, separator = '\n') => Array.from({ length: n }, (_, i) => line(i)).join(separator)

/** load4(i): four cached values from element i on. */
function loads({ perWord, unpack: two }: GpuCacheFormat, aligned: boolean): { readonly type: string; readonly code: string } {
  if (perWord === 1) {
    return aligned
      ? { type: 'vec4<f32>', code: 'fn load4(i : u32) -> vec4<f32> { return cache[i / 4u]; }' }
      : { type: 'f32', code: 'fn load4(i : u32) -> vec4<f32> { return vec4<f32>(cache[i], cache[i + 1u], cache[i + 2u], cache[i + 3u]); }' }
  }
  if (aligned) {
    return { type: 'vec2<u32>', code: `fn load4(i : u32) -> vec4<f32> { let w = cache[i / 4u]; return vec4<f32>(${two('w.x')}, ${two('w.y')}); }` }
  }
  return {
    type: 'u32',
    code: `fn load1(i : u32) -> f32 { let v = ${two('cache[i / 2u]')}; return select(v.x, v.y, i % 2u == 1u); }
fn load4(i : u32) -> vec4<f32> { return vec4<f32>(load1(i), load1(i + 1u), load1(i + 2u), load1(i + 3u)); }`,
  }
}

/**
 * bindings: rows [table, length, pages a part, parts], pages, queries, rope queries, cache, z, state, uniform [first row, 0, 0, 0].
 * Workgroups: parts by head groups by rows. Queries are in columns of whole vectors, zeros past the last.
 */
export function flashAttention(shape: FlashShape): string {
  const { groups, format, factors, keyWidth, valueWidth, ropeDim } = shape
  const aligned = [shape.keyOffset, shape.valueOffset, keyWidth, shape.factors?.valueStride ?? 0].every((n) => n % 4 === 0)
  const { type, code } = loads(format, aligned)
  const quads = valueWidth / 4
  const perThread = Math.ceil(quads / 16)
  /** Adds to s the products of four heads' queries and `width` cached values. */
  const scores = (query: 'q' | 'qr', at: string, width: number) => `
      for (var k = 0u; k < ${Math.ceil(width / 4)}u; k++) {
        let c = load4(${at} + 4u * k);
        ${times(4, (j) => `s.${'xyzw'[j]} += dot(c, ${query}[(${query}At + ${j * (query === 'q' ? shape.queryStride : shape.ropeStride)}u) / 4u + k]);`, ' ')}
      }`
  const coefficient = (row: string, vector: string, head: string) => `coefficient(page, ${row}, ${vector}, group.lane + ${head})`
  return `
struct Group { region : u32, query : u32, ropeQuery : u32, out : u32, lane : u32, heads : u32 }
const GROUPS = array<Group, ${groups.length}>(${groups.map((g) => `Group(${g.region}u, ${g.query}u, ${g.ropeQuery}u, ${g.out}u, ${g.lane}u, ${g.heads}u)`).join(', ')});
@group(0) @binding(0) var<storage, read> rows : array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> pages : array<u32>;
@group(0) @binding(2) var<storage, read> q : array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> qr : array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> cache : array<${type}>;
@group(0) @binding(5) var<storage, read_write> z : array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> state : array<vec2<f32>>;
@group(0) @binding(7) var<uniform> first : vec4<u32>;
var<workgroup> weights : array<f32, ${HEAD_GROUP * PAGE_TOKENS}>;
${code}
${
  factors
    ? `fn coefficient(page : u32, row : u32, vector : u32, lane : u32) -> f32 {
  let i = ${factors.region}u + ((page * ${PAGE_TOKENS}u + row) * ${2 * factors.rank}u + vector) * ${factors.lanes}u + lane;
  return load4(i & ~3u)[i & 3u];
}`
    : ''
}
@compute @workgroup_size(${THREADS})
fn main(@builtin(local_invocation_index) lid : u32, @builtin(workgroup_id) id : vec3<u32>) {
  let t = first.x + id.z;
  let row = rows[t];
  let part = id.x;
  if (part >= row.w) { return; }
  var table = GROUPS;
  let group = table[id.y];
  let firstPage = part * row.z;
  let lastPage = min(firstPage + row.z, (row.y + ${PAGE_TOKENS - 1}u) / ${PAGE_TOKENS}u);
  // Scores: a thread has one cached token and four heads. Sums: it has one head and every sixteenth quad of columns.
  let token = lid % ${PAGE_TOKENS}u; let half = lid / ${PAGE_TOKENS}u * 4u;
  let head = lid / 16u; let quad = lid % 16u;
  let qAt = t * ${shape.queryWidth}u + group.query + half * ${shape.queryStride}u;
  let qrAt = t * ${shape.ropeWidth}u + group.ropeQuery + half * ${shape.ropeStride}u;
  var m = -3.0e38; var l = 0.0;
  ${times(perThread, (j) => `var a${j} = vec4<f32>(0.0);`, ' ')}
  for (var p = firstPage; p < lastPage; p++) {
    let page = pages[row.x + p];
    let valid = min(${PAGE_TOKENS}u, row.y - p * ${PAGE_TOKENS}u);
    if (token < valid) {
      let at = group.region + (page * ${PAGE_TOKENS}u + token) * ${shape.rowWidth}u + ${shape.keyOffset}u;
      var s = vec4<f32>(0.0);
      ${
        factors
          ? times(
              factors.rank,
              (r) => `{ var total = s; s = vec4<f32>(0.0); ${scores('q', `at + ${r * keyWidth}u`, keyWidth)}
      s = total + s * vec4<f32>(${times(4, (j) => coefficient('token', `${r}u`, `half + ${j}u`), ', ')}); }`,
            )
          : scores('q', 'at', keyWidth)
      }
      ${ropeDim > 0 ? `let ropeAt = ${shape.ropeRegion}u + (page * ${PAGE_TOKENS}u + token) * ${shape.ropeRowWidth}u; ${scores('qr', 'ropeAt', ropeDim)}` : ''}
      s *= ${shape.scale};
      ${times(4, (j) => `weights[(half + ${j}u) * ${PAGE_TOKENS}u + token] = s.${'xyzw'[j]};`, ' ')}
    }
    workgroupBarrier();
    var most = m;
    for (var i = 0u; i < valid; i++) { most = max(most, weights[head * ${PAGE_TOKENS}u + i]); }
    workgroupBarrier();
    for (var i = quad; i < valid; i += 16u) { weights[head * ${PAGE_TOKENS}u + i] = exp(weights[head * ${PAGE_TOKENS}u + i] - most); }
    workgroupBarrier();
    let alpha = exp(m - most);
    m = most; l *= alpha;
    ${times(perThread, (j) => `a${j} *= alpha;`, ' ')}
    let values = group.region + page * ${PAGE_TOKENS * shape.rowWidth}u + ${shape.valueOffset}u + quad * 4u;
    for (var i = 0u; i < valid; i++) {
      let w = weights[head * ${PAGE_TOKENS}u + i];
      l += w;
      ${times(factors?.rank ?? 1, (r) => {
        const weight = factors ? `w * ${coefficient('i', `${factors.rank + r}u`, 'head')}` : 'w'
        const column = r * (factors?.valueStride ?? 0)
        return `{ let e = vec4<f32>(${weight}); ${times(perThread, (j) => `${(j + 1) * 16 > quads ? `if (quad + ${16 * j}u < ${quads}u) ` : ''}{ a${j} = fma(e, load4(values + i * ${shape.rowWidth}u + ${column + 64 * j}u), a${j}); }`, ' ')} }`
      })}
    }
    workgroupBarrier();
  }
  if (head >= group.heads) { return; }
  let slot = (id.z * ${shape.parts}u + part) * ${shape.outHeads}u + group.out + head;
  ${times(perThread, (j) => `if (quad + ${16 * j}u < ${quads}u) { z[slot * ${quads}u + quad + ${16 * j}u] = a${j}; }`)}
  if (quad == 0u) { state[slot] = vec2<f32>(m, l); }
}
`
}

/** Elements that a cache needs past its last row: whole vectors are read where rows are not aligned. */
export const CACHE_SLACK = 16
