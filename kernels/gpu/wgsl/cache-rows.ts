// Writes rows to the cache, in the cache's format. The cache of a layer is one buffer: regions (streams, rope key,
// coefficients) of [pages][64][row width] elements, each a multiple of 4.

import { type GpuCacheFormat, PAGE_TOKENS } from '../../cache-format.js'

/** Bytes of a cached scalar. */
export function cacheBytes({ perWord }: GpuCacheFormat): number {
  return 4 / perWord
}

/** What one dispatch writes: `planes` vectors of `width` from each row of x to as many regions. */
export interface RowWrite {
  readonly width: number
  /** Elements of a cached row, a multiple of 4; beyond width they become 0. */
  readonly rowWidth: number
  readonly planes: number
  /** Scalars from one row of x to the next. */
  readonly xStride: number
  /** First element of the first region, and elements from one region to the next. */
  readonly region: number
  readonly regionStride: number
}

/** Words of the cache that one row's vector takes. */
export function writeWords({ rowWidth }: RowWrite, { perWord }: GpuCacheFormat): number {
  return rowWidth / perWord
}

/**
 * bindings: count uniform, rows [table, length, ...] of each row, pages, cache, then x of each write.
 * One thread per word of the cache; workgroups: words by planes of all writes by rows.
 */
export function writeRows(writes: readonly RowWrite[], format: GpuCacheFormat): string {
  const { perWord, pack } = format
  let firstPlane = 0
  const branches = writes.map((write, i) => {
    const { width, rowWidth, planes, xStride, region, regionStride } = write
    const first = firstPlane
    firstPlane += planes
    const value = (c: string) => `select(0.0, x${i}[source + min(${c}, ${width - 1}u)], ${c} < ${width}u)`
    const store =
      perWord === 1 ? `cache[to + id.x] = ${value('id.x')};` : `let c = id.x * 2u; cache[to + id.x] = pack2(${value('c')}, ${value('(c + 1u)')});`
    return `if (id.y < ${first + planes}u) {
    if (id.x < ${writeWords(write, format)}u) {
      let plane = id.y - ${first}u;
      let to = (${region}u + plane * ${regionStride}u + cached * ${rowWidth}u) / ${perWord}u;
      let source = id.z * ${xStride}u + plane * ${width}u;
      ${store}
    }
  }`
  })
  return `
@group(0) @binding(0) var<uniform> count : vec4<u32>;
@group(0) @binding(1) var<storage, read> rows : array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> pages : array<u32>;
@group(0) @binding(3) var<storage, read_write> cache : array<${perWord === 1 ? 'f32' : 'u32'}>;
${writes.map((_, i) => `@group(0) @binding(${4 + i}) var<storage, read> x${i} : array<f32>;`).join('\n')}
${pack}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id : vec3<u32>) {
  if (id.z >= count.x) { return; }
  let row = rows[id.z];
  let position = row.y - 1u;
  let cached = pages[row.x + position / ${PAGE_TOKENS}u] * ${PAGE_TOKENS}u + position % ${PAGE_TOKENS}u;
  ${branches.join(' else ')}
}
`
}
