// Attention on tensor cores: what flash-attention.ts does, over an f16 cache, with the subgroup matrices that Dawn offers
// (16 x 16 x 16, f16 in, f32 out). Three kernels: queries to f16, a part of a row's context for a group of heads per workgroup, and
// the combining of the parts. Which bits a row gets depends on its own length alone (design rule 7): rows of a prompt share what they read.
//
// A workgroup holds its heads' queries in registers and walks through its part `tokens` cached rows at a time: the rows go to
// workgroup memory, scores = queries x rows, then an online softmax over them, then sums += weights x rows. Subgroups share the work by
// groups of 16 * headTiles heads and, within these, by columns (`split`). Nothing reads an element of a matrix directly: scores and
// weights pass through workgroup memory. Maxima lag: sums are rescaled only when a score exceeds the maximum by 2^LAG.
import { PAGE_TOKENS } from '../../cache-format.js'
import { RowLoads } from './tensor-loads.js'
import { geometry, LANES, packedQueryWidth, pad, SIDE, scoreWork, slotsOf, type TensorShape, type TensorTiling, unitOf } from './tensor-shape.js'

/** A weight is at most 2^LAG in f16, whose largest value is 65504. */
const LAG = 8
const LOG2_E = 1.4426950408889634

const times = (n: number, line: (i: number) => string, separator = '\n') => Array.from({ length: n }, (_, i) => line(i)).join(separator)

/**
 * rows: of an entry, at most. Those of an entry belong to one sequence, in ascending order, and their contexts are cut into parts of the
 * same size: they share the tiles of cached rows, and a slot (one head of one row) has the bits that it has alone.
 * bindings: rows [table, length, pages a part, parts], entries [first row, rows, 0, 0], pages, packed queries, cache, z, state,
 * round [round, 0, 0, 0], sizes [entries of a round, parts that z has room for, entries, 0].
 * z: [entries of the round][parts][groups][slots][packedValueWidth], unnormalized; state: maximum (in powers of 2) and sum of weights.
 * Workgroups: parts, or with a walk by tiles fewer that take them in turn, by groups by entries of the round.
 */
export function tensorAttention(shape: TensorShape, tiling: TensorTiling, rows: number): string {
  const { groups, rowHeads, keyWidth, valueOffset, valueWidth, ropeDim, rowWidth, ropeRowWidth } = shape
  const H = slotsOf(shape, rows)
  const { tokens: T, headTiles, split } = tiling
  const g = geometry(shape, H, tiling)
  const unit = unitOf(shape) as number
  const unitType = { 8: 'vec4<u32>', 4: 'vec2<u32>', 2: 'u32' }[unit] as string
  const queryWidth = packedQueryWidth(shape)
  const Z = pad(valueWidth)
  const byTokens = tiling.scores === 'tokens'
  const { blocks: scoreBlocks, steps: keySteps } = scoreWork(g, tiling)
  const valueSteps = Math.ceil(g.valueSteps / split)
  /** Where the columns do not divide evenly among subgroups, the last one has fewer. */
  const guard = (steps: number, all: number, step: number, body: string) =>
    steps * split === all || step < all - steps * (split - 1) ? body : `if (part_of * ${steps}u + ${step}u < ${all}u) { ${body} }`
  const loading = { tokens: T, threads: g.threads, unit, unitType, rowVectors: g.rowVectors }
  const streamUnits = Math.ceil(Math.max(keyWidth, valueOffset + valueWidth) / unit)
  const stream = new RowLoads(loading, 's', streamUnits, rowWidth, (column) =>
    valueOffset === 0 ? column : `select(${column}, ${g.columns.valueAt}u + ${column} - ${valueOffset}u, ${column} >= ${valueOffset}u)`,
  )
  const rope = new RowLoads(loading, 'r', Math.ceil(ropeDim / unit), ropeRowWidth, (column) => `${g.columns.ropeAt}u + ${column}`)
  const V = g.vector
  const scoreRow = g.scoreRow / V
  const weightRow = g.weightRow / V
  /** First units of a page, or of a row within it. */
  const streamAt = (row: string) => `(region + (${row}) * ${rowWidth}u) / ${unit}u`
  const ropeAt = (row: string) => `(${shape.ropeRegion}u + (${row}) * ${ropeRowWidth}u) / ${unit}u`
  const stash = `${stream.stash()} ${ropeDim > 0 ? rope.stash() : ''}`
  /** Vector of a tile where a key step of this subgroup begins: key columns, then rope columns. */
  const keyColumn = (k: number) => {
    const keyParts = pad(keyWidth) / SIDE
    const step = byTokens ? `${k}u` : `(part_of * ${keySteps}u + ${k}u)`
    const gap = g.columns.ropeAt / SIDE - keyParts
    if (ropeDim === 0 || gap === 0) return `${step} * 2u`
    return `select(${step}, ${step} + ${gap}u, ${step} >= ${keyParts}u) * 2u`
  }
  const blocks = T / SIDE
  const part = byTokens ? '0u' : 'part_of'
  /** First of a subgroup's tokens. */
  const block = (r: number) => (byTokens ? `(part_of * ${scoreBlocks}u + ${r}u)` : `${r}u`)
  const scores = `{ ${times(scoreBlocks, (r) => times(headTiles, (i) => `var c${r}_${i} = Sum();`, ' '), ' ')}
      ${times(keySteps, (k) =>
        guard(
          keySteps,
          byTokens ? keySteps * split : g.keySteps,
          k,
          times(
            scoreBlocks,
            (r) => `{ let b = subgroupMatrixLoad<Right, col_major>(&tile, ${block(r)} * ${SIDE * g.rowVectors}u + ${keyColumn(k)}, ${g.rowVectors}u);
        ${times(headTiles, (i) => `c${r}_${i} = subgroupMatrixMultiplyAccumulate(q${i}_${k}, b, c${r}_${i});`, ' ')} }`,
          ),
        ),
      )}
      ${times(scoreBlocks, (r) => times(headTiles, (i) => `subgroupMatrixStore<row_major>(&scores, (${part} * ${H}u + (heads_of * ${headTiles}u + ${i}u) * ${SIDE}u) * ${scoreRow}u + ${block(r)} * ${SIDE / V}u, c${r}_${i}, ${scoreRow}u);`))} }`
  const rescaling = `if (rescale.x == step) { let scratch = sg * ${(SIDE * SIDE) / V}u;
      ${times(headTiles, (i) =>
        times(
          valueSteps,
          (d) => `subgroupMatrixStore<row_major>(&scores, scratch, a${i}_${d}, ${SIDE / V}u); workgroupBarrier();
      { let f = factors[(heads_of * ${headTiles}u + ${i}u) * ${SIDE}u + lane / 2u]; for (var k = 0u; k < ${8 / V}u; k++) { scores[scratch + lane * ${8 / V}u + k] *= f; } } workgroupBarrier();
      a${i}_${d} = subgroupMatrixLoad<Sum, row_major>(&scores, scratch, ${SIDE / V}u); workgroupBarrier();`,
        ),
      )} }`
  const sums = times(
    blocks,
    (
      r,
    ) => `{ ${times(headTiles, (i) => `let p${i} = subgroupMatrixLoad<Left, row_major>(&weights, (heads_of * ${headTiles}u + ${i}u) * ${SIDE * weightRow}u + ${(r * SIDE) / V}u, ${weightRow}u);`, ' ')}
      ${times(valueSteps, (d) =>
        guard(
          valueSteps,
          g.valueSteps,
          d,
          `{ let b = subgroupMatrixLoad<Right, row_major>(&tile, ${r * SIDE * g.rowVectors + g.columns.valueAt / 8 + d * 2}u + part_of * ${valueSteps * 2}u, ${g.rowVectors}u);
        ${times(headTiles, (i) => `a${i}_${d} = subgroupMatrixMultiplyAccumulate(p${i}, b, a${i}_${d});`, ' ')} }`,
        ),
      )} }`,
  )
  const barrier = 'workgroupBarrier();'
  const softmax = softmaxOver(shape.scale, H, rows, tiling, g)
  /** Scores, weights and sums of the tile in workgroup memory; `left` tokens are left from it on. `next`: reads the tile after it meanwhile. */
  const tile = (next: string) => `${stash} ${barrier}
    ${next}
    ${scores} ${barrier} ${softmax} ${barrier} ${rescaling}
    ${sums} ${barrier}`
  /** Reads the tile that begins `ahead_at` tokens after the part's first, and looks up the page of the second one after it. */
  const fetchTile = `{ let cached = page * ${PAGE_TOKENS}u + ahead_at % ${PAGE_TOKENS}u; let left_then = select(0u, all - ahead_at, all > ahead_at);
    let s_at = ${streamAt('cached')}; ${stream.fetch('s_at', 'left_then')} ${ropeDim > 0 ? `let r_at = ${ropeAt('cached')}; ${rope.fetch('r_at', 'left_then')}` : ''}
    ahead_at += ${T}u; page = page_after; page_after = pages[min(first_page + (ahead_at + ${T}u) / ${PAGE_TOKENS}u, last_page)]; }`
  const byTiles = `var left = all; var ahead_at = 0u; let first_page = row.x + start / ${PAGE_TOKENS}u;
  var page = pages[first_page]; var page_after = pages[min(first_page + ${T}u / ${PAGE_TOKENS}u, last_page)];
  ${fetchTile}
  loop {
    ${tile(fetchTile)}
    if (left <= ${T}u) { break; } left -= ${T}u; step++;
  }`
  const perPage = PAGE_TOKENS / T
  /** Reads tile k of a page, which has left_<page> tokens. */
  const fetchOf = (k: number, page: string) =>
    `${stream.fetch(`s_${page}`, `left_${page}`, k * T)} ${ropeDim > 0 ? rope.fetch(`r_${page}`, `left_${page}`, k * T) : ''}`
  const byPages = `var left_here = all; var at_page = row.x + start / ${PAGE_TOKENS}u; let page = pages[at_page];
  var s_here = ${streamAt(`page * ${PAGE_TOKENS}u`)}; ${ropeDim > 0 ? `var r_here = ${ropeAt(`page * ${PAGE_TOKENS}u`)};` : ''}
  // The page after the next is looked up a page early.
  var next_page = pages[min(at_page + 1u, last_page)];
  ${fetchOf(0, 'here')}
  loop {
    let left_next = select(0u, left_here - ${PAGE_TOKENS}u, left_here > ${PAGE_TOKENS}u);
    let s_next = ${streamAt(`next_page * ${PAGE_TOKENS}u`)}; ${ropeDim > 0 ? `let r_next = ${ropeAt(`next_page * ${PAGE_TOKENS}u`)};` : ''}
    at_page++;
    next_page = pages[min(at_page + 1u, last_page)];
    ${times(
      perPage,
      (k) => `{ let left = left_here - ${k * T}u; ${tile(k + 1 < perPage ? fetchOf(k + 1, 'here') : fetchOf(0, 'next'))} step++; }
    if (left_here <= ${(k + 1) * T}u) { break; }`,
    )}
    left_here = left_next; s_here = s_next; ${ropeDim > 0 ? 'r_here = r_next;' : ''}
  }`
  const inTurn = tiling.walk === 'tiles'
  return `enable f16; enable subgroups; enable chromium_experimental_subgroup_matrix; enable chromium_disable_uniformity_analysis;
alias Left = subgroup_matrix_left<f16, ${SIDE}, ${SIDE}>; alias Right = subgroup_matrix_right<f16, ${SIDE}, ${SIDE}>; alias Sum = subgroup_matrix_result<f32, ${SIDE}, ${SIDE}>;
const REGIONS = array<u32, ${groups.length}>(${groups.map(({ region }) => `${region}u`).join(', ')});
@group(0) @binding(0) var<storage, read> rows : array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> entries : array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> pages : array<u32>;
@group(0) @binding(3) var<storage, read> q : array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> cache : array<${unitType}>;
@group(0) @binding(5) var<storage, read_write> z : array<f32>;
@group(0) @binding(6) var<storage, read_write> state : array<vec2<f32>>;
@group(0) @binding(7) var<uniform> round : vec4<u32>;
@group(0) @binding(8) var<uniform> sizes : vec4<u32>;
// Every variable a multiple of 16 bytes: matrices are read wrong from other places.
var<workgroup> tile : array<vec4<u32>, ${g.tileVectors}>;
var<workgroup> scores : array<vec${V}<f32>, ${g.scores}>;
var<workgroup> weights : array<${V === 4 ? 'vec2<u32>' : 'u32'}, ${g.weights}>;
var<workgroup> factors : array<f32, ${H}>;
var<workgroup> rescale : vec4<u32>;
@compute @workgroup_size(${g.threads})
fn main(@builtin(subgroup_id) sg : u32, @builtin(subgroup_invocation_id) lane : u32, @builtin(workgroup_id) id : vec3<u32>${inTurn ? ', @builtin(num_workgroups) across : vec3<u32>' : ''}) {
  let lid = sg * ${LANES}u + lane;
  let entry = entries[round.x * sizes.x + id.z];
  // The longest one.
  let row = rows[entry.x + entry.y - 1u];
  if (id.x >= row.w) { return; }
  var table = REGIONS;
  let region = table[id.y];
  let heads_of = sg / ${split}u; let part_of = sg % ${split}u;
  let h = lid / ${g.perHead}u; let j = lid % ${g.perHead}u;
  let query = (id.y * ${shape.queryRows}u + entry.x) * ${rowHeads * (queryWidth / 8)}u;
  ${times(headTiles, (i) => times(keySteps, (k) => `let q${i}_${k} = subgroupMatrixLoad<Left, row_major>(&q, query + (heads_of * ${headTiles}u + ${i}u) * ${SIDE * (queryWidth / 8)}u + ${byTokens ? `${k}u` : `min(part_of * ${keySteps}u + ${k}u, ${g.keySteps - 1}u)`} * 2u, ${queryWidth / 8}u);`, '\n  '), '\n  ')}
  var step = 1u;
  if (lid == 0u) { rescale = vec4<u32>(0u); }
  ${stream.declare()} ${ropeDim > 0 ? rope.declare() : ''}
  ${inTurn ? 'for (var at = id.x; at < row.w; at += across.x) {' : 'let at = id.x;'}
  let start = at * row.z * ${PAGE_TOKENS}u; let end = min(row.y, start + row.z * ${PAGE_TOKENS}u);
  ${
    rows === 1
      ? ''
      : `// Tokens at the end of this part that the slot's own row does not see.
  let own = h / ${rowHeads}u; let hidden = select(0u, end - min(end, rows[entry.x + min(own, entry.y - 1u)].y), own < entry.y);`
  }
  let all = end - start; let last_page = row.x + (end - 1u) / ${PAGE_TOKENS}u;
  var m = -1.0e30; var l = 0.0;
  ${times(headTiles, (i) => times(valueSteps, (d) => `var a${i}_${d} = Sum();`, ' '), ' ')}
  ${inTurn ? byTiles : byPages}
  let out = ((id.z * sizes.y + at) * ${groups.length}u + id.y) * ${H}u;
  ${times(headTiles, (i) =>
    times(valueSteps, (d) =>
      guard(
        valueSteps,
        g.valueSteps,
        d,
        `subgroupMatrixStore<row_major>(&z, (out + (heads_of * ${headTiles}u + ${i}u) * ${SIDE}u) * ${Z}u + (part_of * ${valueSteps}u + ${d}u) * ${SIDE}u, a${i}_${d}, ${Z}u);`,
      ),
    ),
  )}
  if (j == 0u) { state[out + h] = vec2<f32>(m, l); }
  ${inTurn ? 'step++; }' : ''}
}
`
}

/**
 * Scores to weights, for a tile. The weights are added in a tree over the tile's tokens. The tree is the same whatever number of
 * threads shares a head: first within words of 4 tokens, then words at half the distance, a quarter, and so on.
 */
function softmaxOver(scale: number, H: number, rows: number, { tokens: T }: TensorTiling, g: ReturnType<typeof geometry>): string {
  const { perHead, vector: V, chunks } = g
  const scoreRow = g.scoreRow / V
  const letters = ['x', 'y', 'z', 'w'].slice(0, V)
  const score = (part: number, i: number) => `scores[${part * H * scoreRow}u + h * ${scoreRow}u + ${i * perHead}u + j]`
  const perWord = 4 / V
  const wordThreads = perHead / perWord
  const hidden = rows === 1 ? '' : ' + hidden'
  const sums: string[] = V === 2 ? ['s0 += subgroupShuffleXor(s0, 1u);'] : []
  for (let distance = T / 8; distance >= 1; distance /= 2) {
    if (distance < wordThreads) sums.push(`s0 += subgroupShuffleXor(s0, ${distance * perWord}u);`)
    else sums.push(...Array.from({ length: distance / wordThreads }, (_, i) => `s${i} += s${i + distance / wordThreads};`))
  }
  return `
    ${times(chunks, (i) => `var x${i} = (${times(g.scoreParts, (part) => score(part, i), ' + ')}) * ${scale * LOG2_E};`, '\n    ')}
    if (left < ${T}u${hidden}) { ${times(chunks, (i) => letters.map((c, e) => `if (${e}u + (${i * perHead}u + j) * ${V}u${hidden} >= left) { x${i}.${c} = -1.0e30; }`).join(' '), '\n      ')} }
    { var most4 = x0; ${times(chunks - 1, (i) => `most4 = max(most4, x${i + 1});`, ' ')}
    var most = ${V === 4 ? 'max(max(most4.x, most4.y), max(most4.z, most4.w))' : 'max(most4.x, most4.y)'};
    ${times(Math.log2(perHead), (n) => `most = max(most, subgroupShuffleXor(most, ${1 << n}u));`, ' ')}
    if (most > m + ${LAG}.0) { let alpha = exp2(m - most); if (m > -1.0e29) { rescale.x = step; } m = most; l *= alpha; if (j == 0u) { factors[h] = alpha; } }
    else if (j == 0u) { factors[h] = 1.0; } }
    { ${times(
      chunks,
      (i) => `let e${i} = exp2(x${i} - m); var s${i} = ${V === 4 ? `(e${i}.x + e${i}.y) + (e${i}.z + e${i}.w)` : `e${i}.x + e${i}.y`};
    weights[h * ${g.weightRow / V}u + ${i * perHead}u + j] = ${V === 4 ? `vec2<u32>(pack2x16float(e${i}.xy), pack2x16float(e${i}.zw))` : `pack2x16float(e${i})`};`,
      '\n    ',
    )}
    ${sums.join(' ')} l += s0; }`
}
